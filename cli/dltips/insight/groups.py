"""Groups runs that differ only in their seed, and labels the groups by their differences."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dltips.catalog.registry import FAMILIES, STACKABLE
from dltips.errors import ConfigError, suggest
from dltips.formatting import setting_text
from dltips.runs.past_runs import PastRun

# Keys that do not decide the result, or over which a group's runs are repeated
IGNORED = frozenset({"seed", "name", "resume", "device", "devices"})
IGNORED_SECTIONS = ("log.", "checkpoint.")
ALL = "all"  # the label of a single group
LABEL_DIGITS = 6  # digits in a label, if they distinguish the groups: a sampled number has 17


@dataclass(frozen=True)
class RunGroup:
    """Runs of the same settings. `settings` are those that distinguish the group; the label shows them.

    There is one run per seed, unless a run was repeated, or groups were requested by fewer settings than differ: then
    `seeds` collects the runs of each seed.
    """

    label: str
    settings: Mapping[str, Any]
    runs: Sequence[PastRun]

    def seeds(self) -> dict[int | str, list[PastRun]]:
        """Returns the runs by seed. A run of unknown seed is listed under its path."""
        runs_by_seed: dict[int | str, list[PastRun]] = defaultdict(list)
        for run in self.runs:
            runs_by_seed[str(run.path) if run.seed is None else run.seed].append(run)
        return dict(runs_by_seed)


def differing_settings(runs: Iterable[PastRun]) -> list[str]:
    """Returns the settings in which runs differ, apart from the seed and those without effect (the name, the log).

    A knob that only some options have, or whose value comes with the option, differs if it does so among runs of one
    option: of init=he and init=zeros `init` differs, not `init.mode`. A missing setting is not a difference: the run
    may be older than the setting.
    """
    known: dict[str, dict[Any, str]] = defaultdict(dict)
    differing: dict[str, None] = {}
    for run in runs:
        for key, value in run.settings.items():
            if key in differing or key in IGNORED or key.startswith(IGNORED_SECTIONS):
                continue
            family = key.partition(".")[0]
            has_options = family != key and family in FAMILIES and family not in STACKABLE
            option = str(run.settings.get(family)) if has_options else None
            typed = setting_text(value)
            if known[key].setdefault(option, typed) != typed:
                differing[key] = None
    return sorted(differing, key=family_order)


def family_order(key: str) -> tuple[int, str]:
    """Sorts families in their order, each before its knobs; top-level keys last."""
    family = key.partition(".")[0]
    return (FAMILIES.index(family) if family in FAMILIES else len(FAMILIES), key)


def group_runs(runs: Sequence[PastRun], by: Sequence[str] | None = None) -> list[RunGroup]:
    """Groups runs by their differences, or by the requested settings; in order of appearance.

    Runs of unknown settings are in no group. Raises ConfigError for a setting that no run has.
    """
    readable = [run for run in runs if run.settings]
    varied = differing_settings(readable)
    keys = varied if by is None else check_keys(by, readable, varied)
    members: dict[tuple[str | None, ...], list[PastRun]] = defaultdict(list)
    for run in readable:
        members[tuple(setting_text(run.settings[key]) if key in run.settings else None for key in keys)].append(run)
    short_values = _short_texts(keys, [group[0] for group in members.values()])
    return [
        RunGroup(
            group_label(keys, [short_values.get((key, value), value) for key, value in zip(keys, texts, strict=True)]),
            {key: group[0].settings[key] for key in keys if key in group[0].settings},
            group,
        )
        for texts, group in members.items()
    ]


def _short_texts(keys: Sequence[str], runs: Sequence[PastRun]) -> dict[tuple[str, str | None], str]:
    """Returns a key's values with few digits, by their full text, if these stay distinct."""
    short_values: dict[tuple[str, str | None], str] = {}
    for key in keys:
        values = [run.settings[key] for run in runs if key in run.settings]
        short_texts = {setting_text(value): setting_text(value, LABEL_DIGITS) for value in values}
        if len(set(short_texts.values())) == len(short_texts):
            short_values |= {(key, full): short for full, short in short_texts.items()}
    return short_values


def group_label(keys: Sequence[str], texts: Sequence[str | None]) -> str:
    """Returns `init=he optimizer.lr=0.1`; settings that the group does not have are left out."""
    if not keys:
        return ALL
    pairs = [f"{setting_text(key)}={value}" for key, value in zip(keys, texts, strict=True) if value is not None]
    return " ".join(pairs) or f"without {' '.join(map(setting_text, keys))}"


def check_keys(by: Sequence[str], runs: Sequence[PastRun], varied: Sequence[str]) -> list[str]:
    """Returns the requested settings, without repeats. Raises ConfigError for one that no run has."""
    known = {key for run in runs for key in run.settings}
    for key in by:
        if key not in known:
            hint = suggest(key, known).or_else(f"; what differs here is {', '.join(varied) or 'the seed alone'}")
            raise ConfigError(f"by: {key!r} is not a setting of these runs{hint}")
    return list(dict.fromkeys(by))


def wrap_label(label: str, width: int, indent: str = "") -> list[str]:
    """Wraps a label in lines of at most `width`, between settings if they fit, else after = or a comma.

    Only a name or a value longer than a line is broken within.
    """
    lines = [""]
    for word in label.split(" "):
        if lines[-1].strip() and len(lines[-1]) + 1 + len(word) <= width:
            lines[-1] += f" {word}"
            continue
        if lines[-1].strip():
            lines.append(indent)
        for piece in re.findall(r"[^=,]*[=,]|[^=,]+", word):
            if len(lines[-1]) + len(piece) > width and lines[-1].strip():
                lines.append(indent)
            while len(lines[-1]) + len(piece) > width:
                room = width - len(lines[-1])
                lines[-1] += piece[:room]
                piece = piece[room:]
                lines.append(indent)
            lines[-1] += piece
    return lines
