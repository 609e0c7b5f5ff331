"""A signal that comes when a trial is all but over: that trial is finished, and no other one begins."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dltips.main import main
from dltips.train import fit

QUICK = ["+recipe=quickstart", "epochs=1", "data.subset=150", "log.tensorboard=false", "log.layers=false", "device=cpu"]
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def statuses() -> list[str]:
    return [json.loads(file.read_text())["status"] for file in Path("outputs").glob("*/*/summary.json")]


def raised_in_the_first_validation(monkeypatch: pytest.MonkeyPatch, number: signal.Signals) -> None:
    """No step comes after it, before which the run would look."""
    validate = fit.validate

    def interrupted(training):  # type: ignore[no-untyped-def]
        if not statuses():
            signal.raise_signal(number)
        return validate(training)

    monkeypatch.setattr(fit, "validate", interrupted)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_grid_ends_after_the_trial(monkeypatch: pytest.MonkeyPatch, number: signal.Signals) -> None:
    raised_in_the_first_validation(monkeypatch, number)
    command = ["train", "-m", *QUICK, "seed=range(3)"]
    assert main(command) == 130 and statuses() == ["finished"]
    assert main(command) == 0 and statuses() == ["finished"] * 3


def test_after_the_last_trial_there_is_nothing_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    raised_in_the_first_validation(monkeypatch, signal.SIGINT)
    assert main(["train", "-m", *QUICK, "seed=0"]) == 0 and statuses() == ["finished"]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_search_ends_after_the_trial(monkeypatch: pytest.MonkeyPatch, number: signal.Signals) -> None:
    raised_in_the_first_validation(monkeypatch, number)
    command = ["sweep", *QUICK, "optimizer.lr=0.1,0.01,0.001", "trials=3", "sampler=random"]
    assert main(command) == 130 and statuses() == ["finished"]
    assert main(command) == 0 and statuses() == ["finished"] * 3


def test_a_grid_whose_reader_goes_away_goes_on(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dltips", "train", "-m", *QUICK, "seed=range(3)"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        assert process.stderr is not None
        process.stderr.close()
        assert process.wait() == 0
    assert statuses() == ["finished"] * 3
