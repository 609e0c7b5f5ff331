"""Compares groups of runs, paired by seed: a row each, the best first, with its difference to a reference.

A group with diverged or failed runs has the mean of the surviving ones, which is too good: it stands below the
complete groups, and is the reference only if there is no complete one, or if it was named.

p values are of paired t-tests over the seeds that both groups have, adjusted by Holm over the rows. A reference that
is the best group was chosen by the same scores, so that p is too small; a baseline is named beforehand.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dltips import metrics
from dltips.errors import ConfigError, suggest
from dltips.formatting import setting_text
from dltips.insight import compare_notes
from dltips.insight.compared_group import ComparedGroup
from dltips.insight.groups import ALL, RunGroup, differing_settings, group_runs
from dltips.insight.statistics import Spread, holm, mean, paired, spread
from dltips.runs.past_runs import USED, PastRun, is_run


@dataclass(frozen=True)
class Comparison:
    metric: str
    better: metrics.Better | None  # None: neither way; rows are sorted by their means, the lowest first
    by: Sequence[str]
    rows: Sequence[ComparedGroup]
    left_out: Sequence[str]  # "2 diverged (init=zeros)"
    left_out_count: int
    notes: Sequence[str]
    baseline: bool = False  # whether the reference was named, instead of being the best

    @property
    def reference(self) -> ComparedGroup | None:
        return next((row for row in self.rows if row.reference), None)


def compare(
    runs: Sequence[PastRun], by: Sequence[str] | None = None, metric: str | None = None, baseline: str | None = None
) -> Comparison:
    """Returns the table of these runs. Raises ConfigError for an unknown setting, metric or baseline."""
    deciding = Counter(_deciding_metric(run) for run in runs if run.status == USED)
    chosen = _chosen_metric(runs, metric, deciding)
    groups = group_runs(runs, by)
    better = _better(runs, chosen)
    rows = _best_first([_compared_group(group, chosen) for group in groups], better)
    reference = next((row for row in rows if row.spread), None)
    if baseline is not None:
        reference = _baseline(baseline, rows, chosen)
    if reference is not None:
        rows = _compared_to(rows, reference)
    averaged_runs = [run for row in rows for run in row.used]
    averaged = set(map(id, averaged_runs))
    left_out = [run for run in runs if id(run) not in averaged]
    notes = compare_notes.order_notes(chosen, better) + compare_notes.metric_notes(metric, deciding)
    notes += compare_notes.survivor_notes(rows)
    notes += compare_notes.row_notes(rows, by, groups) + compare_notes.provenance_notes(averaged_runs)
    return Comparison(
        metric=chosen,
        better=better,
        by=differing_settings(runs) if by is None else list(dict.fromkeys(by)),
        rows=rows,
        left_out=_left_out_counts(left_out, groups, chosen),
        left_out_count=len(left_out),
        notes=notes,
        baseline=baseline is not None,
    )


def _better(runs: Iterable[PastRun], metric: str) -> metrics.Better | None:
    """Returns the direction: of the runs, of a layer's statistic by the table; of an unknown score by its name."""
    recorded = next((better for run in runs if (better := run.better(metric)) is not None), None)
    return recorded or (None if metric.startswith("layers/") else metrics.direction(metric))


def _deciding_metric(run: PastRun) -> str:
    """Returns the metric that chose the run's best epoch."""
    return setting_text(run.settings.get("metric") or run.summary.get("metric") or "val/accuracy")


def _chosen_metric(runs: Iterable[PastRun], asked: str | None, deciding: Counter[str]) -> str:
    """Returns the metric to compare by: the requested one, or the one that most runs decided by. Raises ConfigError."""
    if asked is None:
        return deciding.most_common(1)[0][0] if deciding else "val/accuracy"
    if (goal := metrics.goal(asked)) is None:
        _check_known(runs, asked, metrics.FIGURES)
        return asked
    _check_known(runs, goal.score, ())
    if _better(runs, goal.score) is None:
        raise ConfigError(f"metric: {asked}: neither way of {goal.score} is better, so it cannot be reached")
    return asked


