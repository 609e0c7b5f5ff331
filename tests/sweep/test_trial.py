"""One trial in its folder, whatever lies there or goes wrong."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dltips.errors import ConfigError
from dltips.main import main
from dltips.train import run as runs

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


def trials(place: Path) -> dict[str, dict[str, object]]:
    return {file.parent.name: json.loads(file.read_text()) for file in sorted(place.glob("*/summary.json"))}


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), "out of memory; "),
        (ConfigError("model.widths: is too much for this; lower it"), "model.widths: is too much for this; lower it"),
        (ValueError("something\nelse"), "ValueError: something else"),
    ],
)
def test_what_goes_wrong_in_a_trial_is_its_outcome(
    error: Exception, said: str, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    build_run = runs.build_run

    def broken(config, *arguments):  # type: ignore[no-untyped-def]
        if config.settings.seed == 1:
            raise error
        return build_run(config, *arguments)

    monkeypatch.setattr(runs, "build_run", broken)
    place = grid("seed=range(3)", code=5)
    found = list(trials(place).values())
    assert [run["status"] for run in found] == ["finished", "failed", "finished"]
    assert str(found[1]["error"]).startswith(said)
    assert f"trial 1  failed: {said}" in capsys.readouterr().out
    monkeypatch.setattr(runs, "build_run", build_run)
    assert grid("seed=range(3)", "--retry") == place
    assert [run["status"] for run in trials(place).values()] == ["finished"] * 3


@pytest.mark.parametrize(
    "rubbish",
    [
        '{"status": "finished", "seconds": "x"}',
        '{"status": "finished", "metric": ["a"], "best": {"a": 1}}',
        '{"status": "diverged", "diverged_at": {}}',
        "[" * 100_000,
    ],
)
def test_rubbish_in_a_trial_s_folder_stops_nothing(rubbish: str) -> None:
    place = grid("seed=range(2)")
    run = next(place.glob("000-*"))
    (run / "summary.json").write_text(rubbish)
    assert main(["train", "-m", *QUICK, "seed=range(2)"]) in (0, 5)
    assert [file.parent.name[:3] for file in sorted(place.glob("*/summary.json"))] == ["000", "001"]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_folder_that_is_not_ours_costs_one_trial(workers: int, capsys: Output) -> None:
    place = grid("seed=range(3)")
    for number, make in ((0, Path.touch), (1, Path.mkdir)):
        run = next(place.glob(f"00{number}-*"))
        shutil.rmtree(run)
        make(run)
    (run / "mine.txt").write_text("not yours")
    command = [sys.executable, "-m", "dltips", "train", "-m", *QUICK, "seed=range(3)", f"--workers={workers}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode == 5 and "1 finished, 2 failed" in done.stdout) or "2 failed, 1 finished" in done.stdout
    assert "has files but no config.yaml; move it away" in done.stdout
    assert (run / "mine.txt").read_text() == "not yours"
