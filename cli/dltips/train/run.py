"""Runs `dltips train` for a composed config: makes or finds the run folder, fits, writes the summary."""

from __future__ import annotations

import contextlib
import functools
import gc
import math
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from dltips.config.overrides import typed_keys
from dltips.config.redaction import redact
from dltips.config.validation import Config, validate
from dltips.errors import ConfigError, OutputError
from dltips.exit_codes import EXIT_DIVERGED, EXIT_INTERNAL, EXIT_INTERRUPTED, EXIT_OK
from dltips.files import write_json
from dltips.runs import checkpoint, folder
from dltips.runs.code_version import code_hash
from dltips.runs.file_names import ENVIRONMENT, LOG, SUMMARY, read_metrics
from dltips.signals import handling
from dltips.train import device as devices
from dltips.train.build import Run, build_run
from dltips.train.context import RunContext
from dltips.train.display import display_for
from dltips.train.fit import Result, fit
from dltips.train.loop import Training
from dltips.train.parallel.group import ProcessGroup, ProcessLost, current_group, refuse_devices
from dltips.train.parallel.world import MESSAGES_VARIABLE
from dltips.train.recorder import FolderRecorder
from dltips.train.resume import restore, resumed_from
from dltips.train.resumed import Resumed
from dltips.train.summary import environment, parameters, report, summarize


def train(composed: DictConfig, overrides: list[str], notes: list[str]) -> int:
    """Runs once from a composed config; returns the exit code. Raises ConfigError and leaves nothing behind."""
    folder.check_writable()
    typed = typed_keys(overrides)
    if composed.get("resume") is None:
        code, _ = run_once(validate(composed), None, RunContext(typed, notes))
        return code
    path = folder.find_to_resume(str(composed.resume))
    with folder.writing(path) if current_group().rank == 0 else contextlib.nullcontext():
        resumed = resumed_from(path, composed, overrides)
        code, _ = run_once(resumed.config, resumed, RunContext(typed, [*notes, *resumed.notes]))
    return code


def run_once(config: Config, resumed: Resumed | None, context: RunContext) -> tuple[int, Path]:
    """Runs once, new or resumed; returns the exit code and the folder. Raises ConfigError and leaves nothing behind.

    The folder of a resumed run is locked by the caller (folder.writing).
    """
    group = current_group()
    refuse_devices(config, group)
    run = build_run(config, resumed, context.datasets)
    code_hash()  # of the files as they are now, not as they will be at the end of the run
    if group.size > 1:
        from dltips.train.parallel.sharing import follow, shard_run

        run = shard_run(run, group)
        if group.rank:
            with stop_on_signals(run.training, group):
                return follow(run, resumed, group)
    snapshot, records = restore(resumed, run) if resumed else (None, [])
    run.training.progress.step = (snapshot.epoch if snapshot else 0) * run.training.steps_per_epoch
    path = resumed.path if resumed else folder.make(config.settings.name, context.path)
    recorder = _recorder(run, path, context, is_new=resumed is None)
    display = recorder.display
    test_reads = resumed.test_reads if resumed else 0
    group.from_first([str(path), snapshot is not None and snapshot.stopped])
    # a resumed run was locked before its checkpoint was read
    lock = folder.writing(path) if resumed is None else contextlib.nullcontext()
    with lock, contextlib.closing(display), contextlib.closing(recorder):
        for note in (*context.notes, *run.notes):
            display.note(note, reported=note in context.reported)
            context.reported.add(note)
        display.say(f"{'resuming' if resumed else 'run'} {path}: {_headline(run)}")
        try:
            _freeze_garbage()
            gc.enable()
            devices.keep_freed_memory()
            with contextlib.ExitStack() as handlers:
                handlers.enter_context(stop_on_signals(run.training, group))
                result = fit(run, recorder, resume=snapshot, records=records, watchers=context.watchers)
                if group.size == 1:  # of several processes another one may have got the signal first
                    handlers.close()
                context.stop.requested = context.stop.requested or run.training.progress.stop_requested
                display.stop_live()
                code = _write_results(run, recorder, result, path, context, test_reads)
                group.leave()
            return code, path
        except OSError as error:
            display.stop_live()
            return _failed_to_write(run, path, error, test_reads), path
        except BaseException as error:
            display.stop_live()
            _record_failure(run, path, error, test_reads)
            raise


def _recorder(run: Run, path: Path, context: RunContext, *, is_new: bool) -> FolderRecorder:
    """Returns the recorder of a run folder, after writing config and environment. Raises OutputError."""
    config = run.config
    try:
        config_text = folder.write_config(path, config.plain)
        write_json(path / ENVIRONMENT, environment(run))
        display = display_for(path / LOG, config.settings.epochs, run.training, quiet=context.quiet)
        pictures = context.draws(config.log.pictures)
        return FolderRecorder(path, run, display, config_text, context.typed, pictures=pictures)
    except OSError as error:
        if is_new:
            shutil.rmtree(path, ignore_errors=True)
        raise OutputError(f"outputs: {path} cannot be written ({error.strerror})") from error


