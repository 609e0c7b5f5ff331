"""The workers of a search: sent to processes, killed, replaced, stopped."""

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from dltips.runs.file_names import read_summary
from dltips.sweep.search.plan import SearchPlan
from dltips.sweep.search.search_settings import SearchSettings
from dltips.sweep.search.search_workers import Work
from dltips.sweep.search.space import resolve
from dltips.sweep.search.storage import url_of

QUICK = ("+recipe=quickstart", "log.tensorboard=false", "log.layers=false", "model.widths=[16]")


LR = "optimizer.lr=tag(log,interval(1e-3,1))"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def place() -> Path:
    (found,) = Path("outputs").glob("*/sweep.json")
    return found.parent


def runs() -> list[Path]:
    return sorted(file.parent for file in place().glob("*/config.yaml"))


def summaries() -> list[dict[str, Any]]:
    return [read_summary(run) or {} for run in runs()]


def planned(*typed: str, **settings: Any) -> SearchPlan:
    return SearchPlan(resolve([*QUICK, *typed]), SearchSettings(**settings), ("val/accuracy",), (), "study")


def test_what_a_worker_does_travels_to_another_process() -> None:
    """Beside a GPU workers are spawned: all they get is pickled."""
    work = Work(planned(LR), Path("outputs"), url_of(None, Path("outputs")), None, 3)
    again = pickle.loads(pickle.dumps(work))
    assert again.plan == work.plan and again.url == work.url


def started(*arguments: str) -> subprocess.Popen[str]:
    """In a process of its own; its lines come as they are said."""
    command = [sys.executable, "-m", "dltips", "sweep", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def until_epoch(epochs: int, process: subprocess.Popen[str], at_least: int = 0) -> None:
    """Wait for some run that has so many epochs and is not through; what it waits for is progress, not time."""
    while process.poll() is None:
        for file in Path("outputs").glob("*/*/metrics.jsonl"):
            count = len(file.read_text().splitlines())
            if count >= epochs + at_least and not (file.parent / "summary.json").exists():
                return
        time.sleep(0.005)


LONG = ("+recipe=quickstart", "epochs=40", "checkpoint.interval=0", "log.tensorboard=false", LR, "log.pictures=none")


@pytest.mark.slow
def test_a_worker_that_is_killed_is_replaced() -> None:
    process = started(*LONG, "trials=4", "--workers=2")
    until_epoch(4, process)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGKILL)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert "killed by SIGKILL; its trial goes on where it was" in output
    assert len(runs()) == 4 and all(summary["status"] == "finished" for summary in summaries())


CREW = """
import os, signal, sys, time
from dltips.sweep.search import search_workers as crew

def work(slot):  # far longer than a signal takes
    for _ in range(3000):
        time.sleep(0.01)
    return 0

def killed(slot):
    os.kill(os.getpid(), signal.SIGKILL)

init_worker = crew.init_worker
def early(*arguments):  # a signal reaches the child before it is anything of its own
    os.kill(os.getpid(), signal.SIGTERM)
    init_worker(*arguments)

def started(start):
    def then(self):
        start(self)
        os.kill(os.getpid(), signal.SIGTERM)  # the parent, while its first worker starts
    return then

if sys.argv[1] == "child":
    crew.init_worker = early
if sys.argv[1] == "parent":
    Process = crew.multiprocessing.get_context("fork").Process
    Process.start = started(Process.start)
sys.exit(crew.run(2, killed if sys.argv[1] == "killed" else work, print))
"""


@pytest.mark.parametrize(("case", "code"), [("child", 130), ("parent", 130), ("killed", 1)])
def test_a_signal_while_workers_start_is_not_lost(case: str, code: int) -> None:
    done = subprocess.run([sys.executable, "-c", CREW, case], capture_output=True, text=True, timeout=25)
    assert (done.returncode, done.stderr) == (code, "")
    assert case != "killed" or "is not replaced, since 22 were killed; is there memory enough?" in done.stdout
