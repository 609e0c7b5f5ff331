"""Reads the YAML files of configs/ and of the user's own folders: a family's options and their knobs.

The checks read them with a fast loader, once per version of a file; Hydra reads them again to compose a run, common
knobs (`_common.yaml`) by the defaults list of config.yaml.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from dltips import paths
from dltips.errors import ConfigError

try:
    from yaml import CSafeLoader as Loader  # 10 times as fast
except ImportError:  # PyYAML without libyaml
    from yaml import SafeLoader as Loader  # type: ignore[assignment]

PRIMARY = "config"  # configs/config.yaml


def options(family: str) -> list[str]:
    """Returns the names that FAMILY=NAME takes. Files with a leading underscore hold common knobs and are left out."""
    files = [file for folder in paths.configs() for file in (folder / family).glob("*.yaml")]
    return sorted({file.stem for file in files if not file.stem.startswith("_")})


def primary_knobs() -> dict[str, Any]:
    """Returns the keys of config.yaml with their defaults, sections as mappings."""
    return {key: value for key, value in read(PRIMARY).items() if key not in ("hydra", "defaults")}


def primary_choices() -> dict[str, Any]:
    """Returns the option that config.yaml chooses, by family."""
    chosen = [item for item in read(PRIMARY)["defaults"] if isinstance(item, dict)]
    return {key: option for item in chosen for key, option in item.items() if not key.startswith("override ")}


def knobs(family: str, option: str) -> dict[str, Any]:
    """Returns an option's knobs with defaults, nested by name in a stackable family; empty without a file."""
    found = {key: value for key, value in read(f"{family}/{option}").items() if key not in ("hydra", "defaults")}
    return _without_name(found, deep=True)


def common_knobs(family: str) -> dict[str, Any]:
    """Returns the knobs that all options of a family share, with their defaults."""
    return knobs(family, "_common")


def contains(tree: Mapping[str, Any], path: list[str]) -> bool:
    """Returns whether the path leads to a knob of the tree."""
    head, *rest = path
    if head not in tree:
        return False
    # an empty mapping is a knob that takes any key; its tip checks the keys
    return not rest or (isinstance(tree[head], dict) and (not tree[head] or contains(tree[head], rest)))


def dotted(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yields the full keys of a tree's values: log.layers."""
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def read(name: str) -> dict[str, Any]:
    """Reads NAME.yaml from the first folder that has it; empty if none has it. The result must not be changed.

    Raises ConfigError for a file that is not YAML.
    """
    for folder in paths.configs():
        file = folder / f"{name}.yaml"
        try:
            state = file.stat()
        except OSError:
            continue
        return _parsed(file, state.st_mtime_ns, state.st_size)
    return {}


@functools.cache
def _parsed(file: Path, modified: int, size: int) -> dict[str, Any]:
    try:
        with file.open("rb") as stream:
            found = yaml.load(stream, Loader=Loader)
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"a YAML file cannot be read: {file}: {' '.join(str(error).split())}") from error
    return {str(key): value for key, value in found.items()} if isinstance(found, dict) else {}


def _without_name(tree: dict[str, Any], *, deep: bool) -> dict[str, Any]:
    """Drops `name`, which names the option and cannot be set."""
    return {
        key: _without_name(value, deep=False) if deep and isinstance(value, dict) else value
        for key, value in tree.items()
        if key != "name"
    }
