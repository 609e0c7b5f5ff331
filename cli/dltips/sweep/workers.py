"""Trials in several processes of this machine: forked after the data are loaded, or spawned beside a GPU."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch

from dltips.registry import ConfigError
from dltips.sweep.trial import Outcome, Surroundings, Trial, run_trial
from dltips.train.picture import prepare as prepare_to_draw
from dltips.train.run import STOPPING

DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG


class Worker:
    """A process that runs one trial after another."""

    def __init__(
        self, slot: int, count: int, place: Path, surroundings: Surroundings, others: Sequence[Connection] = ()
    ) -> None:
        beside_gpu = torch.cuda.is_available()
        # a process with CUDA in it cannot be forked; what is spawned loads the data for itself
        context: Any = multiprocessing.get_context("spawn" if beside_gpu else "fork")
        shared = Surroundings(surroundings.typed, surroundings.said) if beside_gpu else surroundings
        self.slot = slot
        self.trial: Trial | None = None
        self.connection, theirs = context.Pipe()
        # a fork inherits the parent's ends, and would keep itself and its like from hearing that the parent is gone
        inherited = [] if beside_gpu else [self.connection, *others]
        arguments = (theirs, inherited, slot, count, place, shared, os.getpid())
        self.process: Any = context.Process(target=_serve, args=arguments)
        with held():
            self.process.start()
        theirs.close()

    def give(self, trial: Trial) -> None:
        self.trial = trial
        with contextlib.suppress(OSError):  # it is dead, which its sentinel says
            self.connection.send(trial)

    def close(self) -> None:
        self.connection.close()
        self.process.join()


def in_workers(count: int, trials: Sequence[Trial], place: Path, surroundings: Surroundings) -> Iterator[Outcome]:
    """Outcomes as they come. A worker that is killed leaves its trial cut off, and another takes its place."""
    pending = deque(trials)
    count = min(count, len(pending))
    workers: list[Worker] = []
    stopping = False

    def stop(number: int, frame: object) -> None:
        nonlocal stopping
        stopping = True
        for worker in workers:
            if worker.process.is_alive():
                os.kill(worker.process.pid, signal.SIGTERM)

    # before the first fork: what Python raises within one is lost
    theirs = {number: signal.signal(number, stop) for number in STOPPING}
    try:
        for slot in range(count):
            if not stopping:
                workers.append(Worker(slot, count, place, surroundings, [worker.connection for worker in workers]))
        for worker in workers:
            if not stopping:
                worker.give(pending.popleft())
        if stopping:
            raise KeyboardInterrupt
        if trials[0].config.log.pictures == "best":
            prepare_to_draw()  # at the end nobody else would be at work
        while busy := [worker for worker in workers if worker.trial is not None]:
            ready = wait([part for worker in busy for part in (worker.connection, worker.process.sentinel)])
            for worker in busy:
                if worker.connection not in ready and worker.process.sentinel not in ready:
                    continue
                outcome = _heard(worker, place)
                if stopping and outcome.status == "interrupted":
                    outcome = replace(outcome, error=None)  # it ended as it was told to
                worker.trial = None
                if not worker.process.is_alive() and pending and not stopping:
                    worker.close()
                    ends = [other.connection for other in workers if other is not worker]
                    workers[workers.index(worker)] = worker = Worker(worker.slot, count, place, surroundings, ends)
                if pending and not stopping:
                    worker.give(pending.popleft())
                yield outcome
        if stopping and pending:  # the trials at hand had finished all the same
            raise KeyboardInterrupt
    finally:
        for number, handler in theirs.items():
            signal.signal(number, handler)
        for worker in workers:
            worker.close()


def _heard(worker: Worker, place: Path) -> Outcome:
    """What a worker says of its trial, or what its end says."""
    assert worker.trial is not None
    try:
        outcome = worker.connection.recv()
    except (EOFError, OSError):
        worker.process.join()
        code = worker.process.exitcode
        how = f"killed by {signal.Signals(-code).name}" if code and code < 0 else f"ended with code {code}"
        more = ", perhaps for its memory" if code == -signal.SIGKILL else ""
        error = f"its worker was {how}{more}; the same command goes on with it"
        return Outcome(worker.trial.number, "interrupted", place / worker.trial.folder, error)
    assert isinstance(outcome, Outcome)
    return outcome


def _serve(
    connection: Connection,
    inherited: Sequence[Connection],
    slot: int,
    count: int,
    place: Path,
    surroundings: Surroundings,
    parent: int,
) -> None:
    """A worker's life. It ends with the connection, and with its parent."""
    for end in inherited:
        end.close()
    settle(slot, count, parent)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)  # what has come since the start is heard here
    with contextlib.suppress(EOFError, OSError, KeyboardInterrupt):
        while True:
            trial = connection.recv()
            try:
                outcome = run_trial(on_own_device(trial, slot), place, surroundings)
            except ConfigError as error:
                outcome = Outcome(trial.number, "failed", place / trial.folder, str(error))
            connection.send(outcome)


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Within, signals wait: a process that starts has our handler until it sets its own, and is in no list yet."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def interrupt(number: int, frame: object) -> None:
    """A handler that makes a signal a ctrl-C."""
    raise KeyboardInterrupt


def settle(slot: int, count: int, parent: int) -> None:
    """Make this process one of several workers: its share of the cores, signals by way of its parent alone."""
    os.setpgid(0, 0)  # a terminal's ctrl-C reaches the parent, which passes it on once
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(DEATH_SIGNAL, signal.SIGTERM)
        if os.getppid() != parent:  # it died before that
            os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in STOPPING[1:]:
        signal.signal(number, lambda *_: os._exit(0))  # between two trials; within one, it is saved first
    cores = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
    os.environ["OMP_NUM_THREADS"] = str(max(1, cores // count))


def on_own_device(trial: Trial, slot: int) -> Trial:
    """The trial on the worker's own GPU, where there are some and the config leaves the choice."""
    if trial.plain.get("device") != "auto" or not torch.cuda.is_available():
        return trial
    return replace(trial, plain={**trial.plain, "device": f"cuda:{slot % torch.cuda.device_count()}"})
