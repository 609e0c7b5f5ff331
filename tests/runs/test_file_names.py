"""The readers of a run's files: what is torn or damaged ends or empties what is read, and raises nothing."""

from pathlib import Path

import pytest

from dltips.runs.file_names import METRICS, SUMMARY, read_metrics, read_summary


def test_metrics_end_where_a_line_is_none_of_ours(tmp_path: Path) -> None:
    lines = ['{"epoch": 0}', '{"epoch": 1, "val/loss": 0.5}', '{"epoch": 2}']
    ends = ['{"epoch": 3', "[]", '{"epoch": true}', '{"epoch": -1}', '{"epoch": 1.0}', f'{{"epoch": {2**53}}}', "{}"]
    assert read_metrics(tmp_path) == []
    for end in ends:
        (tmp_path / METRICS).write_text("\n".join([*lines, end, '{"epoch": 9}']))
        assert [record["epoch"] for record in read_metrics(tmp_path)] == [0, 1, 2], end
    (tmp_path / METRICS).write_text(f'{{"epoch": {2**53 - 1}}}\n')
    assert len(read_metrics(tmp_path)) == 1


@pytest.mark.parametrize(
    ("text", "read"), [('{"a": 1}', {"a": 1}), ("[1]", None), ("{", None), ("[" * 100_000, None), (None, None)]
)
def test_a_summary_that_cannot_be_read_is_none(tmp_path: Path, text: str | None, read: object) -> None:
    if text is not None:
        (tmp_path / SUMMARY).write_text(text)
    assert read_summary(tmp_path) == read
