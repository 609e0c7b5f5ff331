"""The launcher's local end: submits trials, yields their outcomes as they come, and stops all of them on ctrl-C."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from dltips.errors import ConfigError
from dltips.signals import handling
from dltips.sweep.grid.launch.remote_trial import JobResult
from dltips.sweep.trial import Trial, TrialOutcome
from dltips.train.context import RunContext

POLL_SECONDS = 0.2  # maximum delay in seconds until a signal is handled


class JobLost(str):
    """The reason why a trial returned no result: `killed by SIGKILL`, `lost with its node`."""


class Executor(Protocol):
    """Runs trials elsewhere."""

    @property
    def busy(self) -> bool:
        """Returns whether any trial is running or queued."""

    def wait(self, seconds: float) -> list[tuple[Trial, JobResult | JobLost]]:
        """Returns the trials that have ended, after at most so many seconds."""

    def stop(self) -> None:
        """Starts no further trial; tells running ones to save a checkpoint and end."""

    def close(self) -> None:
        """Ends all remaining trials at once."""


def collect(executor: Executor, place: Path, context: RunContext) -> Iterator[TrialOutcome]:
    """Yields outcomes as they come. Raises ConfigError if a machine cannot run trials.

    A trial whose job dies counts as cut off, and the others go on. A second ctrl-C raises KeyboardInterrupt.
    """
    told = False
    with contextlib.closing(executor), SignalFlag() as stop_flag:
        while executor.busy:
            if stop_flag.stop and not told:
                executor.stop()
                told = True
            for trial, reply in executor.wait(POLL_SECONDS):
                if stop_flag.stop and isinstance(reply, JobLost) and not (place / trial.folder).exists():
                    continue  # it never started
                yield _outcome(trial, reply, place, context, asked=stop_flag.stop)


def _outcome(
    trial: Trial, reply: JobResult | JobLost, place: Path, context: RunContext, *, asked: bool
) -> TrialOutcome:
    path = place / trial.folder
    if isinstance(reply, JobLost):
        return TrialOutcome(trial.number, "interrupted", path, None if asked else _goes_on(reply))
    for note in sorted(set(reply.notes) - context.reported):
        print(note, file=sys.stderr, flush=True)
        context.reported.add(note)
    if reply.outcome is None:
        assert reply.refused is not None
        raise ConfigError(reply.refused)
    outcome = replace(reply.outcome, path=path)
    if outcome.status == "interrupted" and outcome.error is None and not asked:
        return replace(outcome, error=_goes_on("stopped"))
    return outcome


def _goes_on(how: str) -> str:
    return f"its job was {how}; the same command goes on with it"


class SignalFlag:
    """Remembers the first ctrl-C or SIGTERM during the block; the second one raises KeyboardInterrupt."""

    def __enter__(self) -> SignalFlag:
        self.stop = False
        self._handling = handling(self._on_signal, (signal.SIGINT, signal.SIGTERM))
        self._handling.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._handling.__exit__(None, None, None)

    def _on_signal(self, number: int, frame: object) -> None:
        if self.stop:
            raise KeyboardInterrupt
        self.stop = True


def ignore_sigint() -> contextlib.AbstractContextManager[None]:
    """Shields processes started in the block from the terminal's ctrl-C: the executor passes it on, once."""
    return handling(signal.SIG_IGN, (signal.SIGINT,))
