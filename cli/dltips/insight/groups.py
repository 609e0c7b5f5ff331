"""Groups runs that differ only in their seed, and labels the groups by their differences."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dltips.catalog.registry import FAMILIES, STACKABLE
from dltips.errors import ConfigError, suggest
from dltips.runs.past_runs import PastRun

# Keys that do not decide the result, or over which a group's runs are repeated
IGNORED = frozenset({"seed", "name", "resume", "device", "devices"})
IGNORED_SECTIONS = ("log.", "checkpoint.")
ALL = "all"  # the label of a single group
DIGITS = 12  # digits of a number: 0.1 + 0.2 is 0.3, and no two typed numbers become equal
FEW = 6  # digits in a label, if they distinguish the groups: a sampled number has 17


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
        """Returns the runs by seed. A run of unknown seed is listed under its folder's name."""
        found: dict[int | str, list[PastRun]] = defaultdict(list)
        for run in self.runs:
            found[str(run.path) if run.seed is None else run.seed].append(run)
        return dict(found)


def text(value: Any, digits: int | None = DIGITS) -> str:
    """Returns a setting as typed, 1 and 1.0 alike; None are all the digits that distinguish a number from any other.

    Control characters, which a terminal obeys, are dropped.
    """
    if isinstance(value, str):
        return "".join(char for char in value if char.isprintable())
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, list | tuple):
        return f"[{','.join(text(inner, digits) for inner in value)}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{text(key)}: {text(inner, digits)}' for key, inner in value.items())}}}"
    if isinstance(value, float):
        return repr(value) if digits is None else f"{value:.{digits}g}"
    return json.dumps(value, default=str)


def differing(runs: Iterable[PastRun]) -> list[str]:
    """Returns the settings in which runs differ, apart from the seed and those without effect (the name, the log).

    A knob that only some options have, or whose value comes with the option, differs if it does so among runs of one
    option: of init=he and init=zeros `init` differs, not `init.mode`. A missing setting is not a difference: the run
    may be older than the setting.
    """
    known: dict[str, dict[Any, str]] = defaultdict(dict)
    found: dict[str, None] = {}
    for run in runs:
        for key, value in run.settings.items():
            if key in found or key in IGNORED or key.startswith(IGNORED_SECTIONS):
                continue
            family = key.partition(".")[0]
            owned = family != key and family in FAMILIES and family not in STACKABLE
            option = str(run.settings.get(family)) if owned else None
            shown = text(value)
            if known[key].setdefault(option, shown) != shown:
                found[key] = None
    return sorted(found, key=rank)


def rank(key: str) -> tuple[int, str]:
    """Sorts families in their order, each before its knobs; top-level keys last."""
    family = key.partition(".")[0]
    return (FAMILIES.index(family) if family in FAMILIES else len(FAMILIES), key)


def groups(runs: Sequence[PastRun], by: Sequence[str] | None = None) -> list[RunGroup]:
    """Groups runs by their differences, or by the requested settings; in order of appearance.

    Runs of unknown settings are in no group. Raises ConfigError for a setting that no run has.
    """
    readable = [run for run in runs if run.settings]
    varied = differing(readable)
    keys = varied if by is None else check_keys(by, readable, varied)
    members: dict[tuple[str | None, ...], list[PastRun]] = defaultdict(list)
    for run in readable:
        members[tuple(text(run.settings[key]) if key in run.settings else None for key in keys)].append(run)
    short = _few_digits(keys, [inside[0] for inside in members.values()])
    return [
        RunGroup(
            label(keys, [short.get((key, value), value) for key, value in zip(keys, shown, strict=True)]),
            {key: inside[0].settings[key] for key in keys if key in inside[0].settings},
            inside,
        )
        for shown, inside in members.items()
    ]


def _few_digits(keys: Sequence[str], runs: Sequence[PastRun]) -> dict[tuple[str, str | None], str]:
    """Returns a key's values with few digits, by their full text, if these stay distinct."""
    found: dict[tuple[str, str | None], str] = {}
    for key in keys:
        values = [run.settings[key] for run in runs if key in run.settings]
        few = {text(value): text(value, FEW) for value in values}
        if len(set(few.values())) == len(few):
            found |= {(key, full): short for full, short in few.items()}
    return found


def label(keys: Sequence[str], shown: Sequence[str | None]) -> str:
    """Returns `init=he optimizer.lr=0.1`; settings that the group does not have are left out."""
    if not keys:
        return ALL
    pairs = [f"{text(key)}={value}" for key, value in zip(keys, shown, strict=True) if value is not None]
    return " ".join(pairs) or f"without {' '.join(map(text, keys))}"


def check_keys(by: Sequence[str], runs: Sequence[PastRun], varied: Sequence[str]) -> list[str]:
    """Returns the requested settings, without repeats. Raises ConfigError for one that no run has."""
    known = {key for run in runs for key in run.settings}
    for key in by:
        if key not in known:
            hint = suggest(key, known).or_else(f"; what differs here is {', '.join(varied) or 'the seed alone'}")
            raise ConfigError(f"by: {key!r} is no setting of these runs{hint}")
    return list(dict.fromkeys(by))


def wrapped(label: str, width: int, indent: str = "") -> list[str]:
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
