"""The far end of a launcher: one frozen trial, run in another process or on another machine."""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dltips.errors import ConfigError
from dltips.files import Locked, locked, write_text
from dltips.runs.layout import SUMMARY
from dltips.sweep.trial import Trial, TrialOutcome, run_trial
from dltips.train.context import RunContext

RUNNING = ".running"  # in the sweep's folder: a locked file for each trial that some process runs


@dataclass(frozen=True)
class Job:
    """What travels: a trial, and what it has to know of the place where the command was given."""

    trial: Trial
    place: str  # the sweep's folder, absolute: on a file system that all machines share
    folder: str  # where the command was given: what relative paths in a config start from
    typed: Sequence[str]
    environment: Mapping[str, str]  # DLTIPS_DATA, DLTIPS_IMPORT: where data and the user's own tips lie
    cores: int | None  # threads for a net that is large enough; None: as the process finds it


@dataclass(frozen=True)
class JobResult:
    """What comes back: how the trial ended, and what a person should know of it; or why nothing can be run there."""

    outcome: TrialOutcome | None
    notes: Sequence[str] = ()
    refused: str | None = None


class Heard(set[str]):
    """Notes that go to run.log alone: they travel, and whoever gave the command says each of them once."""

    def __contains__(self, note: object) -> bool:
        return True


def run_job(errand: Job) -> JobResult:
    """Run the trial in this process, or go on with it. Its failure is its outcome; nothing is raised."""
    os.environ.update(errand.environment)
    if errand.cores is not None:
        os.environ["OMP_NUM_THREADS"] = str(errand.cores)
    trial, place = errand.trial, Path(errand.place)
    path = place / trial.folder
    if not place.is_dir():
        return JobResult(
            None,
            refused=f"outputs: {place} is not there on {socket.gethostname()}; give the command in a folder that"
            " all machines share",
        )
    os.chdir(errand.folder)
    notes = Heard()
    try:
        with claimed(place / RUNNING / trial.folder) as other:
            if other is not None:
                error = f"{other} still runs it; the same command goes on when that has ended"
                return JobResult(TrialOutcome(trial.number, "interrupted", path, error))
            outcome = run_trial(trial, place, replace(_shared(), typed=errand.typed, reported=notes))
    except ConfigError as error:
        return JobResult(None, tuple(notes), str(error))
    except KeyboardInterrupt:  # before the first step, or the second time: what was cut off goes on
        with contextlib.suppress(OSError):
            (path / SUMMARY).unlink(missing_ok=True)
        outcome = TrialOutcome(trial.number, "interrupted", path)
    gc.collect()  # a net and its hooks hold one another
    return JobResult(outcome, tuple(notes))


@functools.cache
def _shared() -> RunContext:
    """What the trials of this process share: data are loaded once."""
    return RunContext()


@contextlib.contextmanager
def claimed(file: Path) -> Iterator[str | None]:
    """Yields None, and no other process has the file's trial meanwhile; or else the name of the process that has it.

    On a file system without locks every process gets None.
    """
    file.parent.mkdir(exist_ok=True)
    holder = file.with_name(f"{file.name}.holder")
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(file))
        except Locked:
            yield holder.read_text(encoding="utf-8") if holder.is_file() else "another process"
            return
        stack.callback(holder.unlink, missing_ok=True)
        write_text(holder, f"process {os.getpid()} on {socket.gethostname()}")
        yield None


def jobs_of(trials: Sequence[Trial], place: Path, typed: Sequence[str], cores: int | None) -> list[Job]:
    """The trials, ready to travel."""
    environment = {name: os.environ[name] for name in ("DLTIPS_DATA", "DLTIPS_IMPORT") if name in os.environ}
    shared: dict[str, Any] = {
        "place": str(place.resolve()),
        "folder": str(Path.cwd()),
        "typed": tuple(typed),
        "environment": environment,
        "cores": cores,
    }
    return [Job(trial=trial, **shared) for trial in trials]
