"""Writes the notes below a comparison: on its metric, its seeds, its lost runs, its pairs, its data and code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from dltips.formatting import setting_text
from dltips.insight.compared_group import ComparedGroup
from dltips.insight.groups import ALL, RunGroup, differing_settings
from dltips.runs.past_runs import USED, PastRun

# statuses that may be the setting's fault; a pruned or interrupted run says nothing
LOST_STATUSES = ("diverged", "failed")
MOST_NAMED_GROUPS = 5  # groups in a note


def group_names(labels: Iterable[str]) -> str:
    """Returns ` (init=zeros, init=he)`: the groups by name if they are few."""
    names = [name for name in dict.fromkeys(labels) if name != ALL]
    if len(", ".join(names)) > 80:  # the table has each of them anyway
        return f" (in {len(names)} group{'' if len(names) == 1 else 's'})"
    return f" ({', '.join(names)})" if names else ""


def order_notes(metric: str, better: str | None) -> list[str]:
    return [] if better else [f"neither way of {metric} is better: the groups are ordered by it, the lowest first"]


def metric_notes(asked: str | None, deciding: Counter[str]) -> list[str]:
    if len(deciding) < 2:
        return []
    (first, most), *others = deciding.most_common()
    counted = "".join(f", by {name} in {count}" for name, count in others)
    hint = "" if asked else "; --metric compares by another"
    runs = f"{most} run{'' if most == 1 else 's'}"
    return [f"the setting metric differs: the best epoch was chosen by {first} in {runs}{counted}{hint}"]


def survivor_notes(rows: Sequence[ComparedGroup]) -> list[str]:
    """Notes which means are of surviving runs only, and the place of their groups in the order."""
    survivors = [row for row in rows if row.spread and row.lost]
    if not survivors:
        return []
    counts = []
    for row in survivors[:MOST_NAMED_GROUPS]:
        meaning = {**{status: status for status in LOST_STATUSES}, USED: "finished without reaching it"}
        ends = " or ".join(meaning[status] for status in meaning if any(run.status == status for run in row.lost))
        label = "" if row.group.label == ALL else f"{row.group.label} "
        counts.append(f"{label}{len(row.lost)} of {len(row.used) + len(row.lost)} {ends}")
    more = f", and {len(survivors) - MOST_NAMED_GROUPS} more groups" if len(survivors) > MOST_NAMED_GROUPS else ""
    complete = any(row.spread and not row.lost for row in rows)
    where = "; they stand below the complete groups" if complete else "; no group is complete"
    return [f"means of survivors: {', '.join(counts)}{more}{where if len(rows) > 1 else ''}"]


def row_notes(rows: Sequence[ComparedGroup], by: Sequence[str] | None, groups: Sequence[RunGroup]) -> list[str]:
    """Notes how a group's value per seed is computed, and the pairs of each p value."""
    notes = []
    varied = dict.fromkeys(key for group in groups for key in differing_settings(group.runs)) if by is not None else {}
    varied_within = [key for key in varied if key not in (by or ())]
    if varied_within:
        notes.append(
            f"{', '.join(varied_within)} {'differs' if len(varied_within) == 1 else 'differ'} within groups: the"
            " runs of one seed were averaged; --by tells them apart"
        )
    if len({_settings(row.used, varied_within) for row in rows if row.spread}) > 1:
        notes.append(
            f"groups were run with other values of {', '.join(varied_within)}: their differences are of these, too"
        )
    repeated = [row for row in rows if len(row.used) > len(row.by_seed)]
    if repeated and not varied_within:
        notes.append(
            f"a seed was run more than once{group_names(row.group.label for row in repeated)}:"
            " n counts seeds, repeats were averaged"
        )
    return notes + _pair_notes([row for row in rows if row.spread])


def _settings(runs: Iterable[PastRun], keys: Sequence[str]) -> frozenset[tuple[str, ...]]:
    return frozenset(tuple(setting_text(run.settings.get(key)) for key in keys) for run in runs)


def _pair_notes(rows: Sequence[ComparedGroup]) -> list[str]:
    """Notes missing p values, and p values of fewer seeds than n."""
    others = [row for row in rows if not row.reference]
    if len(others) == len(rows) or not others:
        return []
    if all(len(row.by_seed) == 1 for row in rows):
        return ["one seed each: no interval and no p value; run more, as with 'seed=range(5)', in a search seeds=5"]
    notes = []
    for concerned, reason in (
        ([row for row in others if row.pairs == 0], "no seed in common with the group compared to"),
        ([row for row in others if row.pairs == 1], "one seed in common with the group compared to"),
        ([row for row in others if row.pairs > 1 and row.p is None], "the difference is the same for every seed"),
    ):
        if concerned:
            notes.append(f"no p value{group_names(row.group.label for row in concerned)}: {reason}")
    seeds = max(len(row.by_seed) for row in rows if row.reference)
    fewer = [row for row in others if 1 < row.pairs < max(len(row.by_seed), seeds)]
    if fewer:
        notes.append(
            f"differences are over the seeds that both groups have{group_names(row.group.label for row in fewer)}"
        )
    return notes


def provenance_notes(used: Sequence[PastRun]) -> list[str]:
    """Notes whether the runs share data and code."""
    notes = []
    facts: tuple[tuple[str, Callable[[int], str]], ...] = (
        ("data_hash", lambda count: f"the runs are of {count} data sets or splits: their scores are of other samples"),
        ("code_version", lambda count: f"the runs are of {count} versions of the code"),
    )
    for key, sentence in facts:
        values = {setting_text(value) for value in (run.summary.get(key) for run in used) if isinstance(value, str)}
        if len(values) > 1:
            notes.append(f"{sentence(len(values))} ({key} differs)")
    return notes