def _record_failure(run: Run, path: Path, error: BaseException, test_reads: int) -> None:
    """Writes the reason to summary.json; a run refused before its first epoch leaves no folder."""
    if isinstance(error, ConfigError) and not read_metrics(path):
        shutil.rmtree(path, ignore_errors=True)
        return
    with contextlib.suppress(OSError):
        # a second ctrl-C loses an epoch, not the run
        status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        summary = summarize(run, status, read_metrics(path), None, reason(error), test_reads=test_reads)
        write_json(path / SUMMARY, summary)


@functools.cache  # once per process; asking gc.get_freeze_count() counts objects one by one, which takes 16 ms
def _freeze_garbage() -> None:
    gc.freeze()  # later collections skip what exists by now: traversing it once would take 0.1 s


def reason(error: BaseException) -> str:
    """Returns the reason for a run's failure, in one line."""
    if isinstance(error, (ConfigError, ProcessLost)):
        return redact(str(error))
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "memory" in text):
        return "out of memory; lower batch_size, raise accumulate, or make the model smaller"
    if isinstance(error, KeyboardInterrupt):
        return "stopped at once"
    return redact(f"{type(error).__name__}: {text}"[:300])


def _headline(run: Run) -> str:
    splits, data = run.splits, run.config.tip("data").name
    trains = run.training.net.count
    part = f", of which {trains:,} train" if trains != run.size.parameters else ""
    return (
        f"{data} ({run.training.inputs.train.count:,} train, {len(splits.val):,} val, {len(splits.test):,} test)"
        f", {run.config.tip('model').name} with {parameters(run.size.parameters)}{part}, on {run.training.device}"
    )


def _write_results(
    run: Run, recorder: FolderRecorder, result: Result, path: Path, context: RunContext, test_reads: int
) -> int:
    """Writes checkpoints, pictures and the summary, prints the report; returns the exit code."""
    display = recorder.display
    if result.snapshot.epoch > 0 or run.config.settings.epochs == 0:
        recorder.write_checkpoint(result.snapshot)
    recorder.write_best(result.snapshot)
    status = context.ended_as() if result.stopped_early else result.status
    recorder.finish(status)
    records = read_metrics(path)
    if recorder.pictures and records:
        from dltips.plots.curves_png import curves

        curves(records, path / "curves.png", redact(run.config.settings.name or path.name))
    summary = summarize(run, status, records, result, test_reads=test_reads)
    write_json(path / SUMMARY, summary)
    if result.status == "diverged":
        assert result.diverged_at is not None
        epoch, step, where = result.diverged_at
        saved = (
            f"the checkpoint of epoch {result.snapshot.epoch} is kept"
            if result.snapshot.epoch
            else "no epoch was completed"
        )
        display.say(
            f"dltips: the loss is not finite in epoch {epoch}, step {step}: first in {where}; {saved}."
            " Lower optimizer.lr or init.scale, or add regularization=clip_gradient"
        )
    if result.status == "interrupted":
        saved = f"epoch {result.snapshot.epoch} is saved" if result.snapshot.epoch else "no epoch was completed"
        display.say(f"dltips: interrupted; {saved}: dltips train resume={path}")
    if context.prints_report and not context.quiet:
        with contextlib.suppress(OSError):  # stdout is closed; the run is complete anyway
            print(report(run, path, summary, records), flush=True)
    return {"diverged": EXIT_DIVERGED, "interrupted": EXIT_INTERRUPTED}.get(status, EXIT_OK)


def _failed_to_write(run: Run, path: Path, error: OSError, test_reads: int) -> int:
    """Reports a full or missing disk and how to resume; the last good checkpoint is complete."""
    with contextlib.suppress(OSError):
        why = f"cannot be written ({error.strerror})"
        summary = summarize(run, "failed", read_metrics(path), None, why, test_reads=test_reads)
        write_json(path / SUMMARY, summary)
    has_checkpoint = (path / checkpoint.LAST).exists() or (path / checkpoint.PREVIOUS).exists()
    remedy = f"make room, then: dltips train resume={path}" if has_checkpoint else "make room and start again"
    print(f"dltips: {path} cannot be written ({error.strerror or error}); {remedy}", file=sys.stderr)
    return EXIT_INTERNAL


# with several processes, each may get a signal from the scheduler, and again from its parent
SAME_SIGNAL_SECONDS = 3.0  # seconds within which a second signal counts as the first one


@contextlib.contextmanager
def stop_on_signals(training: Training, group: ProcessGroup) -> Iterator[None]:
    """Stops the run after the current step on ctrl-C, SIGTERM or SIGUSR1; at once on a second signal.

    Processes started by dltips leave the second signal to their parent.
    """
    first_at, ignored_for = -math.inf, SAME_SIGNAL_SECONDS if group.size > 1 else 0.0
    if group.size > 1 and MESSAGES_VARIABLE in os.environ:
        ignored_for = math.inf

    def stop(number: int, frame: Any) -> None:
        nonlocal first_at
        if not training.progress.stop_requested:
            training.progress.stop_requested, first_at = True, time.monotonic()
        elif time.monotonic() - first_at >= ignored_for:
            raise KeyboardInterrupt

    with handling(stop):
        yield
