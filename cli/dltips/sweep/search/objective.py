"""The objective of a search: real runs, one or several seeds of a trial's config, whose mean is reported."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from dltips.metrics import FIGURES
from dltips.runs.file_names import read_metrics, read_summary
from dltips.sweep.search.seed_racing import is_clearly_worse
from dltips.sweep.search.space import Space
from dltips.sweep.search.trial_loop import TrialHandle, TrialResult
from dltips.sweep.trial import Trial, TrialOutcome, folder_name, outcome_of, run_trial
from dltips.sweep.worker_process import on_own_device
from dltips.train.context import RunContext

SCORES, FOLDERS, SECONDS, RACED = "scores", "folders", "seconds", "raced"  # attributes of a trial


@dataclass
class Runs:
    """The objective over a space: called with a trial, it trains and returns the result.

    `best` returns the scores by seed of the best trial so far, against which seeds are raced; None: there is none yet.
    """

    space: Space
    objectives: Sequence[str]
    directions: Sequence[str]
    seeds: int
    prunes: bool
    place: Path
    best: Callable[[], Sequence[float] | None]
    code: str = ""  # the hash of the code that the study was made with; "": any
    slot: int = 0
    context: RunContext = field(default_factory=RunContext)

    def __call__(self, asked: TrialHandle) -> TrialResult:
        plain = self.space.plain(asked.values)
        varied = self.space.varied(asked.values)
        scores: list[list[float]] = []
        attributes: dict[str, Any] = {FOLDERS: [], SECONDS: 0.0}
        for index in range(self.seeds):
            trial = self._trial(asked.number, plain, varied, index)
            watch = _Watch(asked, plain["epochs"], self._reported() if index == 0 else None, self.prunes)
            outcome = self._run(trial, watch)
            if watch.error is not None:
                raise watch.error
            attributes[FOLDERS].append(trial.folder)
            attributes[SECONDS] = round(attributes[SECONDS] + outcome.seconds, 3)
            if outcome.status == "interrupted":
                return TrialResult(None, attributes=attributes)
            if outcome.status == "pruned":
                return TrialResult(
                    "pruned", _pruned_value(self.place / trial.folder, self.objectives[0]), None, attributes
                )
            found = self._values(outcome)
            if outcome.status != "finished" or not all(map(math.isfinite, found)):
                why = outcome.error or f"{outcome.status} without {' and '.join(self.objectives)}"
                seed = f"seed {trial.plain['seed']}: " if self.seeds > 1 else ""
                return TrialResult("failed", (), f"{seed}{why}", attributes)
            scores.append(found)
            attributes[SCORES] = [values[0] for values in scores]
            if self._is_out_of_the_race(attributes[SCORES], index):
                attributes[RACED] = f"clearly worse than the best trial after {index + 1} of {self.seeds} seeds"
                return TrialResult("pruned", _means(scores), None, attributes)
        return TrialResult("complete", _means(scores), None, attributes)

    def _trial(self, number: int, plain: Mapping[str, Any], varied: Mapping[str, Any], index: int) -> Trial:
        seeded = {**plain, "seed": plain["seed"] + index}
        trial = Trial(
            number, seeded, {**varied, "seed": seeded["seed"]} if self.seeds > 1 else varied, "", "", self.code
        )
        hashed = trial.config.hash
        return replace(trial, folder=folder_name(number, hashed), hash=hashed)

    def _run(self, trial: Trial, watch: _Watch) -> TrialOutcome:
        done = outcome_of(trial.number, self.place / trial.folder)
        if done is not None and done.status in ("finished", "pruned", "diverged"):
            return done  # its worker died between the end of the run and the report
        context = replace(self.context, watchers=[watch.epoch], ended_as=watch.ended_as)
        return run_trial(on_own_device(trial, self.slot), self.place, context)

    def _values(self, outcome: TrialOutcome) -> list[float]:
        summary = read_summary(outcome.path) or {}
        best = summary.get("best") or {}
        found = [(summary if name in FIGURES else best).get(name) for name in self.objectives]
        return [float(value) if isinstance(value, int | float) else math.nan for value in found]

    def _reported(self) -> str | None:
        """Returns the score that the pruner gets each epoch: None for several objectives, or if it is not a score."""
        first = self.objectives[0]
        return first if len(self.objectives) == 1 and first not in FIGURES else None

    def _is_out_of_the_race(self, scores: Sequence[float], index: int) -> bool:
        if len(self.objectives) > 1 or not 0 < index < self.seeds - 1:
            return False
        best = self.best()
        return best is not None and is_clearly_worse(scores, best, higher=self.directions[0] == "maximize")


class _Watch:
    """Watches a run's epochs, and ends it if the pruner says so, or the worker has to stop."""

    def __init__(self, asked: TrialHandle, epochs: int, metric: str | None, prunes: bool) -> None:
        self.asked, self.epochs, self.metric, self.prunes = asked, epochs, metric, prunes
        self.end: Literal["finished", "pruned", "interrupted"] = "finished"
        self.error: Exception | None = None

    def epoch(self, record: Mapping[str, Any]) -> bool:
        """Returns whether to end. An error here, such as a lost database, is saved: it is not the run's failure."""
        try:
            return self._ends(record)
        except Exception as error:
            self.error, self.end = error, "interrupted"
            return True

    def _ends(self, record: Mapping[str, Any]) -> bool:
        score = record.get(self.metric) if self.metric is not None else None
        if isinstance(score, int | float):
            ends = self.asked.report(int(record["epoch"]), float(score))
            # a finished run need not be pruned
            if ends and self.prunes and record["epoch"] < self.epochs:
                self.end = "pruned"
                return True
        if self.asked.stop() and record["epoch"] < self.epochs:
            self.end = "interrupted"
            return True
        return False

    def ended_as(self) -> Literal["finished", "pruned", "interrupted"]:
        return self.end


def _pruned_value(path: Path, metric: str) -> list[float]:
    records = read_metrics(path)
    value = records[-1].get(metric) if records else None
    return [float(value)] if isinstance(value, int | float) and math.isfinite(value) else []


def _means(scores: Sequence[Sequence[float]]) -> list[float]:
    return [sum(values) / len(values) for values in zip(*scores, strict=True)]
