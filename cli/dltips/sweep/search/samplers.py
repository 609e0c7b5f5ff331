"""Makes Optuna's samplers and pruners, anew for each trial.

A sampler's randomness comes from the search's seed and the trial's number alone, so that one worker's search can be
repeated, and no two workers draw alike.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import TrialState

from dltips.errors import ConfigError

if TYPE_CHECKING:
    import optuna
    from cmaes import CMA
    from optuna.trial import FrozenTrial

SamplerName = Literal["random", "tpe", "qmc", "cmaes"]
PrunerName = Literal["none", "median", "asha", "hyperband"]

STARTUP = 10  # trials that TPE draws at random before it fits a model (Optuna's default)
RUNGS = 27  # the first rung of asha and hyperband is a 27th of the most epochs (three reductions by 3)


def seed_of(seed: int, number: int) -> int:
    """Returns 32 bits for one trial of a search."""
    return int(numpy.random.SeedSequence([seed, number]).generate_state(1)[0])


def check(sampler: str, distributions: Mapping[str, BaseDistribution], objectives: int) -> list[str]:
    """Returns notes on a sampler's use of such a space. Raises ConfigError if it cannot search it."""
    if sampler != "cmaes":
        return []
    try:
        import cmaes  # noqa: F401
    except ImportError as error:
        raise ConfigError("sampler: cmaes needs the package of that name; pip install 'dltips[cmaes]'") from error
    if objectives > 1:
        raise ConfigError("sampler: cmaes has one objective only; write sampler=tpe")
    choices = [key for key, each in distributions.items() if isinstance(each, CategoricalDistribution)]
    if len(distributions) - len(choices) < 2:
        raise ConfigError("sampler: cmaes searches over two intervals or more, and here are fewer; write sampler=tpe")
    return [f"sampler: cmaes searches over numbers; {', '.join(choices)} is drawn at random"] if choices else []


def check_pruner(name: str, epochs: int, first: int | None) -> None:
    """Raises ConfigError if the pruner could only judge a trial after its last epoch."""
    if name == "none" or first is None or first < epochs:
        return
    remedy = f"write min_epochs={_least(epochs)}" if epochs > 1 else "write pruner=none"
    raise ConfigError(
        f"min_epochs: {first} is not before a run's last epoch, {epochs} at the most: {name} would never end one;"
        f" {remedy}"
    )


def make_sampler(name: str, distributions: Mapping[str, BaseDistribution], seed: int, number: int) -> BaseSampler:
    """Returns the sampler of one trial."""
    if name == "random":
        return RandomSampler(seed=seed_of(seed, number))
    if name == "qmc":
        return Qmc(distributions, seed, number)
    if name == "cmaes":
        return CmaEs(distributions, seed, number)
    assert name == "tpe"
    with warnings.catch_warnings():
        # multivariate: a good rate depends on the momentum. constant_liar: running trials count as bad
        warnings.simplefilter("ignore", category=_experimental())
        return TPESampler(seed=seed_of(seed, number), multivariate=True, constant_liar=True, n_startup_trials=STARTUP)


def make_pruner(name: str, epochs: int, reduction: int, first: int | None) -> BasePruner:
    """Returns the pruner for trials of at most so many epochs, judged from epoch `first` on."""
    least = first if first is not None else _least(epochs)
    if name == "median":
        # as in Google Vizier: not before five trials are complete
        return MedianPruner(n_startup_trials=5, n_warmup_steps=least)
    if name == "asha":
        return SuccessiveHalvingPruner(min_resource=least, reduction_factor=reduction)
    if name == "hyperband":
        return HyperbandPruner(min_resource=least, max_resource=epochs, reduction_factor=reduction)
    assert name == "none"
    return NopPruner()


def _least(epochs: int) -> int:
    return max(1, round(epochs / RUNGS))


def _experimental() -> type[Warning]:
    from optuna.exceptions import ExperimentalWarning

    return ExperimentalWarning


