"""Reads the two keys of Hydra's own that dltips takes: hydra/launcher=NAME and hydra.launcher.KNOB=VALUE.

A launcher is plain data, configs/hydra/launcher/NAME.yaml, read here: a Hydra plugin of the same name changes
nothing. All other Hydra keys are refused, since they would have no effect.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from dltips import paths
from dltips.config.option_files import contains, dotted, read
from dltips.config.overrides import is_hydras
from dltips.config.plain import to_plain
from dltips.errors import ConfigError, suggest

LAUNCHER = "hydra/launcher"
KNOB = "hydra.launcher."
BASIC = "basic"  # Hydra's name for "in this process"


def launcher(overrides: Sequence[Override]) -> dict[str, Any]:
    """Returns the launcher's name and its knobs, with interpolations resolved. Raises ConfigError."""
    ours = [override for override in overrides if is_hydras(override.key_or_group)]
    for override in ours:
        _check(override)
    chosen = [override.value() for override in ours if override.key_or_group == LAUNCHER]
    name = _name(chosen[-1]) if chosen else BASIC
    section = OmegaConf.create({"name": BASIC})
    if name != BASIC:
        section = OmegaConf.load(paths.shipped("configs") / LAUNCHER / f"{name}.yaml")  # type: ignore[assignment]
    for override in ours:
        if override.key_or_group != LAUNCHER:
            key = override.key_or_group.removeprefix(KNOB)
            _check_knob(override, name, key)
            OmegaConf.update(section, key, override.value(), merge=True, force_add=True)
    return to_plain(section, resolve=True)


def refuse_launcher(overrides: Sequence[Override]) -> None:
    """Raises ConfigError for a launcher, or any other Hydra key, given to a single run."""
    for override in overrides:
        key, line = override.key_or_group, str(override.input_line)
        if is_hydras(key):
            _check(override)
            if key == LAUNCHER:
                _name(override.value())
            raise ConfigError(f"{line}: is for a grid of runs; write dltips train -m {line} ...")


def _check(override: Override) -> None:
    """Raises ConfigError for any Hydra key but the launcher and its knobs, and for a grid over them."""
    key, line = override.key_or_group, str(override.input_line)
    if key.startswith(("hydra.run.", "hydra.sweep.", "hydra.output_subdir", "hydra.job.chdir")):
        raise ConfigError(f"{line}: is refused; runs lie under ./outputs, and name=NAME shows in their folder's name")
    if key.startswith(("hydra/sweeper", "hydra.sweeper")):
        raise ConfigError(
            f"{line}: grids are laid out by dltips itself (--zip, --workers, --retry, --dry-run);"
            " to search, use dltips sweep"
        )
    if override.package is not None:
        raise ConfigError(f"{line}: a package cannot be set here; write {key}=OPTION")
    if key != LAUNCHER and not key.startswith(KNOB):
        raise ConfigError(f"{line}: is refused; of Hydra's own keys there are {LAUNCHER}=NAME and {KNOB}KNOB=VALUE")
    if override.is_delete():
        raise ConfigError(f"{line}: nothing can be left out; set it to another value")
    if override.is_sweep_override():
        raise ConfigError(f"{line}: all runs of a grid have the same launcher; give one value")


def _name(value: Any) -> str:
    """Returns the launcher's name. Raises ConfigError if it does not exist."""
    if value == "joblib":  # an earlier launcher that did the same as --workers
        raise ConfigError(f"{LAUNCHER}=joblib: does not exist any more; write --workers N in its place")
    known = [BASIC, *(file.stem for file in (paths.shipped("configs") / LAUNCHER).glob("*.yaml"))]
    if value not in known:
        raise ConfigError(f"{LAUNCHER}: {value!r} is not a launcher{suggest(str(value), known)}")
    return str(value)


def _check_knob(override: Override, name: str, key: str) -> None:
    """Raises ConfigError for a knob that the launcher does not have."""
    if name == BASIC:
        raise ConfigError(f"{override.input_line}: belongs to a launcher; write {LAUNCHER}=NAME as well")
    known: Mapping[str, Any] = {knob: value for knob, value in read(f"{LAUNCHER}/{name}").items() if knob != "name"}
    if not contains(known, key.split(".")):
        raise ConfigError(f"{KNOB}{key}: {LAUNCHER}={name} has no such key{suggest(key, dotted(known))}")
