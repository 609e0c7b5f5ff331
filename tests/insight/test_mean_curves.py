"""Mean curves over the seeds of a group."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dltips.insight.groups import RunGroup
from dltips.insight.mean_curves import Point, mean_curve
from dltips.insight.statistics import spread
from dltips.runs.past_runs import PastRun


def write(folder: Path, seed: int | None, records: Sequence[Mapping[str, Any]]) -> PastRun:
    folder.mkdir()
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return PastRun(folder, "finished", {}, {}, seed)


def losses(*values: Any) -> list[dict[str, Any]]:
    return [{"epoch": epoch, "val/loss": value} for epoch, value in enumerate(values, 1)]


def test_each_epoch_has_the_mean_and_interval_of_the_runs_that_reached_it(tmp_path: Path) -> None:
    runs = [
        write(tmp_path / "a", 0, losses(1.0, 0.5, 0.3)),
        write(tmp_path / "b", 1, losses(2.0, 0.6)),
        write(tmp_path / "c", 2, losses(3.0, 0.7)),
    ]
    first, second, third = mean_curve(RunGroup("all", {}, runs), "val/loss")
    expected = spread([1.0, 2.0, 3.0])
    assert first == (1, 3, 2.0, expected.low, expected.high)
    assert second[:3] == (2, 3, pytest.approx(0.6))
    assert third == Point(3, 1, 0.3, 0.3, 0.3)


def test_repeats_of_one_seed_are_one_value(tmp_path: Path) -> None:
    runs = [
        write(tmp_path / "a", 0, losses(1.0)),
        write(tmp_path / "b", 0, losses(2.0)),
        write(tmp_path / "c", 1, losses(3.0)),
    ]
    (point,) = mean_curve(RunGroup("all", {}, runs), "val/loss")
    assert (point.n, point.mean) == (2, 2.25)
    assert point.high == pytest.approx(spread([1.5, 3.0]).high)


def test_a_seed_that_was_lost_does_not_bend_the_curve_of_those_that_finished(tmp_path: Path) -> None:
    whole = [write(tmp_path / "a", 0, losses(1.0, 0.5)), write(tmp_path / "b", 1, losses(3.0, 0.7))]
    lost = replace(write(tmp_path / "c", 2, losses(99.0)), status="diverged")
    running = replace(write(tmp_path / "d", 3, losses(50.0)), status="unfinished")
    assert mean_curve(RunGroup("all", {}, [*whole, lost, running]), "val/loss") == mean_curve(
        RunGroup("all", {}, whole), "val/loss"
    )
    assert [point.mean for point in mean_curve(RunGroup("all", {}, [lost, running]), "val/loss")] == [74.5]


def test_what_is_no_number_is_left_out(tmp_path: Path) -> None:
    runs = [write(tmp_path / "a", 0, losses(1.0, None, float("nan"), float("inf"), True, "x", 2.0))]
    assert [(point.epoch, point.mean) for point in mean_curve(RunGroup("all", {}, runs), "val/loss")] == [
        (1, 1.0),
        (7, 2.0),
    ]


def test_no_records_no_curve(tmp_path: Path) -> None:
    runs = [write(tmp_path / "a", 0, []), PastRun(tmp_path / "gone", "unfinished", {}, {}, 1)]
    assert mean_curve(RunGroup("all", {}, runs), "val/loss") == []
    assert mean_curve(RunGroup("all", {}, []), "val/loss") == []
