"""Ranks the completed trials of a search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from dltips.sweep.search.objective import SCORES
from dltips.sweep.search.plan import SearchPlan
from dltips.sweep.search.study import Study


def done(study: Study) -> int:
    return sum(count for state, count in study.counts().items() if state.is_finished())


def ranked(plan: SearchPlan, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Returns the complete trials, best first; of several objectives the Pareto front first, by the first objective."""
    signs = [-1.0 if side == "maximize" else 1.0 for side in plan.directions]
    whole = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    front = {trial.number for trial in pareto(plan, whole)}

    def rank(trial: FrozenTrial) -> tuple[Any, ...]:
        return (trial.number not in front, [s * v for s, v in zip(signs, trial.values, strict=True)], trial.number)

    return sorted(whole, key=rank) if len(signs) > 1 else sorted(whole, key=lambda trial: rank(trial)[1:])


def pareto(plan: SearchPlan, whole: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Returns the trials that no other beats in one objective without being worse in another."""
    signs = [-1.0 if side == "maximize" else 1.0 for side in plan.directions]
    costs = [[s * v for s, v in zip(signs, trial.values, strict=True)] for trial in whole]

    def beaten(mine: Sequence[float]) -> bool:
        return any(theirs != mine and all(a <= b for a, b in zip(theirs, mine, strict=True)) for theirs in costs)

    return [trial for trial, mine in zip(whole, costs, strict=True) if not beaten(mine)]


def best_scores(plan: SearchPlan, trials: Sequence[FrozenTrial]) -> Sequence[float] | None:
    """Returns the scores by seed of the best trial so far that ran all seeds."""
    order = ranked(plan, trials)
    return order[0].user_attrs.get(SCORES) if order else None
