"""A process that runs trials for another one: its cores, its signals, its GPU."""

import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from dltips.sweep.trial import Trial
from dltips.sweep.worker_process import on_own_device

WORKER = """
import os, signal, sys
from dltips.sweep.worker_process import init_worker
init_worker(1, 3, int(sys.argv[1]))
ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
print(os.environ["OMP_NUM_THREADS"], os.getpgid(0) == os.getpid(), ignored, flush=True)
sys.stdin.read()
"""


def start(parent: int) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "7"}
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, str(parent)],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_worker_has_its_share_of_the_cores_and_no_ctrl_c_of_the_terminal() -> None:
    with start(os.getpid()) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline().split() == ["2", "True", "True"]  # 7 threads for 3 workers
        worker.send_signal(signal.SIGTERM)  # between two trials there is nothing to save
        assert worker.wait() == 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent is gone")
def test_a_worker_whose_parent_is_gone_ends() -> None:
    with start(os.getpid() + 1) as worker:
        assert worker.wait() == 1


TRIAL = Trial(0, {"device": "auto", "seed": 1}, {}, "000", "hash")


@pytest.mark.parametrize(("slot", "device"), [(0, "cuda:0"), (1, "cuda:1"), (2, "cuda:0")])
def test_workers_take_the_gpus_in_turn(slot: int, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert on_own_device(TRIAL, slot).plain == {"device": device, "seed": 1}
    chosen = replace(TRIAL, plain={"device": "cuda:1"})
    assert on_own_device(chosen, slot) is chosen


def test_without_gpus_a_trial_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert on_own_device(TRIAL, 1) is TRIAL
