"""Parses the command line's KEY=VALUE in Hydra's own grammar."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override
from hydra.errors import HydraException

from dltips.config.recipes import GROUP
from dltips.errors import ConfigError


def parse(overrides: Iterable[str]) -> list[Override]:
    """Parses the overrides. Raises ConfigError with the first line of the grammar's complaint."""
    return [_parse(override) for override in overrides]


def typed_keys(overrides: Iterable[str]) -> list[str]:
    """Returns the keys and families that were set on the command line."""
    return [override.key_or_group for override in parse(overrides)]


@functools.cache  # half a millisecond each, and a run asks three times
def _parse(override: str) -> Override:
    try:
        return OverridesParser.create().parse_override(override)
    except HydraException as error:
        complaint = str(error).splitlines()[0]
        raise ConfigError(
            f"{override!r}: is not KEY=VALUE as Hydra reads it ({complaint}); quote it as in"
            " 'model.widths=[128,128]' or 'name=\"a b\"'"
        ) from error


def is_hydras(key: str) -> bool:
    """Returns whether it is one of Hydra's own keys or groups: hydra.launcher.partition, hydra/launcher."""
    return key == "hydra" or key.startswith(("hydra.", "hydra/"))


def values(override: Override) -> list[Any]:
    """Returns the value, or all values of a list a,b,c; empty for a range, an interval or a glob."""
    value = override.value()
    if isinstance(value, ChoiceSweep):
        return [value_of(text) for text in override.sweep_string_iterator()]
    return [] if override.is_sweep_override() else [value]


def value_of(text: str) -> Any:
    """Returns the value of a text typed behind KEY=: [8,8] is a list of two numbers."""
    return _parse(f"key={text}").value()


def recipe_names(overrides: Sequence[Override]) -> list[str]:
    """Returns the requested recipes in order; those of every trial in a grid.

    Raises ConfigError if recipe= is given twice or deleted.
    """
    asked = [override for override in overrides if override.key_or_group == GROUP]
    if len(asked) > 1:
        typed = ",".join(str(override.get_value_string()).strip("[]") for override in asked)
        raise ConfigError(f"recipe: is given {len(asked)} times; write 'recipe=[{typed}]', in which the later one wins")
    found: list[str] = []
    for override in asked:
        if override.is_delete():
            raise ConfigError(f"{override.input_line}: leave the recipe out by not naming it")
        for value in values(override):
            found += map(str, value if isinstance(value, list) else [value])
    return found


def refuse_sweeps(overrides: Iterable[Override]) -> None:
    """Raises ConfigError if a single run would get two values of a key."""
    for override in overrides:
        if override.is_sweep_override():
            line = str(override.input_line).lstrip("+")
            raise ConfigError(
                f"{line}: several values need -m: dltips train -m '{line}'; quote a value that contains a comma"
            )


def with_plus(override: str) -> str:
    """Rewrites recipe=x as +recipe=x, the form of the documentation and of Hydra's users."""
    return f"+{override}" if override.startswith(f"{GROUP}=") else override
