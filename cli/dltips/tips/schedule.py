"""Schedules: `(steps, *, knobs) -> Schedule`: the share of optimizer.lr at each step; plateau also gets metrics."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from dltips.catalog.cards import card
from dltips.catalog.registry import Count, Fraction, NonNegative, Score, Size, family
from dltips.errors import ConfigError
from dltips.metrics import PatienceCounter

schedule = family("schedule")


@dataclass(frozen=True)
class Steps:
    """The length of the run."""

    total: int
    per_epoch: int


@dataclass
class Schedule:
    """The share of the learning rate at each step; its memory is saved with the checkpoint."""

    factor: Callable[[int], float]
    needs_length: bool = False  # a longer run would change the past
    on_metrics: Callable[[Mapping[str, float]], None] = lambda metrics: None
    state: dict[str, float] = field(default_factory=dict)


@schedule.common
def warm_up(chosen: Schedule, steps: Steps, *, warmup: NonNegative) -> Schedule:
    """Returns any schedule after `warmup` epochs in which the rate rises linearly from 0 (Goyal et al. 2017)."""
    length = round(warmup * steps.per_epoch)
    if length == 0:
        return chosen
    if length > steps.total > 0:
        epochs = steps.total // steps.per_epoch
        raise ConfigError(
            f"schedule.warmup: {warmup:g} epochs are more than the run's {epochs}; write"
            f" schedule.warmup={epochs / 10:g}"
        )

    def factor(step: int) -> float:
        return min(1.0, (step + 1) / length) * chosen.factor(step)

    return Schedule(factor, chosen.needs_length, chosen.on_metrics, chosen.state)


@schedule
@card(
    when="short runs, and as the yardstick for the others",
    formula="lr",
    source="tip K for where to start",
    recommends="optimizer.lr=0.1 (K, for SGD)",
    costs="nothing; what a lower rate at the end would gain is left",
)
def constant(steps: Steps) -> Schedule:
    """The same rate throughout."""
    return Schedule(lambda step: 1.0)


@schedule
@card(
    when="the length of the run is known: nothing else to choose",
    formula="lr * (floor + (1 - floor) * (1 + cos(pi * step / steps)) / 2)",
    source="Loshchilov and Hutter 2017, arXiv 1608.03983, without restarts",
    costs="the run cannot be made longer afterwards",
)
def cosine(steps: Steps, *, floor: Fraction) -> Schedule:
    """Half a cosine from the rate down to floor times the rate (Loshchilov and Hutter 2017, arXiv 1608.03983)."""
    return Schedule(lambda step: _anneal("cosine", 1.0, floor, step / max(1, steps.total)), needs_length=True)


@schedule
@card(
    when="the length of the run is known, short runs above all",
    formula="lr * (1 + (floor - 1) * step / steps)",
    source="Defazio et al. 2023, arXiv 2310.07831, which finds it the best of the usual ones",
    recommends="floor 0",
    costs="the run cannot be made longer afterwards",
)
def linear(steps: Steps, *, floor: Fraction) -> Schedule:
    """A straight line from the rate down to floor times the rate."""
    return Schedule(lambda step: _anneal("linear", 1.0, floor, step / max(1, steps.total)), needs_length=True)


@schedule
@card(
    when="few epochs at a rate that would be too high from the start; find the peak with a range test",
    formula="from lr * start up to lr in the first share `rise` of the steps, then down to lr * end",
    source="Smith 2018, arXiv 1803.09820; Smith and Topin 2017, arXiv 1708.07120",
    recommends="a rise of 0.3, 1/25 at the start: fastai's and torch's",
    costs="the run cannot be made longer afterwards",
)
def one_cycle(
    steps: Steps, *, rise: Fraction, start: Fraction, end: Fraction, anneal: Literal["cosine", "linear"]
) -> Schedule:
    """Up to the rate, then down to almost nothing, in one run: optimizer.lr is the peak (Smith 2018).

    Steps as torch's OneCycleLR takes them, in two phases. Momentum, which Smith lowers while the rate rises, stays.
    """
    peak, last = rise * steps.total - 1, steps.total - 1

    def factor(step: int) -> float:
        if step <= peak:
            return _anneal(anneal, start, 1.0, step / peak if peak > 0 else 1.0)
        down = max(0.0, peak)
        return _anneal(anneal, 1.0, end, (step - down) / max(1.0, last - down))

    return Schedule(factor, needs_length=True)


def _anneal(shape: Literal["cosine", "linear"], first: float, last: float, share: float) -> float:
    """Returns the value of a curve from `first` to `last` at that share of its way."""
    return last + (first - last) * (0.5 * (1 + math.cos(math.pi * share)) if shape == "cosine" else 1 - share)


@schedule
@card(
    when="the epochs at which a rate has done its work are known from earlier runs",
    formula="lr * factor^(epoch // every)",
    source="Krizhevsky et al. 2012 and He et al. 2015, arXiv 1512.03385, who divide by 10",
    recommends="factor 0.1",
    costs="two knobs that depend on the data and the model",
)
def step(steps: Steps, *, every: Size, factor: Fraction) -> Schedule:
    """Times `factor` every so many epochs."""
    return Schedule(lambda step: factor ** (step // (every * steps.per_epoch)))


@schedule
@card(
    when="nothing is known about how long a rate does its work: the validation score says it",
    formula="lr * factor^n, n the number of times that the score stood still for more than `patience` epochs",
    source="tips K and S",
    recommends="divide by 2, or by 5",
    costs="`patience` epochs at each rate that has done its work",
)
def plateau(steps: Steps, *, factor: Fraction, patience: Count, monitor: Score, min_delta: NonNegative) -> Schedule:
    """Times `factor` (1/2, or 1/5) when the score has not improved for more than `patience` epochs."""
    progress = PatienceCounter(monitor, min_delta)
    progress.state["share"] = 1.0

    def on_metrics(metrics: Mapping[str, float]) -> None:
        if progress.epochs_without(metrics) > patience:
            progress.state["share"] *= factor
            progress.state["waited"] = 0

    return Schedule(lambda step: progress.state["share"], on_metrics=on_metrics, state=progress.state)
