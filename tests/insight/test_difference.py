"""What tells two runs apart: by key, with what only one of them has."""

import json
from pathlib import Path
from typing import Any

import pytest

from dltips.insight.difference import ABSENT, Change, provenance_changes, result_changes, setting_changes
from dltips.runs.past_runs import PastRun


def run(folder: Path, name: str, environment: Any = None, **parts: Any) -> PastRun:
    (folder / name).mkdir()
    if environment is not None:
        text = environment if isinstance(environment, str) else json.dumps(environment)
        (folder / name / "environment.json").write_text(text)
    usual = {"status": "finished", "settings": {}, "summary": {}, "seed": 0}
    return PastRun(folder / name, **usual | parts)


def pairs(changes: list[Change]) -> dict[str, tuple[str, str]]:
    return {change.key: (change.shown(0), change.shown(1)) for change in changes}


def test_settings_that_differ_stand_by_family_and_what_only_one_has_is_absent(tmp_path: Path) -> None:
    one = run(tmp_path, "a", settings={"seed": 0, "optimizer.lr": 0.1, "init": "he", "init.gain": 2, "name": None})
    two = run(tmp_path, "b", settings={"seed": 0, "optimizer.lr": 0.1, "model.depth": 3, "init": "zeros", "name": None})
    assert pairs(setting_changes(one, two)) == {
        "model.depth": (ABSENT, "3"),
        "init": ("he", "zeros"),
        "init.gain": ("2", ABSENT),
    }
    assert list(pairs(setting_changes(one, two))) == ["model.depth", "init", "init.gain"]
    assert setting_changes(one, one) == []


def test_a_setting_is_shown_whole_and_a_result_by_six_digits(tmp_path: Path) -> None:
    one = run(tmp_path, "a", settings={"optimizer.lr": 0.123456789}, summary={"best": {"val/loss": 0.123456789}})
    two = run(tmp_path, "b", settings={"optimizer.lr": 0.1}, summary={"best": {"val/loss": 1234567.8}})
    assert pairs(setting_changes(one, two)) == {"optimizer.lr": ("0.123456789", "0.1")}
    assert pairs(result_changes(one, two)) == {"val/loss": ("0.123457", "1234568")}


@pytest.mark.parametrize(("value", "shown"), [(999_999.4, "999999"), (1e6, "1000000"), (-1234567.8, "-1234568")])
def test_from_seven_digits_on_a_result_is_a_whole_number(value: float, shown: str) -> None:
    assert Change("x", {0: value}, digits=6).shown(0) == shown
    assert Change("x", {0: value}, digits=6).shown(1) == ABSENT


def test_results_are_the_best_epoch_s_scores_and_the_run_s_figures(tmp_path: Path) -> None:
    one = run(
        tmp_path, "a", summary={"best": {"val/accuracy": 0.9, "val/loss": 0.5}, "parameters": 100, "seconds": 3.0}
    )
    two = run(tmp_path, "b", summary={"best": {"val/accuracy": 0.9, "train/loss": 0.1}, "parameters": 50})
    assert pairs(result_changes(one, two)) == {
        "val/loss": ("0.5", ABSENT),
        "train/loss": (ABSENT, "0.1"),
        "seconds": ("3", ABSENT),
        "parameters": ("100", "50"),
    }
    broken = run(tmp_path, "c", summary={"best": "none"})
    assert pairs(result_changes(broken, broken)) == {}


def test_provenance_is_status_code_data_machine_and_versions_in_this_order(tmp_path: Path) -> None:
    first = {"versions": {"torch": "2.6", "python": "3.11"}, "threads": 1, "device": "cpu"}
    second = {"versions": {"torch": "2.7", "python": "3.11"}, "threads": 2, "device": "cpu"}
    one = run(tmp_path, "a", first, summary={"data_hash": "d", "code_version": "1"})
    two = run(tmp_path, "b", second, status="diverged", summary={"data_hash": "e", "code_version": "1", "threads": 4})
    found = pairs(provenance_changes(one, two))
    assert found == {
        "status": ("finished", "diverged"),
        "data_hash": ("d", "e"),
        "threads": ("1", "4"),  # the summary's word comes before environment.json's
        "torch version": ("2.6", "2.7"),
    }
    assert list(found) == ["status", "data_hash", "threads", "torch version"]


@pytest.mark.parametrize("damaged", [None, "{", "[1]", '{"versions": 3}'])
def test_without_a_whole_environment_json_the_summary_alone_speaks(tmp_path: Path, damaged: str | None) -> None:
    one = run(tmp_path, "a", damaged, summary={"device": "cpu"})
    two = run(tmp_path, "b", {"device": "cuda", "versions": {}})
    assert pairs(provenance_changes(one, two)) == {"device": ("cpu", "cuda")}
