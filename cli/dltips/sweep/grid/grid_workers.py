"""Runs trials in several processes of this machine: forked after the data are loaded, or spawned beside a GPU."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch

from dltips.errors import ConfigError
from dltips.plots.curves_png import prepare as prepare_to_draw
from dltips.signals import handling, signals_blocked, unblock
from dltips.sweep.trial import Trial, TrialOutcome, run_trial
from dltips.sweep.worker_process import init_worker, on_own_device
from dltips.train.context import RunContext


class GridWorker:
    """A process that runs one trial after another."""

    def __init__(
        self, slot: int, count: int, place: Path, context: RunContext, others: Sequence[Connection] = ()
    ) -> None:
        beside_gpu = torch.cuda.is_available()
        # a process with CUDA cannot be forked; a spawned one loads the data itself
        processes: Any = multiprocessing.get_context("spawn" if beside_gpu else "fork")
        shared = RunContext(context.typed, reported=context.reported) if beside_gpu else context
        self.slot = slot
        self.trial: Trial | None = None
        self.connection, theirs = processes.Pipe()
        # a fork inherits the parent's ends of the pipes, and would keep all workers from noticing the parent's end
        inherited = [] if beside_gpu else [self.connection, *others]
        arguments = (theirs, inherited, slot, count, place, shared, os.getpid())
        self.process: Any = processes.Process(target=_serve, args=arguments)
        with signals_blocked():
            self.process.start()
        theirs.close()

    def give(self, trial: Trial) -> None:
        self.trial = trial
        with contextlib.suppress(OSError):  # it is dead; its sentinel reports that
            self.connection.send(trial)

    def close(self) -> None:
        self.connection.close()
        self.process.join()


def close_all(workers: Sequence[GridWorker]) -> None:
    for worker in workers:
        worker.close()


def in_workers(count: int, trials: Sequence[Trial], place: Path, context: RunContext) -> Iterator[TrialOutcome]:
    """Yields outcomes as they come. A killed worker's trial counts as cut off, and a new worker takes its place."""
    pending = deque(trials)
    count = min(count, len(pending))
    workers: list[GridWorker] = []
    stopping = False

    def stop(number: int, frame: object) -> None:
        nonlocal stopping
        stopping = True
        for worker in workers:
            if worker.process.is_alive():
                os.kill(worker.process.pid, signal.SIGTERM)

    with contextlib.ExitStack() as stack:
        stack.callback(lambda: close_all(workers))
        stack.enter_context(handling(stop))  # before the first fork: Python's exceptions within one are lost
        for slot in range(count):
            if not stopping:
                workers.append(GridWorker(slot, count, place, context, [worker.connection for worker in workers]))
        for worker in workers:
            if not stopping:
                worker.give(pending.popleft())
        if stopping:
            raise KeyboardInterrupt
        if trials[0].config.log.pictures == "best":
            prepare_to_draw()  # at the end all other processes would be idle
        while busy := [worker for worker in workers if worker.trial is not None]:
            ready = wait([part for worker in busy for part in (worker.connection, worker.process.sentinel)])
            for worker in busy:
                if worker.connection not in ready and worker.process.sentinel not in ready:
                    continue
                outcome = _outcome(worker, place)
                if stopping and outcome.status == "interrupted":
                    outcome = replace(outcome, error=None)  # it ended because it was told to
                worker.trial = None
                if not worker.process.is_alive() and pending and not stopping:
                    worker.close()
                    ends = [other.connection for other in workers if other is not worker]
                    workers[workers.index(worker)] = worker = GridWorker(worker.slot, count, place, context, ends)
                if pending and not stopping:
                    worker.give(pending.popleft())
                yield outcome
        if stopping and pending:  # the running trials have finished anyway
            raise KeyboardInterrupt


def _outcome(worker: GridWorker, place: Path) -> TrialOutcome:
    """Returns the outcome that a worker sent, or the one that follows from its end."""
    assert worker.trial is not None
    try:
        outcome = worker.connection.recv()
    except (EOFError, OSError):
        worker.process.join()
        code = worker.process.exitcode
        how = f"killed by {signal.Signals(-code).name}" if code and code < 0 else f"ended with code {code}"
        more = ", perhaps for its memory" if code == -signal.SIGKILL else ""
        error = f"its worker was {how}{more}; the same command goes on with it"
        return TrialOutcome(worker.trial.number, "interrupted", place / worker.trial.folder, error)
    assert isinstance(outcome, TrialOutcome)
    return outcome


def _serve(
    connection: Connection,
    inherited: Sequence[Connection],
    slot: int,
    count: int,
    place: Path,
    context: RunContext,
    parent: int,
) -> None:
    """Runs in the worker until the connection or the parent ends."""
    for end in inherited:
        end.close()
    init_worker(slot, count, parent)
    unblock()  # signals that came since the start are delivered here
    with contextlib.suppress(EOFError, OSError, KeyboardInterrupt):
        while True:
            trial = connection.recv()
            try:
                outcome = run_trial(on_own_device(trial, slot), place, context)
            except ConfigError as error:
                outcome = TrialOutcome(trial.number, "failed", place / trial.folder, str(error))
            connection.send(outcome)