class _Joint(BaseSampler):
    """A sampler that draws a point of the unit cube for all numbers at once; what it leaves out is drawn at random."""

    def __init__(self, distributions: Mapping[str, BaseDistribution], seed: int, number: int) -> None:
        self.distributions, self.seed, self.number = dict(sorted(distributions.items())), seed, number
        self.random = RandomSampler(seed=seed_of(seed, number))

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        # Optuna fills in an interval whose ends are equal
        return {key: each for key, each in self.distributions.items() if not each.single()}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self.random.sample_independent(study, trial, param_name, param_distribution)


class Qmc(_Joint):
    """Sobol's points, scrambled by the search's seed: trial n has the n-th, whichever worker runs it (Owen 1998)."""

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        from scipy.stats import qmc

        if not search_space:
            return {}
        points = qmc.Sobol(len(search_space), scramble=True, seed=self.seed)
        if self.number:
            points.fast_forward(self.number)
        point = points.random(1)[0]
        return {key: from_unit(each, part) for (key, each), part in zip(search_space.items(), point, strict=True)}


class CmaEs(_Joint):
    """CMA-ES over the numbers, its state rebuilt from the reported trials (Hansen 2016, arXiv 1604.00772).

    Optuna's own keeps its state as a pickle in the database, through which any writer of the database could run code.
    """

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        space = super().infer_relative_search_space(study, trial)
        return {key: each for key, each in space.items() if not isinstance(each, CategoricalDistribution)}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        if not search_space:
            return {}
        told = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
        point = self.state(told, search_space, study.direction).ask()
        return {key: from_unit(each, part) for (key, each), part in zip(search_space.items(), point, strict=True)}

    def state(
        self, told: Sequence[FrozenTrial], space: Mapping[str, BaseDistribution], direction: StudyDirection
    ) -> CMA:
        """Rebuilds the state by generations, in the order in which the trials ended, each by its parameters."""
        from cmaes import CMA

        size = len(space)
        state = CMA(
            mean=numpy.full(size, 0.5),
            sigma=1 / 6,  # Optuna's: from the middle of the cube three standard deviations to each side
            bounds=numpy.array([[0.0, 1.0]] * size),
            seed=seed_of(self.seed, self.number),
        )
        sign = -1.0 if direction is StudyDirection.MAXIMIZE else 1.0
        solutions = []
        for trial in sorted(told, key=lambda trial: (trial.datetime_complete, trial.number)):
            if trial.values is not None and space.keys() <= trial.params.keys():
                point = [to_unit(each, trial.params[key]) for key, each in space.items()]
                solutions.append((numpy.array(point), sign * trial.values[0]))
        for start in range(0, len(solutions) - state.population_size + 1, state.population_size):
            state.tell(solutions[start : start + state.population_size])
        return state


def from_unit(distribution: BaseDistribution, part: float) -> Any:
    """Returns the value at `part` in [0, 1] of a distribution; steps and choices have equal shares."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[min(int(part * len(distribution.choices)), len(distribution.choices) - 1)]
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high, step = distribution.low, distribution.high, distribution.step
    if distribution.log:
        half = 0.5 if isinstance(distribution, IntDistribution) else 0.0  # the shares of the ends reach beyond them
        ends = math.log(low - half), math.log(high + half)
        value = math.exp(ends[0] + part * (ends[1] - ends[0]))
        value = min(max(round(value) if half else value, low), high)
    elif step is None:
        value = low + part * (high - low)
    else:
        count = round((high - low) / step) + 1
        value = low + min(int(part * count), count - 1) * step
    return int(value) if isinstance(distribution, IntDistribution) else float(value)


def to_unit(distribution: BaseDistribution, value: float) -> float:
    """Returns a number's position in [0, 1]: the middle of its share, if `from_unit` rounds."""
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high, step = float(distribution.low), float(distribution.high), distribution.step
    if distribution.log:
        half = 0.5 if isinstance(distribution, IntDistribution) else 0.0
        part = math.log(value / (low - half)) / math.log((high + half) / (low - half))
    elif step is None:
        part = (value - low) / (high - low)
    else:
        part = (round((value - low) / step) + 0.5) / (round((high - low) / step) + 1)
    return min(max(part, 0.0), 1.0)
