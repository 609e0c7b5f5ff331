"""`dltips train -m --dry-run`: the trials, and how long and how much memory they would take."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from dltips.config import Config
from dltips.main import EXIT_OK
from dltips.net import Net
from dltips.sweep.table import columns, text
from dltips.sweep.trial import Trial
from dltips.train import device as devices
from dltips.train.display import clock
from dltips.train.loop import Meter, Training, batches, evaluation_batch, predictions, train_step
from dltips.train.prepare import prepare
from dltips.train.store import Store
from dltips.train.summary import peak_memory

STEPS, SECONDS = 20, 1.0  # per kind of trial, at the most
KINDS = 20  # that are measured; more of them are taken to be like their mean
# what costs no other time: trials that differ in these alone are measured once
ALIKE = ("seed", "name", "init", "epochs", "log", "checkpoint", "schedule")


@dataclass(frozen=True)
class Cost:
    """Of one kind of trial."""

    before: float  # seconds until its first epoch
    epoch: float  # seconds
    memory: float  # bytes at the peak, of the whole process where it has no GPU


def show(trials: Sequence[Trial], store: Store, workers: int) -> int:
    """Print the trials and the estimate, measured on a few steps of each kind; nothing is written."""
    costs: dict[str, Cost] = {}
    for trial in trials:
        config = trial.config
        if (kind := _kind(config)) not in costs and len(costs) < KINDS:
            costs[kind] = measure(config, store)
    kinds = [_kind(trial.config) for trial in trials]
    known = [costs[kind] for kind in kinds if kind in costs]
    mean = Cost(
        *(sum(values) / len(known) for values in zip(*((c.before, c.epoch, c.memory) for c in known), strict=True))
    )
    seconds = [
        cost.before + cost.epoch * trial.config.settings.epochs
        for trial, cost in zip(trials, (costs.get(kind, mean) for kind in kinds), strict=True)
    ]
    varied = list(trials[0].varied)
    rows = [("trial", *varied, "epochs", "about s", "folder")]
    for trial, time_needed in zip(trials, seconds, strict=True):
        cells = [text(trial.varied[key]) for key in varied]
        rows.append((str(trial.number), *cells, str(trial.plain["epochs"]), f"{time_needed:.1f}", trial.folder))
    print("\n".join(columns(rows)))
    memory = max(cost.memory for cost in costs.values()) / 1e6
    shared = f" in each of {workers} workers, which share the cores" if workers > 1 else ""
    print(f"\n{len(trials)} trials, about {_duration(sum(seconds))} one after another, {memory:,.0f} MB{shared}")
    print(
        f"measured on up to {STEPS} steps of {len(costs)} kinds of trial; early stopping is not foreseen."
        " Nothing was run."
    )
    return EXIT_OK


def _kind(config: Config) -> str:
    return repr(sorted((key, value) for key, value in config.resolved.items() if key not in ALIKE))


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else clock(seconds)


def measure(config: Config, store: Store) -> Cost:
    """Prepare a run, time some steps and a part of its validation, and throw it away. Errors: ConfigError."""
    started = time.perf_counter()
    run = prepare(config, store=store)
    before = time.perf_counter() - started
    training = run.training
    with devices.conditions(
        training.device, thread_count=run.threads.training, deterministic=config.settings.deterministic
    ):
        step = _seconds_per_step(training, training.net)
        size = evaluation_batch(training.val, training.batch_size)
        started = time.perf_counter()
        outputs, _ = next(iter(predictions(training.model, training.val, training.batch_size, training.autocast)))
        outputs.sum().item()  # a GPU is done when its result is there
        validation = (time.perf_counter() - started) * max(1.0, training.val.count / size)
    return Cost(before, step * training.steps_per_epoch + validation, peak_memory(training.device))


def _seconds_per_step(training: Training, net: Net) -> float:
    """The mean over some steps after the first, which is slower."""
    net.train()
    meter, times = Meter(), list[float]()
    begin = time.perf_counter()
    for inputs, targets in batches(training, 0):
        started = time.perf_counter()
        train_step(training, inputs, targets, meter)
        torch.stack([loss for loss, _, _ in meter.pending]).sum().item()  # a GPU is done when its result is there
        times.append(time.perf_counter() - started)
        if len(times) > STEPS or time.perf_counter() - begin > SECONDS:
            break
    later = times[1:] or times
    return sum(later) / len(later)
