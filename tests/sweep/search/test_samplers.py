"""Where the next trial looks: repeatable, never alike, and better than chance."""

import math
from collections.abc import Mapping
from typing import Any

import numpy
import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.pruners import HyperbandPruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.trial import TrialState, create_trial

from dltips.errors import ConfigError
from dltips.sweep.search import samplers
from dltips.sweep.search.samplers import (
    CmaEs,
    check,
    check_pruner,
    from_unit,
    make_pruner,
    make_sampler,
    seed_of,
    to_unit,
)

NUMBERS: dict[str, BaseDistribution] = {
    "rate": FloatDistribution(1e-4, 1.0, log=True),
    "width": IntDistribution(8, 256, log=True),
    "drop": FloatDistribution(0.0, 0.5),
}
MIXED: dict[str, BaseDistribution] = NUMBERS | {"init": CategoricalDistribution(("he", "xavier"))}


def searched(name: str, count: int, space: Mapping[str, BaseDistribution], seed: int = 0) -> list[dict[str, Any]]:
    """The parameters of a search in which the best rate is 0.01, the best width 32, the best drop 0.2."""
    study = optuna.create_study(direction="maximize")
    for number in range(count):
        study.sampler = make_sampler(name, space, seed, number)
        trial = study.ask(dict(space))
        study.tell(trial, score(trial.params))
    return [trial.params for trial in study.trials]


def score(params: Mapping[str, Any]) -> float:
    rate = (math.log10(params["rate"]) + 2) ** 2 / 4
    return -rate - (math.log2(params["width"]) - 5) ** 2 / 6 - (params["drop"] - 0.2) ** 2 * 16


@pytest.mark.parametrize("name", ["random", "tpe", "qmc", "cmaes"])
def test_a_seed_repeats_a_search_and_another_does_not(name: str) -> None:
    first, again, other = (searched(name, 14, MIXED, seed) for seed in (0, 0, 1))
    assert first == again and first != other
    assert len({params["rate"] for params in first}) == 14


@pytest.mark.parametrize("name", ["tpe", "cmaes"])
def test_it_looks_where_good_trials_were(name: str) -> None:
    """Over 4 seeds, the mean score of the last 10 of 50 trials is better than of the first 10."""
    gains = []
    for seed in range(4):
        scores = [score(params) for params in searched(name, 50, NUMBERS, seed)]
        gains.append(sum(scores[-10:]) / 10 - sum(scores[:10]) / 10)
    assert min(gains) > 0.2


def test_qmc_fills_the_space_evenly_whoever_draws() -> None:
    """Sobol: of 16 trials each sixteenth of every interval gets one, in whatever order the numbers are drawn."""
    study = optuna.create_study()
    space = {"a": FloatDistribution(0, 1), "b": FloatDistribution(0, 1)}
    for number in numpy.random.default_rng(0).permutation(16):
        study.sampler = make_sampler("qmc", space, 0, int(number))
        study.tell(study.ask(space), 0.0)
    for key in space:
        assert sorted(int(trial.params[key] * 16) for trial in study.trials) == list(range(16))


def test_cma_es_adapts_to_what_was_told_and_keeps_no_pickle() -> None:
    """The last two of ten generations are three times as good as the first two, in the mean of 4 seeds."""
    space: dict[str, BaseDistribution] = {"a": FloatDistribution(0, 1), "b": FloatDistribution(0, 1)}
    first = last = 0.0
    for seed in range(4):
        study = optuna.create_study(direction="minimize")
        for number in range(60):
            study.sampler = make_sampler("cmaes", space, seed, number)
            trial = study.ask(space)
            study.tell(trial, (trial.params["a"] - 0.9) ** 2 + (trial.params["b"] - 0.1) ** 2)
        losses = [trial.values[0] for trial in study.trials]
        first, last = first + sum(losses[:12]), last + sum(losses[-12:])
        assert all(trial.system_attrs == {} for trial in study.trials)
    assert last < first / 3


def test_cma_es_waits_for_a_whole_generation() -> None:
    sampler = CmaEs({"a": FloatDistribution(0, 1), "b": FloatDistribution(0, 1)}, 0, 0)
    space = {"a": FloatDistribution(0, 1), "b": FloatDistribution(0, 1)}
    told = [create_trial(params={"a": 0.1, "b": 0.2}, distributions=space, value=1.0) for _ in range(13)]
    direction = optuna.study.StudyDirection.MINIMIZE
    size = sampler.state([], space, direction).population_size
    assert [sampler.state(told[:count], space, direction).generation for count in (0, size - 1, size, 2 * size)] == [
        0,
        0,
        1,
        2,
    ]


