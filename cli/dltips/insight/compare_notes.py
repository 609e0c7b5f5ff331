"""Writes the notes below a comparison: on its metric, its seeds, its lost runs, its pairs, its data and code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from dltips.insight.compared_group import ComparedGroup
from dltips.insight.groups import ALL, RunGroup, differing, text
from dltips.runs.past_runs import USED, PastRun

LOST = ("diverged", "failed")  # statuses that may be the setting's fault; a pruned or interrupted run says nothing
NAMED = 5  # groups in a note


def named(labels: Iterable[str]) -> str:
    """Returns ` (init=zeros, init=he)`: the groups by name if they are few."""
    names = [name for name in dict.fromkeys(labels) if name != ALL]
    if len(", ".join(names)) > 80:  # the table has each of them anyway
        return f" (in {len(names)} group{'' if len(names) == 1 else 's'})"
    return f" ({', '.join(names)})" if names else ""


def of_order(metric: str, better: str | None) -> list[str]:
    return [] if better else [f"neither way of {metric} is better: the groups are ordered by it, the lowest first"]


def of_metrics(asked: str | None, deciding: Counter[str]) -> list[str]:
    if len(deciding) < 2:
        return []
    (first, most), *others = deciding.most_common()
    counted = "".join(f", by {name} in {count}" for name, count in others)
    hint = "" if asked else "; --metric compares by another"
    runs = f"{most} run{'' if most == 1 else 's'}"
    return [f"the setting metric differs: the best epoch was chosen by {first} in {runs}{counted}{hint}"]


def of_survivors(rows: Sequence[ComparedGroup]) -> list[str]:
    """Notes which means are of surviving runs only, and the place of their groups in the order."""
    some = [row for row in rows if row.spread and row.lost]
    if not some:
        return []
    parts = []
    for row in some[:NAMED]:
        ways = {**{why: why for why in LOST}, USED: "finished without reaching it"}
        became = " or ".join(ways[why] for why in ways if any(run.status == why for run in row.lost))
        label = "" if row.group.label == ALL else f"{row.group.label} "
        parts.append(f"{label}{len(row.lost)} of {len(row.used) + len(row.lost)} {became}")
    more = f", and {len(some) - NAMED} more groups" if len(some) > NAMED else ""
    complete = any(row.spread and not row.lost for row in rows)
    where = "; they stand below the complete groups" if complete else "; no group is complete"
    return [f"means of survivors: {', '.join(parts)}{more}{where if len(rows) > 1 else ''}"]


def of_rows(rows: Sequence[ComparedGroup], by: Sequence[str] | None, made: Sequence[RunGroup]) -> list[str]:
    """Notes how a group's value per seed is computed, and the pairs of each p value."""
    notes = []
    within = dict.fromkeys(key for group in made for key in differing(group.runs)) if by is not None else {}
    inside = [key for key in within if key not in (by or ())]
    if inside:
        notes.append(
            f"{', '.join(inside)} {'differs' if len(inside) == 1 else 'differ'} within groups: the runs of one seed"
            " were averaged; --by tells them apart"
        )
    if len({_settings(row.used, inside) for row in rows if row.spread}) > 1:
        notes.append(f"groups were run with other values of {', '.join(inside)}: their differences are of these, too")
    repeated = [row for row in rows if len(row.used) > len(row.by_seed)]
    if repeated and not inside:
        notes.append(
            f"a seed was run more than once{named(row.group.label for row in repeated)}:"
            " n counts seeds, repeats were averaged"
        )
    return notes + _pair_notes([row for row in rows if row.spread])


def _settings(runs: Iterable[PastRun], keys: Sequence[str]) -> frozenset[tuple[str, ...]]:
    return frozenset(tuple(text(run.settings.get(key)) for key in keys) for run in runs)


def _pair_notes(rows: Sequence[ComparedGroup]) -> list[str]:
    """Notes missing p values, and p values of fewer seeds than n."""
    others = [row for row in rows if not row.reference]
    if len(others) == len(rows) or not others:
        return []
    if all(len(row.by_seed) == 1 for row in rows):
        return ["one seed each: no interval and no p value; run more, as with 'seed=range(5)', in a search seeds=5"]
    notes = []
    for chosen, why in (
        ([row for row in others if row.pairs == 0], "no seed in common with the group compared to"),
        ([row for row in others if row.pairs == 1], "one seed in common with the group compared to"),
        ([row for row in others if row.pairs > 1 and row.p is None], "the difference is the same for every seed"),
    ):
        if chosen:
            notes.append(f"no p value{named(row.group.label for row in chosen)}: {why}")
    seeds = max(len(row.by_seed) for row in rows if row.reference)
    fewer = [row for row in others if 1 < row.pairs < max(len(row.by_seed), seeds)]
    if fewer:
        notes.append(f"differences are over the seeds that both groups have{named(row.group.label for row in fewer)}")
    return notes


def of_provenance(used: Sequence[PastRun]) -> list[str]:
    """Notes whether the runs share data and code."""
    notes = []
    what: tuple[tuple[str, Callable[[int], str]], ...] = (
        ("data_hash", lambda count: f"the runs are of {count} data sets or splits: their scores are of other samples"),
        ("code_version", lambda count: f"the runs are of {count} versions of the code"),
    )
    for key, say in what:
        values = {text(value) for value in (run.summary.get(key) for run in used) if isinstance(value, str)}
        if len(values) > 1:
            notes.append(f"{say(len(values))} ({key} differs)")
    return notes
