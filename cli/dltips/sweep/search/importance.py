"""Measures the importance of each parameter of a search: fANOVA (Hutter, Hoos, Leyton-Brown 2014), by Optuna."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

if TYPE_CHECKING:
    from dltips.sweep.search.plan import SearchPlan

ENOUGH = 20  # complete trials: a forest over fewer reflects the sampler's draws, not the parameters
BAR = 20  # characters


def importances(plan: SearchPlan, trials: Sequence[FrozenTrial]) -> dict[str, float] | None:
    """Returns shares of 1, largest first; None for too few trials, a single parameter, or equal scores.

    The share of the objective's variance that a forest of regression trees attributes to each alone. PED-ANOVA, which
    is Optuna's default and needs no scikit-learn, gave init 15 % where init=zeros made every such trial fail (25 trials
    of the digits mlp, he, xavier and zeros; fANOVA 100 %): it compares the best tenth of the trials with the others.
    """
    import optuna
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    whole = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    if len(whole) < ENOUGH or len(plan.space.dimensions) < 2 or len(plan.objectives) > 1:
        return None
    scores = [trial.values[0] for trial in whole]
    if min(scores) == max(scores):
        return None
    study = optuna.create_study(direction=StudyDirection[plan.directions[0].upper()])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study.add_trials(whole)
        try:
            found = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
        except (RuntimeError, AssertionError, ValueError):  # a variance of zero, or one beyond a float, as of 1e308
            return None
    return {key: float(share) for key, share in sorted(found.items(), key=lambda item: -item[1])}


def lines_of(plan: SearchPlan, trials: Sequence[FrozenTrial]) -> list[str]:
    """Returns the report's lines; the reason if there are too few trials."""
    if len(plan.space.dimensions) < 2:
        return []
    found = importances(plan, trials)
    if found is None:
        scores = [trial.values[0] for trial in trials if trial.state is TrialState.COMPLETE]
        why = "the scores lie too far apart" if min(scores) < max(scores) else "all trials score the same"
        if len(scores) < ENOUGH:
            why = f"needs {ENOUGH} complete trials; there are {len(scores)}"
        return [f"parameter importance: {why}"]
    width = max(map(len, found))
    return [
        "importance",
        *(f"  {key:<{width}}  {share:4.0%} {'#' * round(share * BAR)}".rstrip() for key, share in found.items()),
    ]
