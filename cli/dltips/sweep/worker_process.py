"""Sets up a process that runs trials for another one: its cores, its GPU, its signals."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from dataclasses import replace

import torch

from dltips.signals import STOPPING, install
from dltips.sweep.trial import Trial

DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG


def init_worker(slot: int, count: int, parent: int) -> None:
    """Sets up this process as a worker: its share of the cores, signals only from its parent."""
    os.setpgid(0, 0)  # the terminal's ctrl-C reaches only the parent, which passes it on once
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(DEATH_SIGNAL, signal.SIGTERM)
        if os.getppid() != parent:  # the parent died before
            os._exit(1)
    install(signal.SIG_IGN, (signal.SIGINT,))
    install(lambda *_: os._exit(0), STOPPING[1:])  # between two trials; during one, it is saved first
    cores = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
    os.environ["OMP_NUM_THREADS"] = str(max(1, cores // count))


def on_own_device(trial: Trial, slot: int) -> Trial:
    """Returns the trial on the worker's own GPU, if there are GPUs and the config leaves the choice open."""
    if trial.plain.get("device") != "auto" or not torch.cuda.is_available():
        return trial
    return replace(trial, plain={**trial.plain, "device": f"cuda:{slot % torch.cuda.device_count()}"})
