"""The order of a search's trials."""

import itertools

import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from dltips.sweep.search.objective import SCORES
from dltips.sweep.search.plan import SearchPlan
from dltips.sweep.search.ranking import best_scores, pareto, ranked
from dltips.sweep.search.search_settings import SearchSettings
from dltips.sweep.search.space import Space


def plan(*objectives: str) -> SearchPlan:
    return SearchPlan(Space({"metric": "val/accuracy"}, ()), SearchSettings(), objectives, (), "study")


def trials(*values: tuple[float, ...] | None) -> list[FrozenTrial]:
    made = []
    for number, value in enumerate(values):
        state = TrialState.PRUNED if value is None else TrialState.COMPLETE
        one = create_trial(values=value, state=state, user_attrs={SCORES: list(value or ())})
        one.number = number
        made.append(one)
    return made


@pytest.mark.parametrize(("objective", "order"), [("val/accuracy", [3, 0, 4, 1]), ("val/loss", [1, 0, 4, 3])])
def test_one_objective_ranks_by_its_direction_and_then_by_number(objective: str, order: list[int]) -> None:
    given = trials((0.5,), (0.25,), None, (0.75,), (0.5,))
    assert [trial.number for trial in ranked(plan(objective), given)] == order


def test_the_front_is_what_nothing_beats() -> None:
    points = [*itertools.product((0.1, 0.5, 0.9), (1.0, 2.0)), (0.5, 1.0)]
    given = trials(*points)
    both = plan("val/accuracy", "seconds")  # higher, lower

    def beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
        return one != other and one[0] >= other[0] and one[1] <= other[1]

    expected = [n for n, point in enumerate(points) if not any(beats(other, point) for other in points)]
    assert [trial.number for trial in pareto(both, given)] == expected
    order = [trial.number for trial in ranked(both, given)]
    assert order[: len(expected)] == expected
    rest = [points[n] for n in order[len(expected) :]]
    assert rest == sorted(rest, key=lambda point: (-point[0], point[1]))


def test_the_best_scores_are_those_of_the_first() -> None:
    assert best_scores(plan("val/accuracy"), trials((0.5,), (0.75,))) == [0.75]
    assert best_scores(plan("val/accuracy"), trials(None)) is None
