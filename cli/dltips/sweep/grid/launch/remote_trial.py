"""The launcher's remote end: runs one frozen trial in another process or on another machine."""

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
from dltips.runs.file_names import SUMMARY
from dltips.sweep.trial import Trial, TrialOutcome, run_trial
from dltips.train.context import RunContext

RUNNING = ".running"  # in the sweep's folder: a locked file for each running trial


@dataclass(frozen=True)
class Job:
    """A trial to send, and the settings of the command's process."""

    trial: Trial
    place: str  # the sweep's folder, absolute, on a file system that all machines share
    folder: str  # the command's current folder: the base of relative paths in a config
    typed: Sequence[str]
    environment: Mapping[str, str]  # DLTIPS_DATA, DLTIPS_IMPORT: the paths of data and of the user's own tips
    cores: int | None  # threads for a net that is large enough; None: the process's default


@dataclass(frozen=True)
class JobResult:
    """The trial's outcome and the notes on it, or the reason why nothing can run there."""

    outcome: TrialOutcome | None
    notes: Sequence[str] = ()
    refused: str | None = None


class CollectedNotes(set[str]):
    """Collects notes, which go only to run.log here; the command's process prints each of them once."""

    def __contains__(self, note: object) -> bool:
        return True


def run_job(remote_job: Job) -> JobResult:
    """Runs or resumes the trial in this process. The run's failure is its outcome."""
    os.environ.update(remote_job.environment)
    if remote_job.cores is not None:
        os.environ["OMP_NUM_THREADS"] = str(remote_job.cores)
    trial, place = remote_job.trial, Path(remote_job.place)
    path = place / trial.folder
    if not place.is_dir():
        return JobResult(
            None,
            refused=f"outputs: {place} is not there on {socket.gethostname()}; give the command in a folder that"
            " all machines share",
        )
    os.chdir(remote_job.folder)
    notes = CollectedNotes()
    try:
        with claimed(place / RUNNING / trial.folder) as other:
            if other is not None:
                error = f"{other} still runs it; the same command goes on when that has ended"
                return JobResult(TrialOutcome(trial.number, "interrupted", path, error))
            outcome = run_trial(trial, place, replace(_shared(), typed=remote_job.typed, reported=notes))
    except ConfigError as error:
        return JobResult(None, tuple(notes), str(error))
    except KeyboardInterrupt:  # before the first step, or the second ctrl-C: the trial was cut off and can be resumed
        with contextlib.suppress(OSError):
            (path / SUMMARY).unlink(missing_ok=True)
        outcome = TrialOutcome(trial.number, "interrupted", path)
    gc.collect()  # a net and its hooks form reference cycles
    return JobResult(outcome, tuple(notes))


@functools.cache
def _shared() -> RunContext:
    """Returns what the trials of this process share: data are loaded once."""
    return RunContext()


@contextlib.contextmanager
def claimed(file: Path) -> Iterator[str | None]:
    """Yields None while no other process runs the file's trial; else the name of the process that does.

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
    """Returns the trials as jobs."""
    environment = {name: os.environ[name] for name in ("DLTIPS_DATA", "DLTIPS_IMPORT") if name in os.environ}
    shared: dict[str, Any] = {
        "place": str(place.resolve()),
        "folder": str(Path.cwd()),
        "typed": tuple(typed),
        "environment": environment,
        "cores": cores,
    }
    return [Job(trial=trial, **shared) for trial in trials]