def _check_known(runs: Iterable[PastRun], asked: str, figures: Sequence[str]) -> None:
    """Raises ConfigError for a name that no run has, with the nearest, or with all but the layers' statistics."""
    scores = dict.fromkeys(name for run in runs for name in _best_scores(run)) | dict.fromkeys(figures)
    if asked in scores:
        return
    layers = {name for run in runs for record in run.records()[-1:] for name in record if name.startswith("layers/")}
    if asked not in layers:
        known = layers if asked.startswith("layers/") and layers else scores
        raise ConfigError(f"metric: {asked!r} is not in these runs{suggest(asked, known)}")


def _best_scores(run: PastRun) -> list[str]:
    best = run.summary.get("best")
    return [name for name in best if name != "epoch"] if isinstance(best, dict) else []


def _compared_group(group: RunGroup, metric: str) -> ComparedGroup:
    """Returns a group's mean over its seeds, repeats of one seed averaged first."""
    finished = [run for run in group.runs if run.status == USED]
    values = {id(run): value for run in finished if (value := run.value(metric)) is not None}
    used = [run for run in finished if id(run) in values]
    seeds = replace(group, runs=used).seeds()
    by_seed = {seed: mean([values[id(run)] for run in repeats]) for seed, repeats in seeds.items()}
    averaged = set(map(id, used))
    left_out = Counter(_why_left_out(run, metric) for run in group.runs if id(run) not in averaged)
    seconds, size = _values(used, "seconds"), _values(used, "size_mb")
    return ComparedGroup(
        group=group,
        used=used,
        by_seed=by_seed,
        spread=spread(list(by_seed.values())) if by_seed else None,
        seconds=mean(seconds) if seconds else None,
        size_mb=mean(size) if size else None,
        left_out=left_out,
        lost=_lost(group, used, metric),
    )


def _lost(group: RunGroup, used: Sequence[PastRun], metric: str) -> list[PastRun]:
    """Returns the diverged, failed and goal-missing runs without an averaged one of the same seed and settings."""
    averaged = set(map(id, used))
    lost_statuses = (*compare_notes.LOST_STATUSES, USED) if metrics.goal(metric) else compare_notes.LOST_STATUSES
    lost = [run for run in group.runs if run.status in lost_statuses and id(run) not in averaged]
    if not lost:
        return []
    keys = differing_settings(group.runs)

    def identity(run: PastRun) -> tuple[Any, ...]:
        return (str(run.path) if run.seed is None else run.seed, *(setting_text(run.settings.get(key)) for key in keys))

    averaged_identities = {identity(run) for run in used}
    return list({identity(run): run for run in lost if identity(run) not in averaged_identities}.values())


def _values(runs: Iterable[PastRun], metric: str) -> list[float]:
    return [value for value in (run.value(metric) for run in runs) if value is not None]


def _why_left_out(run: PastRun, metric: str) -> str:
    if run.status != USED:
        return setting_text(run.status)
    return "whose settings cannot be read" if not run.settings else f"without {metric}"


def _best_first(rows: Iterable[ComparedGroup], better: metrics.Better | None) -> list[ComparedGroup]:
    """Sorts the best mean first, groups that lost runs below the complete ones, groups without a mean last."""

    def order(row: ComparedGroup) -> tuple[bool, bool, float]:
        if row.spread is None:
            return (True, True, 0.0)
        return (False, bool(row.lost), -row.spread.mean if better == "higher" else row.spread.mean)

    return sorted(rows, key=order)


def _baseline(asked: str, rows: Sequence[ComparedGroup], metric: str) -> ComparedGroup:
    """Returns the row of a group's label, of some of its settings, or of one of its run folders. Raises ConfigError."""
    matching = [row for row in rows if row.group.label in (asked, " ".join(asked.split()))]
    if not matching and is_run(folder := Path(os.path.expanduser(asked))):
        wanted = os.path.realpath(folder)
        matching = [row for row in rows if any(os.path.realpath(run.path) == wanted for run in row.group.runs)]
        if not matching:
            raise ConfigError(f"baseline: {asked} is not among the runs compared; name its folder as well")
    if not matching and (settings := _typed_settings(asked)):
        matching = [row for row in rows if all(_has_setting(row.group, key, value) for key, value in settings)]
    if not matching:
        raise ConfigError(
            f"baseline: {asked!r} matches no group{_baseline_hint(asked, [row.group.label for row in rows])}"
        )
    if len(matching) > 1:
        raise ConfigError(
            f"baseline: {asked!r} matches {len(matching)} groups; say which, as in '{matching[0].group.label}'"
        )
    if matching[0].spread is None:
        raise ConfigError(
            f"baseline: {matching[0].group.label} has no finished run with {metric}; choose another group"
        )
    return matching[0]


