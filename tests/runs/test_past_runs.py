"""Run folders found and read: whole ones, half-written ones, damaged ones."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from dltips.errors import ConfigError
from dltips.runs import past_runs

CONFIG = """\
seed: 3
epochs: 5
data: {name: digits, split_seed: 0}
init: {name: he, scale: 1.0}
augmentation:
  flip: {name: flip, p: 0.5}
log: {layers: true}
"""


def write(folder: Path, summary: Any = None, config: str | None = CONFIG) -> Path:
    folder.mkdir(parents=True)
    if config is not None:
        (folder / "config.yaml").write_text(config)
    if summary is not None:
        (folder / "summary.json").write_text(summary if isinstance(summary, str) else json.dumps(summary))
    return folder


def summary(**more: Any) -> dict[str, Any]:
    return {"status": "finished", "settings": {"seed": 1, "init": "he"}, "best": {"val/loss": 0.5}} | more


def found(*places: Path | str) -> list[str]:
    return [run.path.name for run in past_runs.runs_in([str(place) for place in places])]


def test_a_whole_run() -> None:
    run = past_runs.PastRun(Path("a"), "finished", {"seed": 1}, summary(seconds=2, size_mb=0.3), 1)
    assert (run.value("val/loss"), run.value("seconds"), run.value("size_mb")) == (0.5, 2.0, 0.3)
    assert run.value("val/accuracy") is None


@pytest.mark.parametrize("odd", [None, float("nan"), float("inf"), -float("inf"), 1e200, 10**400, True, "0.5", [0.5]])
def test_what_is_no_number_is_no_value(odd: Any) -> None:
    run = past_runs.PastRun(Path("a"), "finished", {}, {"best": {"val/loss": odd}, "seconds": odd}, 1)
    assert run.value("val/loss") is None
    assert run.value("seconds") is None


@pytest.mark.parametrize("best", [None, [], "no", 3])
def test_a_best_that_is_no_mapping_has_no_scores(best: Any) -> None:
    assert past_runs.PastRun(Path("a"), "finished", {}, {"best": best}, 1).value("val/loss") is None


def test_settings_come_from_the_summary_and_the_yaml_is_not_read(tmp_path: Path) -> None:
    run = past_runs.read(write(tmp_path / "a", summary(), config="seed: [torn"))
    assert (run.status, run.seed, run.settings) == ("finished", 1, {"seed": 1, "init": "he"})


@pytest.mark.parametrize(
    "content",
    [None, "", "{", '{"status": "fin', "[1, 2]", "3", "null", "\udcff\x00".encode("utf-8", "replace").decode()],
)
def test_a_run_without_a_whole_summary_is_unfinished_and_its_settings_are_the_configs(
    tmp_path: Path, content: str | None
) -> None:
    run = past_runs.read(write(tmp_path / "a", content))
    assert (run.status, run.seed, run.summary) == ("unfinished", 3, {})
    expected = {"init": "he", "init.scale": 1.0, "augmentation": "flip", "augmentation.flip.p": 0.5, "log.layers": True}
    assert run.settings.items() >= expected.items()


def test_a_run_older_than_settings_has_its_configs(tmp_path: Path) -> None:
    run = past_runs.read(write(tmp_path / "a", {"status": "finished", "seed": 4, "best": {"val/loss": 1}}))
    assert (run.status, run.settings["init"], run.value("val/loss")) == ("finished", "he", 1.0)


@pytest.mark.parametrize("config", ["seed: [torn", "- a\n- b\n", "", None, "!!python/object/apply:os.system [exit]"])
def test_settings_that_cannot_be_read_are_none(tmp_path: Path, config: str | None) -> None:
    run = past_runs.read(write(tmp_path / "a", {"status": "failed", "settings": "odd", "seed": True}, config))
    assert (run.status, run.settings, run.seed) == ("failed", {}, None)


def test_folders_of_runs_and_sweeps_are_searched_and_sorted_by_path(tmp_path: Path) -> None:
    write(tmp_path / "b", summary())
    write(tmp_path / "a-sweep" / "001-x", summary())
    write(tmp_path / "a-sweep" / "000-y", summary())
    write(tmp_path / ".hidden" / "run", summary())
    (tmp_path / "a-sweep" / "sweep.json").write_text('{"trials": []}')
    (tmp_path / "notes.txt").write_text("no run")
    assert found(tmp_path) == ["000-y", "001-x", "b"]
    assert found(tmp_path / "b") == ["b"]
    assert found(tmp_path / "a-sweep") == ["000-y", "001-x"]


def test_a_run_that_a_sweep_took_over_belongs_to_it_and_is_there_once(tmp_path: Path) -> None:
    write(tmp_path / "old", summary())
    write(tmp_path / "sweep" / "000-x", summary())
    trials = [
        {"folder": "000-x"},
        {"folder": "../old"},
        {"folder": "../gone"},
        {"folder": 3},
        {},
        "odd",
        {"folder": "a\0/b"},
    ]
    (tmp_path / "sweep" / "sweep.json").write_text(json.dumps({"trials": trials}))
    assert found(tmp_path / "sweep") == ["old", "000-x"]
    assert found(tmp_path) == found(tmp_path, tmp_path / "sweep", tmp_path / "old") == ["old", "000-x"]


@pytest.mark.parametrize("damaged", ["", "{", "[]", '{"trials": null}', '{"trials": {"folder": "x"}}'])
def test_a_damaged_sweep_json_leaves_the_folders(tmp_path: Path, damaged: str) -> None:
    write(tmp_path / "000-x", summary())
    (tmp_path / "sweep.json").write_text(damaged)
    assert found(tmp_path) == ["000-x"]


def test_links_may_go_in_circles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "here" / "run", summary())
    os.symlink(tmp_path, tmp_path / "here" / "up")
    os.symlink(tmp_path / "here" / "run", tmp_path / "again")
    os.symlink(tmp_path / "nowhere", tmp_path / "dangling")
    os.symlink(tmp_path / "self", tmp_path / "self")
    looked: list[Path] = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: looked.append(Path(folder)) or scandir(folder))
    assert len(found(tmp_path)) == 1
    assert looked == [tmp_path, tmp_path / "here"]  # each folder once
    assert found(tmp_path / "again", tmp_path / "here") == ["again"]


def test_patterns(tmp_path: Path) -> None:
    for name in ("a1", "a2", "b1"):
        write(tmp_path / name, summary())
    (tmp_path / "a-note.txt").write_text("no folder")
    assert found(f"{tmp_path}/a*") == ["a1", "a2"]
    assert found(f"{tmp_path}/*1", tmp_path / "a2") == ["a1", "a2", "b1"]


def test_a_name_with_brackets_is_a_name_before_it_is_a_pattern(tmp_path: Path) -> None:
    write(tmp_path / "a[1]", summary())
    assert found(tmp_path / "a[1]") == ["a[1]"]


def test_without_a_place_it_is_outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"^outputs: does not exist; .*dltips train"):
        past_runs.runs_in([])
    write(tmp_path / "outputs" / "run", summary())
    assert [run.path for run in past_runs.runs_in([])] == [Path("outputs/run")]


def test_places_without_runs_are_refused_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty" / "inner").mkdir(parents=True)
    (tmp_path / "file").write_text("")
    for place, message in {
        "empty": r"^empty: has no run in it; give a run",
        "gone": r"^gone: does not exist; give a run",
        "file": r"^file: .*folder; give a run",
        "gone*": r"^gone\*: .*pattern.*ls -d gone\*",
        "f*": r"^f\*: .*pattern.*ls -d f\*",
        "emp*": r"^emp\*: has no run in it; give a run",
        " ": r"^'' .*folder; .*under outputs",
    }.items():
        with pytest.raises(ConfigError, match=message):
            past_runs.runs_in([place])


def test_records_end_at_a_torn_line(tmp_path: Path) -> None:
    run = past_runs.read(write(tmp_path / "a", summary()))
    assert run.records() == []
    (run.path / "metrics.jsonl").write_text('{"epoch": 1, "val/loss": 0.5}\n{"epoch": 2, "val/l')
    assert run.records() == [{"epoch": 1, "val/loss": 0.5}]


def test_a_run_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"^last: .*no run.* under .*outputs; give a run folder$"):
        past_runs.find("last")
    write(tmp_path / "outputs" / "2026-a", summary())
    write(tmp_path / "outputs" / "2026-b" / "000-x", summary())
    assert past_runs.find("last").path == Path("outputs/2026-b/000-x")
    assert past_runs.find("outputs/2026-a").path == Path("outputs/2026-a")
    sweep = Path("outputs/2026-b")
    (sweep / "sweep.json").write_text("{}")
    ended = [(0.5, "finished"), (0.7, "finished"), (0.7, "finished"), (0.9, "diverged"), (0.8, "pruned")]
    for number, (score, status) in enumerate(ended):
        write(sweep / f"00{number}-y", summary(status=status, best={"val/accuracy": score}, metric="val/accuracy"))
    assert past_runs.find("last").path == past_runs.find("outputs/2026-b").path == sweep / "001-y"
    assert found("last") == ["000-x", "000-y", "001-y", "002-y", "003-y", "004-y"]
    write(tmp_path / "outputs" / "2026-c", summary())
    assert found("last") == ["2026-c"]
    assert past_runs.find("last").path == Path("outputs/2026-c")
    (tmp_path / "outputs" / "2026-d").mkdir()
    (tmp_path / "outputs" / "2026-d" / "sweep.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"^outputs/2026-d: .*finished; give one of the folders in"):
        past_runs.find("outputs/2026-d")
    for name, message in {
        "outputs": r"^outputs: .*run folder.*no config\.yaml; .*under outputs$",
        "gone": r"^gone: does not exist; .*under outputs$",
        "": r"^'': .*run folder.*no config\.yaml; .*under outputs$",
    }.items():
        with pytest.raises(ConfigError, match=message):
            past_runs.find(name)
