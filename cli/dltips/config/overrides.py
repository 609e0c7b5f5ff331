"""What is typed on the command line: KEY=VALUE in Hydra's own grammar, and the recipes it names."""

from __future__ import annotations

import functools
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override
from hydra.errors import HydraException

from dltips.config import recipes
from dltips.config.recipes import GROUP
from dltips.errors import ConfigError


def parse(overrides: list[str]) -> list[Override]:
    """Hydra's own grammar. Errors: ConfigError with the first line of its complaint."""
    return [_parse(override) for override in overrides]


def typed_keys(overrides: list[str]) -> list[str]:
    """The keys and families that were set on the command line."""
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


def recipe_names(overrides: list[Override]) -> list[str]:
    """The recipes that were asked for, in order. Errors: ConfigError for a wrong name."""
    found: list[str] = []
    asked = [override for override in overrides if override.key_or_group == GROUP]
    if len(asked) > 1:
        typed = ",".join(str(override.get_value_string()).strip("[]") for override in asked)
        raise ConfigError(f"recipe: is given {len(asked)} times; write 'recipe=[{typed}]', in which the later one wins")
    for override in asked:
        if override.is_delete():
            raise ConfigError(f"{override.input_line}: leave the recipe out by not naming it")
        for value in values(override):
            found += [str(name) for name in (value if isinstance(value, list) else [value])]
    for name in found:
        # all of them are read before the first run of a grid starts: one may hold what is refused
        list(recipes.with_includes(name))
    # a sweep over recipes names them all: each job then names its own
    return [] if any(override.is_sweep_override() for override in asked) else found


def refuse_sweeps(overrides: list[Override]) -> None:
    """Errors: ConfigError if one run is to have two values of a key."""
    for override in overrides:
        if override.is_sweep_override():
            line = str(override.input_line).lstrip("+")
            raise ConfigError(
                f"{line}: several values are a grid of runs, which -m asks for: dltips train -m '{line}'"
                " (a comma inside one value wants quotes)"
            )


def values(override: Override) -> list[Any]:
    value = override.value()
    if isinstance(value, ChoiceSweep):
        return list(value.list)
    return [] if override.is_sweep_override() else [value]


def with_plus(override: str) -> str:
    """recipe=x is +recipe=x: people type both, Hydra knows the second."""
    return f"+{override}" if override.startswith(f"{GROUP}=") else override
