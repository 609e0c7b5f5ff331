"""Schedules: `(steps, *, knobs) -> Schedule`: the share of optimizer.lr at each step; plateau also hears metrics."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from dltips.metrics import Progress, Score
from dltips.registry import Count, Fraction, NonNegative, Size, family

schedule = family("schedule")


@dataclass(frozen=True)
class Steps:
    """How long the run is."""

    total: int
    per_epoch: int


@dataclass
class Schedule:
    """The share of the learning rate, from the step; what it remembers is saved with the checkpoint."""

    factor: Callable[[int], float]
    needs_length: bool = False  # a run cannot be made longer without changing its past
    hear: Callable[[Mapping[str, float]], None] = lambda metrics: None
    state: dict[str, float] = field(default_factory=dict)


@schedule.common
def warm_up(chosen: Schedule, steps: Steps, *, warmup: NonNegative) -> Schedule:
    """Any schedule, behind `warmup` epochs in which the rate rises linearly from 0 (Goyal et al. 2017)."""
    length = round(warmup * steps.per_epoch)
    if length == 0:
        return chosen

    def factor(step: int) -> float:
        return min(1.0, (step + 1) / length) * chosen.factor(step)

    return Schedule(factor, chosen.needs_length, chosen.hear, chosen.state)


@schedule
def constant(steps: Steps) -> Schedule:
    """The same rate throughout."""
    return Schedule(lambda step: 1.0)


@schedule
def cosine(steps: Steps, *, floor: Fraction) -> Schedule:
    """Half a cosine from the rate down to floor times the rate (Loshchilov and Hutter 2017, arXiv 1608.03983)."""
    return Schedule(
        lambda step: floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * step / max(1, steps.total))), needs_length=True
    )


@schedule
def step(steps: Steps, *, every: Size, factor: Fraction) -> Schedule:
    """Times `factor` every so many epochs."""
    return Schedule(lambda step: factor ** (step // (every * steps.per_epoch)))


@schedule
def plateau(steps: Steps, *, factor: Fraction, patience: Count, monitor: Score, min_delta: NonNegative) -> Schedule:
    """Times `factor` (1/2, or 1/5) when the score has not improved for more than `patience` epochs."""
    progress = Progress(monitor, min_delta)
    progress.state["share"] = 1.0

    def hear(metrics: Mapping[str, float]) -> None:
        if progress.epochs_without(metrics) > patience:
            progress.state["share"] *= factor
            progress.state["waited"] = 0

    return Schedule(lambda step: progress.state["share"], hear=hear, state=progress.state)