def _baseline_hint(asked: str, labels: Sequence[str]) -> str:
    """Returns the nearest label, or part of one; else the first labels."""
    more = f" and {len(labels) - 5} more" if len(labels) > 5 else ""
    hint = suggest(asked, {*labels, *(pair for label in labels for pair in label.split())})
    return hint.or_else(f"; there is: {', '.join(labels[:5])}{more}")


def _typed_settings(asked: str) -> list[tuple[str, str]]:
    pairs = [tuple(word.split("=", 1)) for word in asked.replace(", ", " ").split()]
    return [(pair[0], pair[1]) for pair in pairs] if all(len(pair) == 2 for pair in pairs) else []


def _has_setting(group: RunGroup, key: str, value: str) -> bool:
    if f"{key}={value}" in group.label.split():
        return True
    return all(key in run.settings and _same_value(setting_text(run.settings[key]), value) for run in group.runs)


def _same_value(shown: str, typed: str) -> bool:
    """Returns whether they are equal as texts or as numbers: 1e-2 is 0.01."""
    try:
        return shown == typed or float(shown) == float(setting_text(float(typed)))
    except ValueError:
        return False


def _compared_to(rows: Sequence[ComparedGroup], reference: ComparedGroup) -> list[ComparedGroup]:
    """Returns the rows with their paired differences to the reference, and p adjusted over all of them."""
    compared = []
    for row in rows:
        shared = [seed for seed in row.by_seed if seed in reference.by_seed]
        if row is reference or not shared:
            compared.append(replace(row, reference=row is reference))
            continue
        result = paired([row.by_seed[seed] for seed in shared], [reference.by_seed[seed] for seed in shared])
        compared.append(replace(row, difference=result.mean, pairs=result.n, p_alone=result.p))
    adjusted = holm([row.p_alone for row in compared])
    return [replace(row, p=p) for row, p in zip(compared, adjusted, strict=True)]


def _left_out_counts(runs: Iterable[PastRun], groups: Sequence[RunGroup], metric: str) -> list[str]:
    """Returns the runs left out of the means, by status: `2 diverged (init=zeros)`."""
    label_of = {id(run): group.label for group in groups for run in group.runs}
    labels_by_reason: dict[str, list[str]] = {}
    for run in runs:
        labels_by_reason.setdefault(_why_left_out(run, metric), []).append(label_of.get(id(run), ALL))
    return [f"{len(labels)} {reason}{compare_notes.group_names(labels)}" for reason, labels in labels_by_reason.items()]


def as_json(comparison: Comparison) -> dict[str, Any]:
    """Returns all of it as plain data, for programs."""
    reference = comparison.reference
    return {
        "metric": comparison.metric,
        "better": comparison.better,
        "by": list(comparison.by),
        "reference": reference.group.label if reference else None,
        "groups": [group_record(row) for row in comparison.rows],
        "left_out": list(comparison.left_out),
        "notes": list(comparison.notes),
    }


def json_value(value: Any) -> Any:
    """Returns a setting for JSON: NaN and infinity, which JSON lacks, become text."""
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return setting_text(value)
    return value


def group_record(row: ComparedGroup) -> dict[str, Any]:
    spread = row.spread or Spread(0, 0.0, None, None, None)
    return {
        "group": row.group.label,
        "settings": {key: json_value(value) for key, value in row.group.settings.items()},
        "n": spread.n,
        "runs": len(row.used),
        "lost": len(row.lost),
        "mean": spread.mean if row.spread else None,
        "deviation": spread.deviation,
        "low": spread.low,
        "high": spread.high,
        "seconds": row.seconds,
        "size_mb": row.size_mb,
        "difference": row.difference,
        "pairs": row.pairs,
        "p": row.p,
        "p_unadjusted": row.p_alone,
        "left_out": dict(row.left_out),
        "folders": [str(run.path) for run in row.group.runs],
    }
