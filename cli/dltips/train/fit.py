"""fit: trains from the first epoch to the last and keeps the best weights; has no global state."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from dltips.metrics import is_better, is_score, of_record
from dltips.train import device as devices
from dltips.train.build import Run
from dltips.train.loop import Interrupted, NotFinite, train_epoch, validate
from dltips.train.snapshot import Best, Snapshot, Weights

Status = Literal["finished", "interrupted", "diverged"]
Record = dict[str, Any]
Watcher = Callable[[Mapping[str, Any]], bool]  # gets an epoch's record; True ends this session, not the training


class Recorder(Protocol):
    """Receives each epoch's record and snapshot."""

    def epoch(self, record: Record, snapshot: Snapshot) -> None: ...


class NoRecorder:
    """Records nothing."""

    def epoch(self, record: Record, snapshot: Snapshot) -> None:
        """Does nothing."""


@dataclass
class Result:
    """The outcome of a training."""

    status: Status
    records: list[Record]
    snapshot: Snapshot  # the state after the last completed epoch
    stopped_early: bool = False
    diverged_at: tuple[int, int, str] | None = None  # epoch, step, where

    @property
    def best(self) -> Best | None:
        return self.snapshot.best


@dataclass
class _Clock:
    """Counts seconds of training, those before a resume included."""

    before: float
    started: float = field(default_factory=time.perf_counter)

    def __call__(self) -> float:
        return self.before + time.perf_counter() - self.started


def fit(
    run: Run,
    recorder: Recorder | None = None,
    *,
    resume: Snapshot | None = None,
    records: Sequence[Record] = (),
    watchers: Sequence[Watcher] = (),
) -> Result:
    """Trains until the last epoch, early stopping, an interruption, or a loss that is not finite."""
    recorder = recorder or NoRecorder()
    with devices.conditions(
        run.training.device, thread_count=run.threads.training, deterministic=run.config.settings.deterministic
    ):
        return _fit(run, recorder, resume, list(records), watchers)


def _fit(
    run: Run, recorder: Recorder, resume: Snapshot | None, records: list[Record], watchers: Sequence[Watcher]
) -> Result:
    training, settings = run.training, run.config.settings
    if resume is not None:
        resume.put_back(training, run.regularizations)
        training.progress.step = resume.epoch * training.steps_per_epoch
    clock = _Clock(resume.seconds if resume else 0.0)
    best = resume.best if resume else None
    snapshot = resume or Snapshot.take(training, run.regularizations, 0, 0.0, None)
    if settings.epochs == 0 and snapshot.epoch == 0:
        try:
            record, best = _score_and_keep_best(run, 0, clock, None, 0.0, best)
        except Interrupted:
            return Result("interrupted", records, snapshot)
        snapshot = Snapshot.take(training, run.regularizations, 0, clock(), best)
        recorder.epoch(record, snapshot)
        return Result("finished", [record], snapshot)
    # a run killed after its last epoch only has to write its end
    for epoch in range(snapshot.epoch, snapshot.epoch if snapshot.stopped else settings.epochs):
        started = time.perf_counter()
        try:
            means = train_epoch(training, epoch, run.statistics.before_last_step if run.statistics else None)
            record, best = _score_and_keep_best(run, epoch + 1, clock, means, time.perf_counter() - started, best)
        except Interrupted:
            return Result("interrupted", records, snapshot)
        except NotFinite:
            from dltips.train.locate_divergence import locate

            return Result("diverged", records, snapshot, diverged_at=locate(run, snapshot, epoch))
        records.append(record)
        stops = [hook(record) for hook in training.hooks.on_metrics]  # all are called, even after a first one stops
        best = run.unfreeze(epoch + 1, best)
        stopped = training.group.from_first(any(stops))
        snapshot = Snapshot.take(training, run.regularizations, epoch + 1, clock(), best, stopped=stopped)
        recorder.epoch(record, snapshot)
        # a watcher stops this session, not the training: the checkpoint does not record it
        watched = time.perf_counter()
        enough = [watch(record) for watch in watchers]
        clock.before -= time.perf_counter() - watched  # time spent waiting for a search's database does not count
        if training.group.from_first(any(enough)) or snapshot.stopped:
            break
    return Result("finished", records, snapshot, stopped_early=snapshot.epoch < settings.epochs)


def _score_and_keep_best(
    run: Run, epoch: int, clock: _Clock, means: tuple[float, float] | None, seconds: float, best: Best | None
) -> tuple[Record, Best | None]:
    """Validates, measures the layers, keeps the weights if they are the best so far; returns the epoch's record."""
    training, metric = run.training, run.config.settings.metric
    scores = {f"val/{name}": value for name, value in validate(training).items()}
    record: Record = {"epoch": epoch, "step": epoch * training.steps_per_epoch}
    if means is not None:
        record |= {"train/loss": means[0], "train/accuracy": means[1]}
    record |= scores
    if means is not None:
        record |= of_record(record)
    record["lr"] = training.net.learning_rate
    if run.statistics is not None:
        record |= run.statistics.measure(training.net)
    record["seconds"] = round(clock(), 6)
    if means is not None:
        record["samples_per_second"] = round(training.inputs.train.count / seconds, 1)
    metrics = {"epoch": epoch} | {name: value for name, value in record.items() if is_score(name)}
    if metric in record and (best is None or is_better(metric, record[metric], best.metrics[metric])):
        for swap in training.hooks.swaps:
            swap(training.net)
        best = Best(metrics, Weights.of(training.net))
        for swap in reversed(training.hooks.swaps):
            swap(training.net)
    return record, best
