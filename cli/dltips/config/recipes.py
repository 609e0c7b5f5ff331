"""Reads recipes: +recipe=NAME is recipes/NAME.yaml.

A recipe is untrusted data: it names tips and sets knobs, nothing more.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from dltips import paths
from dltips.catalog.registry import FAMILIES, STACKABLE
from dltips.errors import ConfigError, suggest

Choice = str | list[str]

GROUP = "recipe"
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*(/[A-Za-z0-9_][A-Za-z0-9_-]*)*")
KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
PLAIN_INTERPOLATION = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_.]*\}")


@dataclass(frozen=True)
class Recipe:
    """A checked recipe file: the recipes it includes, the options it chooses, the values it sets."""

    name: str
    path: Path
    includes: tuple[str, ...]
    choices: Mapping[str, Choice]
    values: Mapping[str, Any]


def names() -> list[str]:
    """Returns the names of all recipes, the user's own included."""
    found = {
        file.relative_to(folder).with_suffix("").as_posix()
        for folder in paths.recipes()
        if folder.is_dir()
        for file in folder.rglob("*.yaml")
        if file.is_file()
    }
    return sorted(found)


def find(name: str) -> Path:
    """Returns a recipe's file. Raises ConfigError with the nearest name or the list."""
    if NAME.fullmatch(name):
        for folder in paths.recipes():
            if (folder / f"{name}.yaml").is_file():
                return folder / f"{name}.yaml"
    raise ConfigError(f"recipe: {name!r} is not a recipe{suggest(name, names())}")


def text_of(name: str) -> str:
    """Returns a recipe's text. Raises ConfigError."""
    path = find(name)
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"recipe {name}: {path} cannot be read: {error}") from error


