"""The test split of a run: its scores, and the count of its reads."""

from pathlib import Path

import pytest
import torch

from dltips.errors import ConfigError
from dltips.runs.file_names import read_summary
from dltips.use.evaluate import evaluate, scores


def test_a_class_nobody_claims_or_has_gets_no_number() -> None:
    found = scores(torch.tensor([0, 0, 0]), torch.tensor([0, 0, 1]), ["a", "b", "c"])
    by_class = {entry["class"]: entry for entry in found["per_class"]}
    assert by_class["a"] == {"class": "a", "samples": 2, "precision": 2 / 3, "recall": 1.0, "f1": 4 / 5}
    assert by_class["b"] == {"class": "b", "samples": 1, "precision": None, "recall": 0.0, "f1": 0.0}
    assert by_class["c"] == {"class": "c", "samples": 0, "precision": None, "recall": None, "f1": None}
    assert found["confusion"] == [[2, 0, 0], [1, 0, 0], [0, 0, 0]]


def test_every_read_is_counted_and_nothing_else_changes(run: str) -> None:
    files = {path.name: path.read_bytes() for path in Path(run).iterdir()}
    before = read_summary(Path(run))
    assert before is not None and before["test_reads"] == 0
    results = [evaluate(run, "best", "cpu") for _ in range(3)]
    assert [result.pop("test_reads") for result in results] == [1, 2, 3]
    assert results[0] == results[1] == results[2]
    assert read_summary(Path(run)) == before | {"test_reads": 3}
    assert {path.name: path.read_bytes() for path in Path(run).iterdir() if path.name != "summary.json"} == {
        name: content for name, content in files.items() if name != "summary.json"
    }


def test_a_run_that_is_not_finished_is_refused(run: str) -> None:
    (Path(run) / "summary.json").unlink()
    with pytest.raises(ConfigError, match=r"^outputs/run: .*summary\.json.* train resume=outputs/run$"):
        evaluate(run, "best", "cpu")
