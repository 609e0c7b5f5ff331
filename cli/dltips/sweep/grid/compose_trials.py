"""A grid's trials, composed by Hydra and frozen before the first one starts."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hydra import version
from hydra._internal.utils import create_config_search_path
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from dltips import paths
from dltips.catalog.registry import FAMILIES
from dltips.config.composition import Loader, errors_of_one_line, installed
from dltips.config.overrides import parse, typed_keys, with_plus
from dltips.config.plain import to_plain
from dltips.config.recipes import GROUP
from dltips.config.validation import Config, validate
from dltips.errors import ConfigError, suggest


@dataclass(frozen=True)
class Cell:
    """One place of the grid: its config, and the values that set it apart."""

    config: Config
    varied: Mapping[str, Any]

    @property
    def plain(self) -> Mapping[str, Any]:
        return self.config.plain


@dataclass(frozen=True)
class Frozen:
    """A grid as it was asked for; nothing that is edited from now on changes it."""

    cells: Sequence[Cell]
    varied: Sequence[str]  # keys with several values
    typed: Sequence[str]  # all keys that were set
    notes: Sequence[str]
    launcher: Mapping[str, Any]  # name, and its knobs


def freeze(overrides: list[str], zipped: Sequence[Sequence[str]] = ()) -> Frozen:
    """Compose and validate every trial of a grid. Errors: ConfigError for the first that is wrong."""
    version.setbase("1.3")
    overrides = [with_plus(override) for override in overrides]
    with errors_of_one_line(), installed():
        loader = Loader(create_config_search_path(f"file://{paths.shipped('configs')}"))
        master = loader.load_configuration("config", overrides, RunMode.MULTIRUN)
        parsed = parse(overrides)
        _refuse_other_sweepers(parsed)
        # given twice, the last one counts, as in a single run; a glob asks the loader for its options
        last = {override.key_or_group: override for override in parsed if not override.is_hydra_override()}
        tasks = [replace(override, config_loader=loader) for override in last.values()]
        swept = {override.key_or_group: override for override in tasks if override.is_sweep_override()}
        _check_resume(tasks)
        compose = _Composer(loader, master)
        cells = [_cell(compose(job), job, swept) for job in jobs(tasks, zipped)]
        notes = list(compose.notes)
    launcher = to_plain(master.hydra.launcher, resolve=True)
    return Frozen(cells, list(swept), typed_keys(overrides), notes, launcher)


def jobs(tasks: Sequence[Override], zipped: Sequence[Sequence[str]] = ()) -> list[list[str]]:
    """Every trial's overrides: the product of all lists, those that are zipped going in step. Errors: ConfigError."""
    choices = {override.get_key_element(): _lines(override) for override in tasks}
    lengths = {override.key_or_group: len(_lines(override)) for override in tasks if override.is_sweep_override()}
    elements = {override.key_or_group: override.get_key_element() for override in tasks}
    for group in zipped:
        for key in group:
            if "=" in key:
                raise ConfigError(f"--zip: {key!r} is no key; write --zip=init,activation, and their lists after it")
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
    """The override once for each of its values. Errors: ConfigError for a range without end."""
    key = override.get_key_element()
    if not override.is_sweep_override():
        return [f"{key}={override.get_value_element_as_str()}"]
    if not override.is_discrete_sweep():
        raise ConfigError(
            f"{override.input_line}: an interval has no list of values; give one (1e-3,1e-2,1e-1), or search it:"
            f" dltips sweep '{override.input_line}'"
        )
    try:
        values = [f"{key}={value}" for value in override.sweep_string_iterator()]
    except (ValueError, HydraException) as error:
        raise ConfigError(f"{override.input_line}: {' '.join(str(error).split())}") from error
    if not values:
        raise ConfigError(f"{override.input_line}: holds no value; a range ends before its stop")
    return values


class _Composer:
    """Hydra composes once for each set of options; trials that differ in values alone differ in those."""

    def __init__(self, loader: Loader, master: DictConfig) -> None:
        self._loader, self._master = loader, master
        self._composed: dict[tuple[str, ...], tuple[Mapping[str, Any], dict[str, str]]] = {}
        self.notes: dict[str, None] = {}  # what recipes set for options that are not chosen, each once

    def __call__(self, job: list[str]) -> Mapping[str, Any]:
        """The config of one trial, as plain data. Errors: ConfigError."""
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
        whole = self._loader.load_sweep_config(self._master, job)
        self.notes |= dict.fromkeys(self._loader.left_out)
        plain = to_plain(OmegaConf.masked_copy(whole, [str(key) for key in whole if key != "hydra"]))
        self._composed[options] = plain, lines
        return plain


def with_value(tree: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    """The tree with another value under a dotted key; the rest is shared."""
    head, _, rest = key.partition(".")
    inner = tree.get(head)
    return {**tree, head: with_value(inner if isinstance(inner, Mapping) else {}, rest, value) if rest else value}


def _chooses(override: Override) -> bool:
    """Whether it brings other files, or a mapping that is merged: what Hydra alone should do."""
    return override.key_or_group in (*FAMILIES, GROUP) or isinstance(override.value(), dict)


def _cell(plain: Mapping[str, Any], job: list[str], swept: Mapping[str, Override]) -> Cell:
    varied = {override.key_or_group: override.value() for override in parse(job) if override.key_or_group in swept}
    return Cell(validate(plain), varied)


def _refuse_other_sweepers(parsed: Sequence[Override]) -> None:
    for override in parsed:
        if override.key_or_group == "hydra/sweeper" or override.key_or_group.startswith("hydra.sweeper"):
            raise ConfigError(
                f"{override.input_line}: grids are laid out by dltips itself (--zip, --workers, --retry, --dry-run);"
                " to search, use dltips sweep"
            )


def _check_resume(tasks: Sequence[Override]) -> None:
    if any(override.key_or_group == "resume" for override in tasks):
        raise ConfigError("resume: is for one run; a grid goes on by itself when the same command is given again")
