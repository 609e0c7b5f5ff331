"""hydra/launcher=, for real: what is killed, stopped or out of time costs one trial, and goes on to the same bits."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

QUICK = ["epochs=4", "data.subset=150", "log.tensorboard=false", "log.layers=false", "log.pictures=none", "device=cpu"]
STRIKE = '''
import os, signal
from pathlib import Path
from dltips import family
from dltips.tips.regularization.base import Regularization

regularization = family("regularization")
FROM_ABOVE = {"ctrl-C": signal.SIGINT}


@regularization.named("strike")
class Strike(Regularization):
    """After epoch `at`, and once in all, a signal: to this process, or to the one that gave the command."""

    def __init__(self, *, at: int, signal: str) -> None:
        super().__init__()
        self.at, self.signal, self.seen = at, signal, 0

    def after_epoch(self, metrics) -> bool:
        self.seen += 1
        if self.seen == self.at and not Path("struck").exists():
            Path("struck").write_text(str(os.getpid()))
            if self.signal not in FROM_ABOVE:
                os.kill(os.getpid(), getattr(signal, self.signal))
            else:
                ear, mouth = os.pipe()
                os.set_blocking(mouth, False)
                signal.set_wakeup_fd(mouth)
                os.kill(int(Path("driver").read_text()), FROM_ABOVE[self.signal])
                os.read(ear, 1)  # until we are told to stop
                signal.set_wakeup_fd(-1)
        return False
'''


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., tuple[int, str]]:
    """A grid of two trials, of which the second strikes after its epoch 2: its exit code, and stderr."""
    (tmp_path / "strike.py").write_text(STRIKE)
    (tmp_path / "configs/regularization").mkdir(parents=True)
    (tmp_path / "configs/regularization/strike.yaml").write_text(
        "strike:\n  name: strike\n  at: 0\n  signal: SIGTERM\n"
    )

    def run(launcher: str, strikes: str, *more: str) -> tuple[int, str]:
        grid = ["regularization=strike", "regularization.strike.at=0,2", f"regularization.strike.signal={strikes}"]
        arguments = [sys.executable, "-m", "dltips", "train", "-m", *QUICK, *grid, f"hydra/launcher={launcher}", *more]
        done = subprocess.run(
            ["sh", "-c", 'echo $$ > driver; exec "$@"', "sh", *arguments],
            env=os.environ | {"DLTIPS_IMPORT": "strike.py", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=100,  # the pipes are open as long as any process lives
        )
        return done.returncode, done.stderr

    return run


def losses() -> list[list[float]]:
    """Each trial's, epoch by epoch."""
    files = sorted(Path("outputs").glob("*/*/metrics.jsonl"))
    return [[json.loads(line)["train/loss"] for line in file.read_text().splitlines()] for file in files]


def statuses() -> list[str]:
    return [json.loads(file.read_text())["status"] for file in sorted(Path("outputs").glob("*/*/summary.json"))]


def whole_and_equal() -> bool:
    """Both trials are there once, and the one that was cut off ended as the one that was not."""
    first, second = losses()
    return statuses() == ["finished", "finished"] and len(first) == 4 and first == second


def needs_submitit() -> None:
    pytest.importorskip("submitit", reason="submitit is not installed: pip install 'dltips[submitit]'")


def test_submitit_a_job_whose_time_is_up_goes_on_as_a_new_one(command: Any) -> None:
    needs_submitit()
    code, said = command("submitit_local", "SIGUSR2")
    assert code == 0 and Path("struck").exists() and whole_and_equal(), said
    (logs,) = Path("outputs").glob("*/.submitit")
    assert {file.suffix for file in logs.iterdir()} == {".err", ".out"}  # the pickles are gone
    assert any("Requeued job" in file.read_text() for file in logs.glob("*.out")) or any(
        "Requeued job" in file.read_text() for file in logs.glob("*.err")
    )


@pytest.mark.parametrize(
    ("strikes", "code", "words"),
    [
        ("SIGKILL", 5, "its job was killed, perhaps for its memory or its time (see outputs/"),
        ("SIGTERM", 5, "its job was stopped; the same command goes on with it"),
        ("ctrl-C", 130, ""),
    ],
)
def test_submitit_what_is_cut_off_goes_on(command: Any, strikes: str, code: int, words: str) -> None:
    needs_submitit()
    ended, said = command("submitit_local", strikes, "checkpoint.interval=0")
    assert (ended, words in said, "Traceback" in said) == (code, True, False), said
    ended, said = command("submitit_local", strikes, "checkpoint.interval=0")
    assert ended == 0 and whole_and_equal(), said


def needs_ray() -> None:
    pytest.importorskip("ray", reason="ray is not installed: pip install 'dltips[ray]'")


@pytest.mark.parametrize(
    ("strikes", "code", "words"),
    [
        ("SIGKILL", 5, "its job was killed, perhaps for its memory; the same command goes on with it"),
        ("ctrl-C", 130, ""),
    ],
)
def test_ray_what_is_cut_off_goes_on(command: Any, strikes: str, code: int, words: str) -> None:
    needs_ray()
    ended, said = command("ray", strikes, "checkpoint.interval=0")
    assert (ended, words in said, "raylet" in said, "Traceback" in said) == (code, True, False, False), said
    ended, said = command("ray", strikes, "checkpoint.interval=0")
    assert ended == 0 and whole_and_equal(), said


def test_ray_may_go_on_with_a_lost_trial_by_itself(command: Any) -> None:
    needs_ray()
    code, said = command("ray", "SIGKILL", "checkpoint.interval=0", "hydra.launcher.max_retries=1")
    assert code == 0 and Path("struck").exists() and whole_and_equal(), said
