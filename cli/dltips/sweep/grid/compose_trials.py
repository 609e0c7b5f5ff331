"""Expands lists, ranges and globs into a grid's trials; composes and freezes them before the first one starts."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.types import Glob, Override
from hydra.errors import HydraException

from dltips.catalog.registry import FAMILIES
from dltips.config import hydra_keys, recipes
from dltips.config.checks import check_form
from dltips.config.composition import compose
from dltips.config.option_files import options
from dltips.config.overrides import is_hydras, parse, recipe_names, typed_keys
from dltips.config.plain import to_plain
from dltips.config.recipes import GROUP
from dltips.config.validation import Config, validate
from dltips.errors import ConfigError, suggest


@dataclass(frozen=True)
class Cell:
    """One trial of the grid: its config, and the values that distinguish it."""

    config: Config
    varied: Mapping[str, Any]

    @property
    def plain(self) -> Mapping[str, Any]:
        return self.config.plain


@dataclass(frozen=True)
class Frozen:
    """A composed grid, which later edits of files do not change."""

    cells: Sequence[Cell]
    varied: Sequence[str]  # keys with several values
    typed: Sequence[str]  # all keys that were set
    notes: Sequence[str]
    launcher: Mapping[str, Any]  # its name and knobs


def freeze(overrides: list[str], zipped: Sequence[Sequence[str]] = ()) -> Frozen:
    """Composes and validates every trial of a grid. Raises ConfigError for the first wrong one."""
    parsed = parse(overrides)
    launcher = hydra_keys.launcher(parsed)
    for name in recipe_names(parsed):
        list(recipes.with_includes(name))  # checks all recipes of the grid before the first trial is composed
    for override in parsed:
        check_form(override)
    # of a key given twice the last value counts, as in a single run
    tasks = list({each.key_or_group: each for each in parsed if not is_hydras(each.key_or_group)}.values())
    swept = {override.key_or_group: override for override in tasks if override.is_sweep_override()}
    _check_resume(tasks)
    composer = _Composer()
    cells = [_cell(composer(job), job, swept) for job in jobs(tasks, zipped)]
    return Frozen(cells, list(swept), typed_keys(overrides), list(composer.notes), launcher)


def jobs(tasks: Sequence[Override], zipped: Sequence[Sequence[str]] = ()) -> list[list[str]]:
    """Returns every trial's overrides: the product of all lists, zipped ones in step. Raises ConfigError."""
    choices = {override.get_key_element(): _lines(override) for override in tasks}
    lengths = {override.key_or_group: len(_lines(override)) for override in tasks if override.is_sweep_override()}
    elements = {override.key_or_group: override.get_key_element() for override in tasks}
    for group in zipped:
        for key in group:
            if "=" in key:
                raise ConfigError(f"--zip: {key!r} is not a key; write --zip=init,activation, and their lists after it")
            if key not in lengths:
                raise ConfigError(f"--zip: {key} has no list of values here{suggest(key, lengths)}")
        if len({lengths[key] for key in group}) > 1:
            counted = ", ".join(f"{key} has {lengths[key]}" for key in group)
            raise ConfigError(f"--zip: lists that go in step are equally long, but {counted} values")
    taken = [key for group in zipped for key in group]
    for key in taken:
        if taken.count(key) > 1:
            raise ConfigError(f"--zip: {key} goes in step with one group only; name it once")
    axes: list[list[tuple[str, ...]]] = []
    for override in tasks:
        key = override.key_or_group
        group = next((group for group in zipped if key in group), [key])
        if group[0] == key:
            columns = [choices[elements[name]] for name in group]
            axes.append(list(zip(*columns, strict=True)))
    return [list(itertools.chain.from_iterable(parts)) for parts in itertools.product(*axes)]


def _lines(override: Override) -> list[str]:
    """Returns one override per value. Raises ConfigError for a range without end."""
    key = override.get_key_element()
    if not override.is_sweep_override():
        return [f"{key}={override.get_value_element_as_str()}"]
    if not override.is_discrete_sweep():
        raise ConfigError(
            f"{override.input_line}: an interval has no list of values; give one (1e-3,1e-2,1e-1), or search it:"
            f" dltips sweep '{override.input_line}'"
        )
    try:
        lines = [f"{key}={value}" for value in _texts(override)]
    except (ValueError, HydraException) as error:
        raise ConfigError(f"{override.input_line}: {' '.join(str(error).split())}") from error
    if not lines:
        raise ConfigError(f"{override.input_line}: holds no value; a range ends before its stop")
    return lines


def _texts(override: Override) -> Iterator[str]:
    """Yields each value of a list as it would be typed alone. Raises ConfigError."""
    value, key = override.value(), override.key_or_group
    if not isinstance(value, Glob):
        yield from override.sweep_string_iterator()
    elif key in FAMILIES:
        yield from value.filter(options(key))
    else:
        raise ConfigError(f"{key}: glob is for the options of a family; write the values")


class _Composer:
    """Composes once per set of options; trials that differ only in values are derived from that."""

    def __init__(self) -> None:
        self._composed: dict[tuple[str, ...], tuple[Mapping[str, Any], dict[str, str]]] = {}
        self.notes: dict[str, None] = {}  # recipe values left out because their option is not chosen, each once

    def __call__(self, job: list[str]) -> Mapping[str, Any]:
        """Returns the config of one trial, as plain data. Raises ConfigError."""
        parsed = parse(job)
        options = tuple(line for line, override in zip(job, parsed, strict=True) if _chooses(override))
        lines = {override.key_or_group: line for line, override in zip(job, parsed, strict=True)}
        found = self._composed.get(options)
        if found is not None:
            plain, before = found
            for override in parsed:
                if before[override.key_or_group] != lines[override.key_or_group]:
                    plain = with_value(plain, override.key_or_group, override.value())
            return plain
        composed, notes = compose(job)
        self.notes |= dict.fromkeys(notes)
        plain = to_plain(composed)
        self._composed[options] = plain, lines
        return plain


def with_value(tree: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    """Returns the tree with another value under a dotted key; shares the rest."""
    head, _, rest = key.partition(".")
    inner = tree.get(head)
    return {**tree, head: with_value(inner if isinstance(inner, Mapping) else {}, rest, value) if rest else value}


def _chooses(override: Override) -> bool:
    """Returns whether an override needs Hydra: it brings other files, or a mapping to merge."""
    return override.key_or_group in (*FAMILIES, GROUP) or isinstance(override.value(), dict)


def _cell(plain: Mapping[str, Any], job: list[str], swept: Mapping[str, Override]) -> Cell:
    varied = {override.key_or_group: override.value() for override in parse(job) if override.key_or_group in swept}
    return Cell(validate(plain), varied)


def _check_resume(tasks: Sequence[Override]) -> None:
    if any(override.key_or_group == "resume" for override in tasks):
        raise ConfigError("resume: is for one run; a grid goes on by itself when the same command is given again")
