"""hydra/launcher=joblib: processes of this machine, by joblib's loky.

Not Hydra's own plugin of that name: it composes each trial when it starts, ours are frozen before the first one.
"""

from __future__ import annotations

import os
import re
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from dltips.errors import ConfigError
from dltips.sweep.grid.launch.executor import JobLost, collect, ignore_sigint
from dltips.sweep.grid.launch.remote_trial import Job, JobResult, jobs_of, run_job
from dltips.sweep.trial import Trial, TrialOutcome
from dltips.sweep.worker_process import init_worker, on_own_device
from dltips.train.context import RunContext


@dataclass(frozen=True, kw_only=True)
class Knobs:
    n_jobs: int


def launcher(knobs: Knobs) -> Any:
    """Errors: ConfigError."""
    if knobs.n_jobs == 0:
        raise ConfigError(
            "hydra.launcher.n_jobs: 0 processes run nothing; write a number, or -1 for one per GPU or core"
        )
    return partial(_launch, knobs)


def _launch(knobs: Knobs, trials: Sequence[Trial], place: Path, context: RunContext) -> Iterator[TrialOutcome]:
    count = min(processes(knobs.n_jobs), len(trials))
    return collect(Hands(count, jobs_of(trials, place, context.typed, cores=None)), place, context)


def processes(n_jobs: int) -> int:
    """As many as asked for; counted from the number of GPUs, or of cores where there is none, if it is negative."""
    if n_jobs > 0:
        return n_jobs
    import joblib
    import torch

    there = torch.cuda.device_count() or joblib.cpu_count()
    return max(1, there + 1 + n_jobs)


@dataclass
class Hand:
    """One slot: a pool of one process, so that one that is killed takes no other trial with it."""

    slot: int
    pool: Any
    process: Future[int]  # its id
    errand: Job | None = None
    future: Future[JobResult] = field(default_factory=Future)


class Hands:
    """The processes, and the trials that wait for one."""

    def __init__(self, count: int, waiting: Sequence[Job]) -> None:
        self._count = count
        self._waiting = deque(waiting)
        self._hands = [self._hand(slot) for slot in range(count)]
        for hand in self._hands:
            self._give(hand)

    @property
    def busy(self) -> bool:
        return any(hand.errand is not None for hand in self._hands)

    def wait(self, seconds: float) -> list[tuple[Trial, JobResult | JobLost]]:
        out = [hand for hand in self._hands if hand.errand is not None]
        done, _ = wait([hand.future for hand in out], timeout=seconds, return_when=FIRST_COMPLETED)
        ended: list[tuple[Trial, JobResult | JobLost]] = []
        for hand in out:
            if hand.future not in done:
                continue
            assert hand.errand is not None
            trial, hand.errand = hand.errand.trial, None
            reply: JobResult | JobLost
            try:
                reply = hand.future.result()
            except BrokenExecutor as error:
                reply = JobLost(how_it_died(str(error)))
                hand.pool.shutdown(wait=True, kill_workers=True)
                if self._waiting:
                    self._hands[self._hands.index(hand)] = hand = self._hand(hand.slot)
            ended.append((trial, reply))
            self._give(hand)
        return ended

    def stop(self) -> None:
        self._waiting.clear()
        for hand in self._hands:
            if hand.errand is not None and not hand.future.done():
                try:
                    os.kill(hand.process.result(), signal.SIGTERM)
                except (ProcessLookupError, BrokenExecutor):
                    continue  # it has ended by itself

    def close(self) -> None:
        for hand in self._hands:
            hand.pool.shutdown(wait=True, kill_workers=self.busy)

    def _hand(self, slot: int) -> Hand:
        from joblib.externals.loky import ProcessPoolExecutor

        start = (slot, self._count, os.getpid())
        pool: Any = ProcessPoolExecutor(max_workers=1, initializer=init_worker, initargs=start)
        with ignore_sigint():
            return Hand(slot, pool, pool.submit(os.getpid))

    def _give(self, hand: Hand) -> None:
        if self._waiting:
            errand = self._waiting.popleft()
            hand.errand = replace(errand, trial=on_own_device(errand.trial, hand.slot))
            with ignore_sigint():
                hand.future = hand.pool.submit(carry_out_for, os.getpid(), hand.errand)


def carry_out_for(parent: int, errand: Job) -> JobResult:
    """In a process of the pool: run the trial, and end with whoever gave it to us.

    A parent that is killed sends a SIGTERM (see `settle`), which a trial hears as its own: it saves and returns. Then
    loky would wait for the next one for ever.
    """
    reply = run_job(errand)
    if os.getppid() != parent:
        os._exit(0)
    return reply


def how_it_died(message: str) -> str:
    """loky's message ends with the exit codes: {SIGKILL(-9)}."""
    found = re.search(r"\b(SIG[A-Z0-9]+)\(-\d+\)", message)
    if found is None:
        return "ended from outside"
    return f"killed by {found[1]}" + (", perhaps for its memory" if found[1] == "SIGKILL" else "")
