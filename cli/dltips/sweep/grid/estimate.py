"""`dltips train -m --dry-run`: prints the trials and an estimate of their time and memory."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import astuple, dataclass

import torch

from dltips.config.validation import Config
from dltips.exit_codes import EXIT_OK
from dltips.feed.dataset_cache import DatasetCache
from dltips.formatting import clock, columns, override_text
from dltips.nets.flat import FlatModel
from dltips.sweep.trial import Trial
from dltips.train import device as devices
from dltips.train.build import build_run
from dltips.train.loop import Meter, Training, batches, evaluation_batch, predictions, train_step
from dltips.train.run import reason
from dltips.train.summary import peak_memory

STEPS, SECONDS = 20, 1.0  # at most, per kind of trial
KINDS = 20  # kinds that are measured; further ones are assumed to be average
# settings without effect on time: trials that differ only in these are measured once
ALIKE = ("seed", "name", "init", "epochs", "log", "checkpoint", "schedule")


@dataclass(frozen=True)
class Cost:
    """The cost of one kind of trial."""

    before: float  # seconds until its first epoch
    epoch: float  # seconds
    memory: float  # peak in bytes, of the whole process if there is no GPU


def show(trials: Sequence[Trial], left: Collection[int], store: DatasetCache, workers: int) -> int:
    """Prints the trials and the estimate for the rest, measured on a few steps of each kind; writes nothing."""
    costs: dict[str, Cost] = {}
    failed: dict[str, str] = {}
    for trial in (trial for trial in trials if trial.number in left):
        config = trial.config
        if (kind := _kind(config)) in costs or kind in failed or len(costs) >= KINDS:
            continue
        try:
            costs[kind] = measure(config, store)
        except Exception as error:  # the trial itself would fail in the same way
            failed[kind] = reason(error)
    known = list(costs.values()) or [Cost(0.0, 0.0, 0.0)]
    mean = Cost(*(sum(values) / len(known) for values in zip(*map(astuple, known), strict=True)))
    varied, total = list(trials[0].varied), 0.0
    rows = [("trial", *varied, "epochs", "about s", "folder")]
    for trial in trials:
        kind, epochs = _kind(trial.config), trial.config.settings.epochs
        cost = costs.get(kind, mean)
        seconds = cost.before + cost.epoch * epochs if trial.number in left and kind not in failed else 0.0
        about = "done" if trial.number not in left else "fails" if kind in failed else f"{seconds:.1f}"
        total += seconds
        cells = [override_text(trial.varied[key]) for key in varied]
        rows.append((str(trial.number), *cells, str(epochs), about, trial.folder))
    print("\n".join(columns(rows)))
    done = len(trials) - len(left)
    shared = f" in each of {workers} workers, which share the cores" if workers > 1 else ""
    memory = max(cost.memory for cost in known) / 1e6
    print(f"\n{_count(len(trials), 'trial')}" + (f", {done} of them done before" if done else ""))
    print(f"about {_duration(total)} one after another, {memory:,.0f} MB{shared}")
    print(
        f"measured on up to {STEPS} steps of {_count(len(costs), 'kind')} of trial;"
        " early stopping is not taken into account"
    )
    for why in dict.fromkeys(failed.values()):
        print(f"fails: {why}")
    print("nothing was run")
    return EXIT_OK


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _kind(config: Config) -> str:
    return repr(sorted((key, value) for key, value in config.resolved.items() if key not in ALIKE))


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s" if seconds < 100 else clock(seconds)


def measure(config: Config, store: DatasetCache) -> Cost:
    """Builds a run, times some steps and a part of its validation, and discards it. Raises ConfigError."""
    started = time.perf_counter()
    run = build_run(config, datasets=store)
    before = time.perf_counter() - started
    training = run.training
    with devices.conditions(
        training.device, thread_count=run.threads.training, deterministic=config.settings.deterministic
    ):
        step = _seconds_per_step(training, training.net)
        size = evaluation_batch(training.inputs.val, training.batch_size)
        started = time.perf_counter()
        outputs, _ = next(
            iter(predictions(training.inputs.model, training.inputs.val, training.batch_size, training.autocast))
        )
        outputs.sum().item()  # waits for the GPU
        validation = (time.perf_counter() - started) * max(1.0, training.inputs.val.count / size)
    return Cost(before, step * training.steps_per_epoch + validation, peak_memory(training.device))


def _seconds_per_step(training: Training, net: FlatModel) -> float:
    """Returns the mean over some steps after the first, which is slower."""
    net.train()
    meter, times = Meter(), list[float]()
    begin = time.perf_counter()
    for inputs, targets in batches(training, 0):
        started = time.perf_counter()
        train_step(training, inputs, targets, meter)
        torch.stack([loss for loss, _, _ in meter.pending]).sum().item()  # waits for the GPU
        times.append(time.perf_counter() - started)
        if len(times) > STEPS or time.perf_counter() - begin > SECONDS:
            break
    later = times[1:] or times
    return sum(later) / len(later)
