"""Writes a training to its run folder: a line per epoch, periodic checkpoints, TensorBoard events."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dltips.metrics import is_score, score_names
from dltips.runs import checkpoint
from dltips.runs.file_names import METRICS
from dltips.runs.hparams import hyperparameters
from dltips.tips.preprocessing import save
from dltips.train.build import Run
from dltips.train.display import Display
from dltips.train.finetuning import plans
from dltips.train.fit import Record
from dltips.train.snapshot import FORMAT, Snapshot

if TYPE_CHECKING:
    from dltips.runs.tensor_events import Events

# HParams' columns take 0.1 s to collect: a run shorter than this gets the same events at its end
EVENTS_AFTER = 3.0  # seconds


class FolderRecorder:
    """Writes into one run folder. Raises OSError; the last good checkpoint stays complete."""

    def __init__(
        self, path: Path, run: Run, display: Display, config_text: str, typed: Sequence[str], *, pictures: bool
    ) -> None:
        self.path = path
        self.metrics = (path / METRICS).open("a", encoding="utf-8", buffering=1)
        self.run = run
        self.display = display
        self.config_text = config_text
        self.pictures = pictures
        self.typed = typed  # keys set on the command line: TensorBoard shows their columns first
        self.waiting_records: list[tuple[Record, float]] = []
        self.events: Events | None = None
        self.started = self.written = time.perf_counter()
        self.checkpointed: int | None = None  # the epoch of last.pt

    def epoch(self, record: Record, snapshot: Snapshot) -> None:
        now = time.perf_counter()
        self.metrics.write(json.dumps(without_nan(record)) + "\n")
        self.display.epoch(record)
        if now - self.written >= self.run.config.checkpoint.interval:
            self.write_checkpoint(snapshot)
        if self.run.config.log.tensorboard:
            self.waiting_records.append((record, time.time()))
            # histograms show the current weights, so they cannot wait
            if now - self.started > EVENTS_AFTER or self.run.config.log.histograms:
                self.write_events()

    def close(self) -> None:
        with contextlib.suppress(OSError):  # of a full disk; writing the line has reported it already
            self.metrics.close()

    def write_checkpoint(self, snapshot: Snapshot) -> None:
        """Writes last.pt, unless it holds this epoch already."""
        if self.checkpointed != snapshot.epoch:
            checkpoint.write(self.path, self._payload(snapshot))
            self.checkpointed = snapshot.epoch
            self.written = time.perf_counter()

    def _payload(self, snapshot: Snapshot) -> dict[str, Any]:
        return snapshot.payload(self.run.training) | self._description()

    def _description(self) -> dict[str, Any]:
        return {
            "preprocessing": save(self.run.preprocess),
            "input_shape": list(self.run.input_shape),
            "classes": list(self.run.source.classes),
            "reader": json.dumps(self.run.source.reader),
            "config_hash": self.run.config.hash,
            "plan": plans.write_plan(self.run.plan),
        }

    def write_best(self, snapshot: Snapshot) -> None:
        """Writes best.pt: the weights of the best epoch only, for later use of the net."""
        if snapshot.best is not None:
            payload = {
                "format": FORMAT,
                "epoch": snapshot.best.metrics["epoch"],
                "metrics": snapshot.best.metrics,
                "model": snapshot.best.weights.named(self.run.training.net),
            }
            checkpoint.write(self.path, payload | self._description(), checkpoint.BEST)

    def write_events(self) -> None:
        """Writes the waiting epochs to TensorBoard; opens it at the first of them."""
        if self.events is None:
            from dltips.runs.tensor_events import Events

            self.events = Events(self.path)
            columns, values = hyperparameters(self.run.config)
            self.events.start(columns, values, score_names(), self.config_text, varied=self.typed)
        for record, wall_time in self.waiting_records:
            scalars = {
                name: value
                for name, value in record.items()
                if "/" in name or name in ("lr", "samples_per_second") or is_score(name)
            }
            self.events.scalars(record["epoch"], scalars, wall_time)
        self.waiting_records.clear()
        if self.run.config.log.histograms:
            net = self.run.training.net
            weights = {f"weights/{segment.name}": view for segment, view in net.views(net.parameters)}
            self.events.histograms(self.run.training.progress.step // self.run.training.steps_per_epoch, weights)

    def finish(self, status: str) -> None:
        """Writes waiting epochs and augmented samples to TensorBoard, and ends its session, after the training time."""
        if self.run.config.log.tensorboard:
            self.write_events()
            assert self.events is not None
            if self.run.config.log.images and self.pictures and len(self.run.input_shape) == 3:
                self.events.images("train/augmented", augmented_examples(self.run))
            self.events.finish(status)


def augmented_examples(run: Run, count: int = 32) -> Any:
    """Returns the first training images as the first epoch's augmentations change them: (N, C, H, W) in [0, 1]."""
    from dltips.feed.batches import to_float
    from dltips.train import seeds

    training = run.training
    indices = run.splits.train.indices
    assert indices is not None
    inputs = to_float(run.splits.train.inputs.index_select(0, indices[:count]).to(training.device))
    targets = run.splits.train.targets.index_select(0, indices[:count]).to(training.device)
    augmentations = (*training.inputs.train.augmentations, *training.inputs.train.mixing)
    for name, augment in zip(training.inputs.augmentation_names, augmentations, strict=True):
        generator = seeds.generator(training.seed, "augmentation", name, 0, str(training.device))
        inputs, targets = augment(inputs, targets, generator)
    return inputs.clamp(0, 1).cpu()


def without_nan(record: Record) -> Record:
    """Replaces NaN by None, since JSON has no NaN."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in record.items()
    }
