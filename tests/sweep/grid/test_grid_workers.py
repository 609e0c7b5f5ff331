"""A grid in several processes."""

import json
import os
import signal
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


@pytest.mark.parametrize("number", SIGNALS)
def test_a_grid_in_workers_ends_after_the_trials_at_hand(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    validate = fit.validate

    def interrupted(training):  # type: ignore[no-untyped-def]
        if training.seed == 0:
            os.kill(os.getppid(), number)
            while not training.progress.stop_requested:  # until the parent has passed it on
                pass
        return validate(training)

    monkeypatch.setattr(fit, "validate", interrupted)
    assert main(["train", "-m", *QUICK, "seed=range(6)", "--workers", "2"]) == 130
    done = len(statuses())
    assert 1 <= done < 6 and set(statuses()) <= {"finished", "interrupted"}