@pytest.mark.parametrize(
    ("distribution", "values"),
    [
        (FloatDistribution(1.0, 3.0), [1.0, 2.0, 3.0]),
        (FloatDistribution(0.01, 1.0, log=True), [0.01, 0.1, 1.0]),
        (FloatDistribution(0.0, 1.0, step=0.5), [0.0, 0.5, 1.0]),
        (IntDistribution(1, 3), [1, 2, 3]),
        (IntDistribution(10, 30, step=10), [10, 20, 30]),
        (CategoricalDistribution(("a", "b", "c")), ["a", "b", "c"]),
    ],
)
def test_the_unit_interval_maps_to_a_distribution(distribution: BaseDistribution, values: list[Any]) -> None:
    assert [from_unit(distribution, part) for part in (0.0, 0.5, 1.0)] == pytest.approx(values)


@pytest.mark.parametrize(
    "distribution",
    [
        *NUMBERS.values(),
        FloatDistribution(0.0, 1.0, step=0.1),
        IntDistribution(1, 9),
        IntDistribution(10, 90, step=10),
    ],
)
def test_a_value_lies_where_it_was_drawn(distribution: BaseDistribution) -> None:
    """What CMA-ES is told is where a trial's parameters lie, whatever was asked for first."""
    for part in (0.0, 0.21, 0.5, 0.99):
        value = from_unit(distribution, part)
        again = to_unit(distribution, value)
        assert from_unit(distribution, again) == pytest.approx(value, rel=1e-9)
        assert abs(again - part) < 0.15, "half a step of the coarsest"


def test_whole_numbers_have_equal_shares() -> None:
    drawn = [from_unit(IntDistribution(1, 4), part) for part in numpy.linspace(0, 1, 400, endpoint=False)]
    assert [drawn.count(value) for value in (1, 2, 3, 4)] == [100] * 4


def test_seeds_of_trials_differ() -> None:
    assert len({seed_of(seed, number) for seed in range(20) for number in range(50)}) == 1000


def test_pruners_by_epochs() -> None:
    asha = make_pruner("asha", 27, 3, None)
    assert isinstance(asha, SuccessiveHalvingPruner) and asha._min_resource == 1
    late = make_pruner("asha", 81, 3, 9)
    assert isinstance(late, SuccessiveHalvingPruner) and late._min_resource == 9
    assert isinstance(make_pruner("hyperband", 30, 3, None), HyperbandPruner)
    assert isinstance(make_pruner("median", 30, 3, None), MedianPruner)
    assert isinstance(make_pruner("none", 30, 3, None), NopPruner)


@pytest.mark.parametrize(("name", "first", "epochs"), [("asha", 2, 3), ("none", 9, 3), ("asha", None, 1)])
def test_a_pruner_that_looks_before_the_end_or_by_default_is_taken(name: str, first: int | None, epochs: int) -> None:
    check_pruner(name, epochs, first)
    with pytest.raises(ConfigError, match=r"^min_epochs: "):
        check_pruner("asha", epochs, epochs)


def test_asha_stops_who_is_behind_at_a_rung() -> None:
    """Epochs 1, 3 and 9 are rungs: the worst of three ends at the first; between rungs nobody does."""
    study = optuna.create_study(direction="maximize", pruner=make_pruner("asha", 27, 3, None))
    ends = []
    for final in (0.9, 0.8, 0.1):
        trial = study.ask()
        trial.report(final, 1)
        ends.append(trial.should_prune())
        if not ends[-1]:
            trial.report(0.0, 2)
            assert not trial.should_prune()
    assert ends == [False, True, True]


def test_what_cma_es_cannot_search(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check("cmaes", MIXED, 1) == ["sampler: cmaes searches over numbers; init is drawn at random"]
    assert check("cmaes", NUMBERS, 1) == [] == check("tpe", MIXED, 2)
    with pytest.raises(ConfigError, match=r"^sampler: cmaes searches over two intervals or more, and here are fewer"):
        check("cmaes", {"init": MIXED["init"], "drop": MIXED["drop"]}, 1)
    with pytest.raises(ConfigError, match=r"^sampler: cmaes has one objective only; write sampler=tpe$"):
        check("cmaes", NUMBERS, 2)
    monkeypatch.setitem(__import__("sys").modules, "cmaes", None)
    with pytest.raises(ConfigError, match=r"needs the package of that name; pip install 'dltips\[cmaes\]'$"):
        check("cmaes", NUMBERS, 1)


def test_failed_trials_do_not_count() -> None:
    study = optuna.create_study(direction="maximize")
    for number in range(12):
        study.sampler = make_sampler("cmaes", NUMBERS, 0, number)
        trial = study.ask(dict(NUMBERS))
        study.tell(trial, state=TrialState.FAIL)
    sampler = samplers.CmaEs(NUMBERS, 0, 12)
    told = study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED))
    assert sampler.state(told, NUMBERS, study.direction).generation == 0
