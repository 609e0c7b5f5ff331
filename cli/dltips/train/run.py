"""What `dltips train` does with a composed config: make or find the run folder, fit, sum up."""

from __future__ import annotations

import contextlib
import gc
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from dltips.config import Config, redact, validate
from dltips.main import EXIT_DIVERGED, EXIT_INTERNAL, EXIT_INTERRUPTED, EXIT_OK
from dltips.overrides import typed_keys
from dltips.registry import ConfigError
from dltips.train import checkpoint, folder
from dltips.train import device as devices
from dltips.train.display import Display, display_for
from dltips.train.fit import Result, fit
from dltips.train.loop import Training
from dltips.train.prepare import Run, prepare
from dltips.train.recorder import FolderRecorder
from dltips.train.summary import environment, parameters, report, summarize

if TYPE_CHECKING:
    from dltips.train.resume import Continuation


def train(composed: DictConfig, overrides: list[str], notes: list[str], said: set[str]) -> int:
    """One run from its composed config; the exit code. Errors: ConfigError, with nothing left behind.

    Of the notes, those that the person has heard go to run.log alone; the others are added to what was said.
    """
    folder.check_writable()
    if composed.get("resume") is not None:
        from dltips.train.resume import continuation

        resumed = continuation(composed, overrides)
        code, _ = run_once(resumed.config, resumed, typed_keys(overrides), [*notes, *resumed.notes], said)
    else:
        code, _ = run_once(validate(composed), None, typed_keys(overrides), notes, said)
    return code


def run_once(
    config: Config,
    resumed: Continuation | None,
    typed: list[str],
    notes: list[str],
    said: set[str],
    deadline: float | None = None,
) -> tuple[int, Path]:
    """One run, new or resumed; its exit code and folder. Errors: ConfigError, with nothing left behind.

    With a deadline, of time.perf_counter(), no epoch begins after it, and the end is not reported.
    """
    run = prepare(config, resumed.threads, resumed.begun) if resumed else prepare(config)
    snapshot, records = resumed.restore(run) if resumed else (None, [])
    if resumed:
        run.test_reads = resumed.test_reads
        if resumed.payload is not None:
            run.weights_hash = resumed.weights_hash
    run.training.step = (snapshot.epoch if snapshot else 0) * run.training.steps_per_epoch
    if deadline is not None:
        run.training.after_epoch = [*run.training.after_epoch, lambda record: time.perf_counter() > deadline]
    path = resumed.path if resumed else folder.make(config.settings.name)
    try:
        config_text = folder.write_config(path, config.plain)
        folder.write_json(path / folder.ENVIRONMENT, environment(run))
        display = display_for(path / folder.LOG, config.settings.epochs, run.training)
        recorder = FolderRecorder(path, run, display, config_text, typed)
    except OSError as error:
        if not resumed:
            shutil.rmtree(path, ignore_errors=True)
        raise ConfigError(f"outputs: {path} cannot be written ({error.strerror})") from error
    with contextlib.closing(display), contextlib.closing(recorder):
        for note in (*notes, *run.notes):
            display.say(note, heard=note in said)
            said.add(note)
        display.say(f"{'resuming' if resumed else 'run'} {path}: {_headline(run)}")
        try:
            gc.freeze()  # what was made so far stays: looking through it once would take 0.1 s
            gc.enable()
            devices.keep_freed_memory()
            with _stop_on_signals(run.training):
                result = fit(run, recorder, resume=snapshot, records=records)
            display.leave()
            code = _end(run, recorder, result, path, display, reported=deadline is None)
            return code, path
        except OSError as error:
            display.leave()
            return _failed_to_write(run, path, error), path
        except BaseException as error:
            display.leave()
            if isinstance(error, ConfigError) and not folder.read_metrics(path):
                shutil.rmtree(path, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    summary = summarize(run, "failed", folder.read_metrics(path), None)
                    folder.write_json(path / folder.SUMMARY, summary)
            raise


def _headline(run: Run) -> str:
    splits, data = run.splits, run.config.tip("data").name
    trains = run.training.net.count
    part = f", of which {trains:,} train" if trains != run.size.parameters else ""
    return (
        f"{data} ({run.training.train.count:,} train, {len(splits.val):,} val, {len(splits.test):,} test)"
        f", {run.config.tip('model').name} with {parameters(run.size.parameters)}{part}, on {run.training.device}"
    )


def _end(run: Run, recorder: FolderRecorder, result: Result, path: Path, display: Display, *, reported: bool) -> int:
    """Checkpoints, pictures, summary, and what the person gets to read."""
    if result.snapshot.epoch > 0 or run.config.settings.epochs == 0:
        recorder.checkpoint(result.snapshot)
    recorder.best(result.snapshot)
    recorder.finish(result.status)
    records = folder.read_metrics(path)
    if run.config.log.picture and records:
        from dltips.train.picture import curves

        curves(records, path / "curves.png", redact(run.config.settings.name or path.name))
    summary = summarize(run, result.status, records, result)
    folder.write_json(path / folder.SUMMARY, summary)
    if result.status == "diverged":
        assert result.diverged_at is not None
        epoch, step, where = result.diverged_at
        kept = (
            f"the checkpoint of epoch {result.snapshot.epoch} is kept"
            if result.snapshot.epoch
            else "no epoch was whole"
        )
        display.say(
            f"dltips: the loss is not finite in epoch {epoch}, step {step}: first in {where}; {kept}."
            " Lower optimizer.lr or init.scale, or add regularization=clip_gradient"
        )
    if result.status == "interrupted":
        saved = f"epoch {result.snapshot.epoch} is saved" if result.snapshot.epoch else "no epoch was whole"
        display.say(f"dltips: interrupted; {saved}: dltips train resume={path}")
    if reported:
        with contextlib.suppress(OSError):  # nobody reads it; the run is whole all the same
            print(report(run, path, summary, records), flush=True)
    return {"finished": EXIT_OK, "diverged": EXIT_DIVERGED, "interrupted": EXIT_INTERRUPTED}[result.status]


def _failed_to_write(run: Run, path: Path, error: OSError) -> int:
    """The disk is full, or gone: the last good checkpoint is whole, and the person learns how to go on."""
    with contextlib.suppress(OSError):
        folder.write_json(path / folder.SUMMARY, summarize(run, "failed", folder.read_metrics(path), None))
    has_checkpoint = (path / checkpoint.LAST).exists() or (path / checkpoint.PREVIOUS).exists()
    remedy = f"make room, then: dltips train resume={path}" if has_checkpoint else "make room and start again"
    print(f"dltips: {path} cannot be written ({error.strerror or error}); {remedy}", file=sys.stderr)
    return EXIT_INTERNAL


@contextlib.contextmanager
def _stop_on_signals(training: Training) -> Iterator[None]:
    """Ctrl-C and SIGTERM stop the run after the step at hand; a second one at once."""

    def stop(number: int, frame: Any) -> None:
        if training.stop_requested:
            raise KeyboardInterrupt
        training.stop_requested = True

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    theirs = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in theirs.items():
            signal.signal(number, handler)
