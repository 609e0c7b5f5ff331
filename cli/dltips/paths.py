"""Locates configs and recipes (in a checkout or a wheel), the user's own tips, caches and runs."""

import functools
import importlib.util
import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
CHECKOUT = PACKAGE.parent.parent
OUTPUTS = Path("outputs")  # relative to the current folder


def shipped(folder: str) -> Path:
    """Returns the folder `configs` or `recipes`: inside the package in a wheel, beside cli/ in a checkout."""
    inside = PACKAGE / folder
    return inside if inside.is_dir() else CHECKOUT / folder


def configs() -> list[Path]:
    """Returns the folders that hold <family>/<tip>.yaml: ours first, then those of the user's own tips."""
    return [shipped("configs"), *user_configs()]


def recipes() -> list[Path]:
    """Returns the folders of recipes, the first match wins: the user's ./recipes, then the shipped ones."""
    return [Path("recipes").resolve(), shipped("recipes")]


def user_modules() -> list[str]:
    """Returns the modules of the user's own tips: named by DLTIPS_IMPORT (comma-separated), or entry points."""
    named = [name.strip() for name in os.environ.get("DLTIPS_IMPORT", "").split(",") if name.strip()]
    return [*named, *_entry_points()]


@functools.cache  # scans every installed package: 10 ms
def _entry_points() -> tuple[str, ...]:
    import importlib.metadata

    return tuple(entry.value.split(":")[0] for entry in importlib.metadata.entry_points(group="dltips.tips"))


def module_file(name: str) -> Path | None:
    """Returns the file of one of the user's modules, found without importing it."""
    if name.endswith(".py"):
        path = Path(name).expanduser().resolve()
        return path if path.is_file() else None
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin).resolve() if spec and spec.origin else None


def user_configs() -> list[Path]:
    """Returns the YAML folder of each of the user's modules: `configs` beside its file."""
    files = [module_file(name) for name in user_modules()]
    folders = [file.parent / "configs" for file in files if file is not None]
    return [folder for folder in dict.fromkeys(folders) if folder.is_dir()]


def cache() -> Path:
    """Returns the user's cache for dltips: $XDG_CACHE_HOME/dltips, or ~/.cache/dltips."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "dltips"


def data() -> Path:
    """Returns the default of data.root: $DLTIPS_DATA, or `data` in the cache."""
    chosen = os.environ.get("DLTIPS_DATA")
    return Path(chosen).expanduser() if chosen else cache() / "data"
