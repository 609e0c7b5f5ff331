"""Runs or resumes one trial of a sweep, a frozen config, in its folder."""

from __future__ import annotations

import contextlib
import tempfile
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dltips.config.validation import Config, validate
from dltips.errors import ConfigError, OutputError
from dltips.exit_codes import EXIT_INTERNAL, EXIT_INTERRUPTED
from dltips.files import write_json
from dltips.runs import checkpoint, folder
from dltips.runs.code_version import code_hash
from dltips.runs.file_names import CONFIG, LOG, SUMMARY, read_summary
from dltips.train.context import RunContext
from dltips.train.resume import reopen
from dltips.train.run import reason, run_once
from dltips.train.summary import failed_early

LOCK_WAIT = 5.0  # seconds to wait for the end of another process
ENDED = ("finished", "pruned")  # completed statuses; nothing left to run
FAILED = ("diverged", "failed")


@dataclass(frozen=True)
class Trial:
    """A trial to run, as plain data, so that it can be sent to other processes and machines."""

    number: int
    plain: Mapping[str, Any]  # the frozen config
    varied: Mapping[str, Any]  # the values that distinguish it, as typed
    folder: str  # within the sweep's
    hash: str  # of its config
    code: str = ""  # the hash of the code that it was frozen with; "": any

    @property
    def config(self) -> Config:
        return validate(self.plain)


@dataclass(frozen=True)
class TrialOutcome:
    """The outcome of a trial."""

    number: int
    status: str  # finished, pruned, interrupted, diverged, failed
    path: Path
    error: str | None = None
    score: float | None = None  # the best epoch's, in the deciding metric
    epoch: int | None = None  # the best one
    seconds: float = 0.0  # of training, those before a resume included


def folder_name(number: int, config_hash: str) -> str:
    """Returns 007-3fa9c2d1."""
    return f"{number:03}-{config_hash[:8]}"


def outcome_of(number: int, path: Path) -> TrialOutcome | None:
    """Returns the outcome of a folder's run; None if it was cut off, or never began."""
    summary = read_summary(path)
    if summary is None or not isinstance(summary.get("status"), str):
        return None
    best, metric, error, seconds = (summary.get(key) for key in ("best", "metric", "error", "seconds"))
    best = best if isinstance(best, dict) else {}
    score, epoch = best.get(metric) if isinstance(metric, str) else None, best.get("epoch")
    return TrialOutcome(
        number=number,
        status=summary["status"],
        path=path,
        error=error if isinstance(error, str) else _divergence(summary),
        score=score if isinstance(score, int | float) else None,
        epoch=epoch if isinstance(epoch, int) else None,
        seconds=float(seconds) if isinstance(seconds, int | float) else 0.0,
    )


def _divergence(summary: Mapping[str, Any]) -> str | None:
    where = summary.get("diverged_at")
    return f"not finite in epoch {where.get('epoch')}: {where.get('where')}" if isinstance(where, dict) else None


def run_trial(trial: Trial, place: Path, context: RunContext) -> TrialOutcome:
    """Runs a trial in its folder, or resumes it. Its errors become its outcome.

    Raises ConfigError if the sweep's folder cannot be written; KeyboardInterrupt.
    """
    config, path = trial.config, place / trial.folder
    try:
        if trial.code not in ("", code_hash()):
            raise ConfigError("the code here is not the one that the trial was frozen with; give the command again")
        code = _run(config, path, context)
    except Exception as error:
        try:
            _record(config, path, error)
        except ConfigError as problem:
            if not _is_writable(place):
                raise
            return TrialOutcome(trial.number, "failed", path, str(problem))
    else:
        if code == EXIT_INTERNAL:  # the disk is full or gone
            with contextlib.suppress(OSError):  # a trial that was cut off is resumed next time, a failed one is not
                (path / SUMMARY).unlink(missing_ok=True)
            raise OutputError(f"outputs: {path} cannot be written; make room, then the same command goes on")
        if code == EXIT_INTERRUPTED and outcome_of(trial.number, path) is None:
            return TrialOutcome(trial.number, "interrupted", path)
    outcome = outcome_of(trial.number, path)
    return outcome or TrialOutcome(trial.number, "failed", path, "its summary.json cannot be read")


def _is_writable(place: Path) -> bool:
    """Returns whether files can be made in the sweep's folder."""
    try:
        with tempfile.TemporaryFile(dir=place):
            return True
    except OSError:
        return False


def _run(config: Config, path: Path, context: RunContext) -> int:
    if (path / CONFIG).is_file():
        # the worker of a killed command may still be saving it
        with contextlib.suppress(checkpoint.Damaged), folder.writing(path, wait=LOCK_WAIT):
            resumed = reopen(path, config)
            code, _ = run_once(resumed.config, resumed, replace(context, path=path, quiet=True, notes=resumed.notes))
            return code
    if path.is_dir():  # made, and cut off before it held anything; other content is not ours
        for left in path.glob(".*.tmp"):
            left.unlink()
        try:
            path.rmdir()
        except OSError as error:
            raise OutputError(f"outputs: {path} has files but no config.yaml; move it away") from error
    code, _ = run_once(config, None, replace(context, path=path, quiet=True))
    return code


def _record(config: Config, path: Path, error: Exception) -> None:
    """Records a failure in the run's own folder: its summary and, for an internal error, the traceback in its log."""
    if isinstance(error, OutputError):
        raise error
    try:
        if not path.exists():
            folder.make(None, path)
        if not (path / CONFIG).exists():
            folder.write_config(path, config.plain)
        if not (read_summary(path) or {}).get("error"):
            write_json(path / SUMMARY, failed_early(config, reason(error)))
        with (path / LOG).open("a", encoding="utf-8") as log:
            now = time.strftime("%Y-%m-%d %H:%M:%S")
            text = reason(error) if isinstance(error, ConfigError) else "".join(traceback.format_exception(error))
            log.write(f"{now} failed: {text.rstrip()}\n")
    except OSError as problem:
        raise OutputError(f"outputs: {path} cannot be written ({problem.strerror})") from problem