def read(name: str) -> Recipe:
    """Reads a recipe. Raises ConfigError if it holds anything but options, knobs and plain interpolation."""
    path, text = find(name), text_of(name)
    try:
        values = OmegaConf.to_container(OmegaConf.create(text), resolve=False)
    except (YAMLError, OmegaConfBaseException, ValueError) as error:
        raise ConfigError(f"recipe {name}: {path} cannot be read: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise ConfigError(f"recipe {name}: {path} cannot be read: a value holds itself") from error
    except AssertionError:
        values = None  # OmegaConf only takes a mapping or a list
    if not isinstance(values, dict) or values.get(text.strip(), 0) is None:
        raise ConfigError(f"recipe {name}: {path} is not a mapping of keys to values")
    for line in text.splitlines():
        if re.match(r"\s*#\s*@", line) and line.split() != ["#", "@package", "_global_"]:
            raise ConfigError(f"recipe {name}: {line.strip()!r} is refused; a recipe's package is _global_")
    defaults = values.pop("defaults", None) or []
    refuse_code(name, values, "")
    checked = {str(key): value for key, value in values.items()}
    _refuse_choices(name, checked)
    includes, choices = _read_defaults(name, defaults)
    return Recipe(name, path, includes, choices, checked)


def refuse_code(name: str, value: Any, key: str) -> None:
    """Raises ConfigError for keys that could run commands: Hydra instantiates hydra.callbacks before any task."""
    if isinstance(value, dict):
        for inner_key, inner in value.items():
            path = f"{key}.{inner_key}" if key else str(inner_key)
            if inner_key == "_target_":
                raise ConfigError(f"recipe {name}: {path} is refused; a recipe names tips, never code")
            if inner_key == "hydra":
                raise ConfigError(f"recipe {name}: {path} is refused; set Hydra's own keys on the command line")
            if not isinstance(inner_key, str) or not KEY.fullmatch(inner_key):
                raise ConfigError(f"recipe {name}: {path!r} is refused; a key is a plain name")
            refuse_code(name, inner, path)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            refuse_code(name, inner, f"{key}[{index}]")
    elif isinstance(value, str):
        if value == "???":
            raise ConfigError(f"recipe {name}: {key}: ??? is not a value; give it one, or leave the key out")
        refuse_resolvers(f"recipe {name}: {key}", value)


def _refuse_choices(name: str, values: Mapping[str, Any]) -> None:
    """Raises ConfigError for an option chosen outside the defaults: only those bring its knobs along."""
    for family in FAMILIES:
        section = values.get(family, {})
        if not isinstance(section, dict):
            raise ConfigError(
                f"recipe {name}: {family}: {section!r} is not a section of knobs; choose the option in the defaults"
            )
        for part in section.values() if family in STACKABLE else [section]:
            if isinstance(part, dict) and "name" in part:
                raise ConfigError(
                    f"recipe {name}: {family}: name={part['name']} is refused; choose the option in the defaults"
                )


def refuse_resolvers(where: str, value: str, allowed: re.Pattern[str] = PLAIN_INTERPOLATION) -> None:
    """Raises ConfigError if the text holds an interpolation that does more than name another key."""
    if "${" in allowed.sub("", value) or "${hydra" in value:
        raise ConfigError(f"{where}: {value!r} is refused; only plain interpolation like ${{epochs}} is allowed")


def _read_defaults(name: str, defaults: Any) -> tuple[tuple[str, ...], dict[str, Choice]]:
    if not isinstance(defaults, list):
        raise ConfigError(f"recipe {name}: defaults is not a list")
    includes: list[str] = []
    choices: dict[str, Choice] = {}
    for item in defaults:
        if item == "_self_":
            continue
        group, option = next(iter(item.items())) if isinstance(item, dict) and len(item) == 1 else (GROUP, item)
        group = str(group).removeprefix("override ").strip().removeprefix("/")
        if group == GROUP and isinstance(option, str):
            includes.append(option.removeprefix("/").removeprefix(f"{GROUP}/"))
        elif group in FAMILIES and _is_choice(group, option):
            choices[group] = option
        else:
            raise ConfigError(
                f"recipe {name}: the default {item!r} is refused; a default is `FAMILY: OPTION`"
                f" (families: {', '.join(FAMILIES)}) or `recipe: NAME`"
            )
    return tuple(includes), choices


def _is_choice(group: str, option: Any) -> bool:
    if isinstance(option, list):
        return group in STACKABLE and all(isinstance(item, str) and NAME.fullmatch(item) for item in option)
    return isinstance(option, str) and NAME.fullmatch(option) is not None


def with_includes(name: str, above: tuple[str, ...] = ()) -> Iterator[Recipe]:
    """Returns a recipe after those that it includes, in order of application. Raises ConfigError for a circle."""
    if name in above:
        raise ConfigError(f"recipe {name}: builds on itself ({' -> '.join([*above, name])})")
    recipe = read(name)
    for include in recipe.includes:
        yield from with_includes(include, (*above, name))
    yield recipe


def written_for(name: str, primary: Mapping[str, Choice]) -> dict[str, Choice]:
    """Returns the options that a recipe's values were written for: its own choices, then inherited ones."""
    choices = dict(primary)
    for recipe in with_includes(name):
        choices |= recipe.choices
    return choices


@dataclass(frozen=True)
class Fitted:
    """A recipe's values that fit the final choices, and one text per family whose knobs were ignored."""

    values: Mapping[str, Any]
    left_out: tuple[str, ...]


def fit_to(
    recipe: Recipe, primary: Mapping[str, Choice], final: Mapping[str, Choice], common: Mapping[str, set[str]]
) -> Fitted:
    """Drops the knobs of options that are not chosen in the end; a family's common knobs stay."""
    written = written_for(recipe.name, primary)
    values, left_out = dict(recipe.values), []
    for family in FAMILIES:
        section = values.get(family)
        if not isinstance(section, dict) or _names(written.get(family)) == _names(final.get(family)):
            continue
        if family in STACKABLE:
            chosen = _names(final.get(family))
            off = [key for key in section if key in _names(written.get(family)) and key not in chosen]
        else:
            off = [key for key in section if key not in common.get(family, set())]
        values[family] = {key: value for key, value in section.items() if key not in off}
        if off:
            option = ", ".join(_names(written.get(family)))
            chosen_option = ",".join(_names(final.get(family)))
            left_out.append(
                f"recipe {recipe.name}: ignored {family}.{', '.join(off)}, meant for {family}={option},"
                f" because {family}={chosen_option} was chosen"
            )
    return Fitted(values, tuple(left_out))


def _names(choice: Choice | None) -> list[str]:
    return [] if choice is None else [choice] if isinstance(choice, str) else list(choice)
