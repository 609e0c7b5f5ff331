"""What the YAML files of configs/ and of the user's own folders hold: a family's options, and their knobs.

Read for the checks alone, with a fast loader and once per version of a file; Hydra reads them again to compose a run.
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
    """The names that FAMILY=NAME takes. A name with an underscore in front is not an option: _common holds knobs."""
    files = [file for folder in paths.configs() for file in (folder / family).glob("*.yaml")]
    return sorted({file.stem for file in files if not file.stem.startswith("_")})


def primary_knobs() -> dict[str, Any]:
    """The keys of config.yaml with their defaults, sections as mappings."""
    return {key: value for key, value in read(PRIMARY).items() if key not in ("hydra", "defaults")}


def primary_choices() -> dict[str, Any]:
    """The option that config.yaml chooses, by family."""
    chosen = [item for item in read(PRIMARY)["defaults"] if isinstance(item, dict)]
    return {key: option for item in chosen for key, option in item.items() if not key.startswith("override ")}


def knobs(family: str, option: str) -> dict[str, Any]:
    """An option's knobs with their defaults; of a stackable family below the option's name. Empty without a file."""
    found = {key: value for key, value in read(f"{family}/{option}").items() if key not in ("hydra", "defaults")}
    return _without_name(found, deep=True)


def common_knobs(family: str) -> dict[str, Any]:
    """The knobs that all options of a family share, with their defaults."""
    return knobs(family, "_common")


def contains(tree: Mapping[str, Any], path: list[str]) -> bool:
    """Whether the path leads to a knob of the tree."""
    head, *rest = path
    if head not in tree:
        return False
    # an empty mapping is a knob that takes any keys; its tip checks what they mean
    return not rest or (isinstance(tree[head], dict) and (not tree[head] or contains(tree[head], rest)))


def dotted(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The full keys of a tree's values: log.layers."""
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def read(name: str) -> dict[str, Any]:
    """NAME.yaml of the first folder that has it; empty if none has, or if it is not a mapping. Do not change it.

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
    """Without `name`, which says which option of a family it is: it is chosen, never set."""
    return {
        key: _without_name(value, deep=False) if deep and isinstance(value, dict) else value
        for key, value in tree.items()
        if key != "name"
    }
