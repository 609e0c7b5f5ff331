"""A search's pictures: their axes."""

from pathlib import Path
from typing import Any

import pytest
from optuna.trial import FrozenTrial, create_trial

from dltips.sweep.search import search_plots
from dltips.sweep.search.plan import SearchPlan
from dltips.sweep.search.samplers import from_unit
from dltips.sweep.search.search_plots import log_ticks
from dltips.sweep.search.search_settings import SearchSettings
from dltips.sweep.search.space import resolve

QUICK = ("+recipe=quickstart", "log.tensorboard=false", "log.layers=false", "model.widths=[16]")


LR = "optimizer.lr=tag(log,interval(1e-3,1))"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_axis_of_few_trials_has_whole_numbers() -> None:
    plan = planned(LR)
    (axes,) = search_plots.draw_history(plan, told(plan, [0.5, 0.7, 0.6]), [], 0).axes
    assert all(tick == round(tick) for tick in axes.get_xticks())


def planned(*typed: str, **settings: Any) -> SearchPlan:
    return SearchPlan(resolve([*QUICK, *typed]), SearchSettings(**settings), ("val/accuracy",), (), "study")


def told(plan: SearchPlan, values: list[float], **attributes: Any) -> list[FrozenTrial]:
    """Complete trials, one for each value."""
    found = []
    for number, value in enumerate(values):
        params = {
            key: from_unit(each, (number + 0.5) / len(values)) for key, each in plan.space.distributions().items()
        }
        trial = create_trial(
            params=params,
            distributions=plan.space.distributions(),
            value=value,
            user_attrs={"folders": [f"{number:03}-0123abcd"], "seconds": 1.0, **attributes},
        )
        trial.number = number
        found.append(trial)
    return found


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (16, 256, [20, 50, 100, 200]),
        (1e-4, 1, []),
        (20, 700, [20, 50, 100, 200, 500]),
        (60, 90, [60, 90]),
        (0.1, 1, [0.1, 0.2, 0.5, 1]),
    ],
)
def test_the_labels_of_a_short_log_axis_are_few(low: float, high: float, ticks: list[float]) -> None:
    assert log_ticks(low, high) == pytest.approx(ticks)


@pytest.mark.parametrize(
    ("typed", "low", "high"),
    [
        ("optimizer.lr=tag(log,interval(1e-3,1))", 10**-3.09, 10**0.09),
        ("optimizer.momentum=interval(0.5,0.9)", 0.488, 0.912),
        ("init=he,xavier,zeros", -0.5, 2.5),
    ],
)
def test_an_axis_spans_the_dimension_with_a_margin(typed: str, low: float, high: float, tmp_path: Path) -> None:
    plan = planned(typed)
    # two trials inside: the axis is the dimension's, not the values'
    axes = search_plots.draw_slices(plan, told(plan, [0.5, 0.7]), [], 0).axes[0]
    assert axes.get_xlim() == pytest.approx((low, high), rel=1e-6)
