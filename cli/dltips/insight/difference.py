"""Compares two runs: settings, results, and provenance."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from dltips.formatting import rounded, setting_text
from dltips.insight.groups import family_order
from dltips.metrics import FIGURES
from dltips.runs.file_names import ENVIRONMENT
from dltips.runs.past_runs import PastRun

ABSENT = "(absent)"
# keys of environment.json or summary.json, in this order
PROVENANCE = ("status", "code_version", "data_hash", "weights_hash", "device", "threads", "platform")


@dataclass(frozen=True)
class Change:
    """One key with different values in two runs. A missing value is not in `values`: {0: .., 1: ..}."""

    key: str
    values: Mapping[int, Any]

    digits: int | None = None  # of a result; None for a setting, which is shown in full

    def shown(self, side: int) -> str:
        value = self.values.get(side)
        if isinstance(value, float) and self.digits is not None:
            return rounded(value, self.digits)
        return setting_text(value, None) if side in self.values else ABSENT


def setting_changes(first: PastRun, second: PastRun) -> list[Change]:
    """Returns the differing settings, family by family, those that only one run has included."""
    return sorted(_changes(first.settings, second.settings), key=lambda change: family_order(change.key)[0])


def result_changes(first: PastRun, second: PastRun) -> list[Change]:
    """Returns the differing scores of the best epoch and figures of the run."""
    names = list(dict.fromkeys(name for run in (first, second) for name in (*_best(run), *FIGURES)))
    values = [{name: value for name in names if (value := run.value(name)) is not None} for run in (first, second)]
    return [replace(change, digits=6) for change in _changes(*values)]


def provenance_changes(first: PastRun, second: PastRun) -> list[Change]:
    """Returns the changes of status, versions, data and machine."""
    changes = _changes(_provenance(first), _provenance(second))
    return sorted(changes, key=lambda change: [*PROVENANCE, change.key].index(change.key))


def _best(run: PastRun) -> Iterable[str]:
    best = run.summary.get("best")
    return [str(name) for name in best] if isinstance(best, dict) else []


def _provenance(run: PastRun) -> dict[str, Any]:
    try:
        environment = json.loads((run.path / ENVIRONMENT).read_bytes())
    except (OSError, ValueError, RecursionError):
        environment = {}
    environment = environment if isinstance(environment, dict) else {}
    facts = {key: run.summary.get(key, environment.get(key)) for key in PROVENANCE} | {"status": run.status}
    versions = environment.get("versions")
    if isinstance(versions, dict):
        facts |= {f"{key} version": value for key, value in versions.items()}
    return {key: value for key, value in facts.items() if value is not None}


def _changes(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Change]:
    changes = []
    for key in dict.fromkeys([*first, *second]):
        values = {side: tree[key] for side, tree in enumerate((first, second)) if key in tree}
        if len({setting_text(value, None) for value in values.values()}) > 1 or len(values) == 1:
            changes.append(Change(key, values))
    return changes
