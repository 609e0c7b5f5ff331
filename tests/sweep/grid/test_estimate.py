"""--dry-run: the trials and their costs, measured without writing anything."""

from pathlib import Path

import pytest

from dltips.main import main
from dltips.sweep.grid import estimate

QUICK = ["epochs=2", "data.subset=150", "log.tensorboard=false", "log.layers=false", "device=cpu"]


Output = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def grid(*arguments: str, code: int = 0) -> Path:
    """The sweep's folder."""
    assert main(["train", "-m", *QUICK, *arguments]) == code
    return max(file.parent for file in Path("outputs").glob("*/sweep.json"))


def times(place: Path) -> dict[str, int]:
    return {file.parent.name: file.stat().st_mtime_ns for file in place.glob("*/summary.json")}


def test_a_dry_run_lists_the_trials_and_writes_nothing(capsys: Output) -> None:
    assert main(["train", "-m", *QUICK, "init=he,zeros", "model.widths=[8],[32]", "--dry-run"]) == 0
    out = capsys.readouterr().out
    rows = [line.split() for line in out.splitlines() if line.split() and line.split()[0].isdigit()][:4]
    assert [row[1:4] for row in rows] == [
        ["he", "[8]", "2"],
        ["he", "[32]", "2"],
        ["zeros", "[8]", "2"],
        ["zeros", "[32]", "2"],
    ]
    assert "4 trials\nabout" in out and "2 kinds of trial" in out and not Path("outputs").exists()


def test_a_dry_run_knows_what_is_done_and_what_would_fail(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    place = grid("seed=1,2")
    kept = times(place)
    next(place.glob("001-*/summary.json")).unlink()

    def broken(*arguments: object, **named: object) -> None:
        raise MemoryError

    monkeypatch.setattr(estimate, "build_run", broken)
    capsys.readouterr()
    assert main(["train", "-m", *QUICK, "seed=1,2", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert [line.split()[3] for line in out.splitlines()[1:3]] == ["done", "fails"]
    assert "2 trials, 1 of them done before" in out and "fails: out of memory; lower batch_size" in out
    assert {name: time for name, time in kept.items() if name[:3] == "000"} == times(place)


@pytest.mark.parametrize(("workers", "shown"), [(1, False), (2, True)])
def test_memory_is_that_of_each_worker(workers: int, shown: bool, capsys: Output) -> None:
    assert main(["train", "-m", *QUICK, "seed=1,2", "--dry-run", f"--workers={workers}"]) == 0
    assert (f" MB in each of {workers} workers, which share the cores" in capsys.readouterr().out) is shown
