"""Reads a search's own settings, KEY=VALUE like those of its runs: number of trials, sampler, pruner, objectives."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dltips import paths
from dltips.catalog import registry
from dltips.catalog.registry import FAMILIES, Count, NonNegative, Positive, Size, check_value, knobs_of
from dltips.config.overrides import parse
from dltips.config.plain import to_plain
from dltips.config.recipes import GROUP, refuse_resolvers
from dltips.config.validation import ENVIRONMENT
from dltips.errors import ConfigError, suggest
from dltips.metrics import FIGURES

MOST_TRIALS = 100_000  # all are inserted at once, and the sampler reads them before each trial
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """The settings with their defaults; `dltips sweep --help` explains them."""

    trials: Count = 20
    timeout: str | float | None = None
    sampler: Literal["random", "tpe", "qmc", "cmaes"] = "tpe"
    pruner: Literal["none", "median", "asha", "hyperband"] = "none"
    objective: list[str] | str | None = None
    seeds: Size = 1
    workers: Size = 1
    storage: str | None = None
    name: str | None = None
    resume: str | None = None
    reduction: Size = 3  # of asha and hyperband: one of so many trials goes on to the next rung
    min_epochs: Size | None = None  # epochs before a pruner judges a trial
    patience: NonNegative = 120.0  # seconds to wait for a lost database
    grace: Positive = 60.0  # seconds without a heartbeat after which a worker elsewhere counts as dead


# Settings in which two commands of one study may differ
MAY_DIFFER = ("trials", "timeout", "workers", "storage", "name", "resume", "patience", "grace")
FLAGS = ("workers",)  # may also be written as --workers 4
# Hydra's keys for the output folders and the draws of a grid, with a search's own
GRID_KEYS = {
    "launcher": "the workers of a search are --workers N, or the same command elsewhere with storage=ADDRESS",
    "sweeper": "a search has its own: sampler=tpe, trials=20",
}


def split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Returns the search's own settings, and the overrides of its runs. Raises ConfigError for an unknown key."""
    own, rest = [], []
    known = [field.name for field in fields(SearchSettings)]
    primary = to_plain(OmegaConf.load(paths.shipped("configs") / "config.yaml"))
    of_a_run = [key for key in primary if key not in ("defaults", "hydra")]
    for override in parse(list(_without_flags(arguments))):
        key, line = override.key_or_group, str(override.input_line)
        if key in known:
            if override.is_sweep_override():
                listed = override.get_value_string()
                remedy = f"write 'objective=[{listed}]'" if key == "objective" else f"write {key}=VALUE"
                raise ConfigError(f"{key}: takes one value, not {listed}; {remedy}")
            own.append(line.lstrip("+"))
        elif key in ("study/name", "study.name", "study", "study_name"):
            raise ConfigError(f"{key}: there is no such key; a study's name is name=NAME")
        elif (instead := _instead(key)) is not None:
            raise ConfigError(f"{line}: is refused; {instead}")
        elif "." not in key and key not in (*of_a_run, *FAMILIES, GROUP) and not override.is_hydra_override():
            raise ConfigError(f"{key}: there is no such key{suggest(key, [*known, *of_a_run, *FAMILIES])}")
        else:
            rest.append(line)
    return own, rest


def _instead(key: str) -> str | None:
    """Returns a search's counterpart of hydra/launcher, hydra.launcher.KNOB and similar keys."""
    head, name, *_ = [*re.split(r"[./]", key), ""]
    return GRID_KEYS.get(name) if head == "hydra" else None


def _without_flags(arguments: Sequence[str]) -> list[str]:
    """Rewrites --workers 4 and --workers=4 as workers=4. Raises ConfigError for any other flag."""
    found, left = [], list(arguments)
    while left:
        argument = left.pop(0)
        name, _, value = argument.removeprefix("--").partition("=")
        if not argument.startswith("-"):
            found.append(argument)
        elif argument.startswith("--") and name in FLAGS:
            if not value and not left:
                raise ConfigError(f"{argument}: wants a number; write {argument} 4")
            found.append(f"{name}={value or left.pop(0)}")
        else:
            hint = "a search is many runs anyway" if argument in ("-m", "--multirun") else "--help says more"
            raise ConfigError(f"{argument}: is not an option of dltips sweep; {hint}")
    return found


def read(own: Sequence[str]) -> SearchSettings:
    """Returns the settings, checked. Raises ConfigError."""
    typed: dict[str, Any] = {}
    for override in parse(list(own)):
        key, value = override.key_or_group, override.value()
        if override.is_delete():
            raise ConfigError(f"{override.input_line}: nothing can be left out; set it to another value")
        if key in typed:
            raise ConfigError(f"{key}: is given twice; once is enough")
        typed[key] = value
    schema = knobs_of(SearchSettings)
    values: dict[str, Any] = {
        field.name: check_value(field.name, _resolved(field.name, typed[field.name]), schema[field.name])
        if field.name in typed
        else field.default
        for field in fields(SearchSettings)
    }
    assert MISSING not in values.values()
    settings = SearchSettings(**values)
    if settings.trials == 0:
        raise ConfigError("trials: 0 is too few; write trials=20")
    if settings.trials > MOST_TRIALS:
        raise ConfigError(f"trials: {settings.trials} is too many; there are at most {MOST_TRIALS:,} in a study")
    if settings.reduction < 2:
        raise ConfigError("reduction: 1 would let every trial go on; write reduction=3")
    if settings.reduction != SearchSettings.reduction and settings.pruner not in ("asha", "hyperband"):
        raise ConfigError(f"reduction: pruner={settings.pruner} has none; write pruner=asha, or leave it out")
    if settings.min_epochs is not None and settings.pruner == "none":
        raise ConfigError("min_epochs: pruner=none looks at no trial; write pruner=asha, or leave it out")
    seconds(settings.timeout)
    names = objectives(settings)
    if settings.pruner != "none" and len(names) > 1:
        raise ConfigError(
            f"pruner: {settings.pruner} judges by one objective, and here are {len(names)}; write pruner=none"
        )
    if settings.pruner != "none" and names[:1] and names[0] in FIGURES:
        raise ConfigError(f"pruner: {settings.pruner} judges by a score of each epoch, which {names[0]} is not")
    return settings


def _resolved(key: str, value: Any) -> Any:
    """Resolves ${oc.env:NAME}. Raises ConfigError."""
    if not isinstance(value, str) or "${" not in value:
        return value
    refuse_resolvers(key, value, ENVIRONMENT)
    try:
        config = OmegaConf.create({key: value})
        assert isinstance(config, DictConfig)
        return config[key]
    except OmegaConfBaseException as error:
        raise ConfigError(f"{key}: {' '.join(str(error).split())}") from error


def seconds(timeout: str | float | None) -> float | None:
    """Returns the seconds of 2h, 30m, 90s, 1h30m or a number. Raises ConfigError."""
    if timeout is None:
        return None
    if isinstance(timeout, int | float):
        total = float(timeout)
    else:
        parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", timeout)
        whole = "".join(number + unit for number, unit in parts) == timeout.replace(" ", "")
        total = sum(float(number) * UNITS[unit] for number, unit in parts) if parts and whole else math.nan
    if not 0 < total < math.inf:
        raise ConfigError(f"timeout: {timeout!r} is not a time; write 2h, 30m or a number of seconds")
    return total


def objectives(settings: SearchSettings) -> list[str]:
    """Returns the names that were typed; empty if the run's own metric decides. Raises ConfigError."""
    typed = settings.objective
    names = [] if typed is None else [typed] if isinstance(typed, str) else list(typed)
    known = [*registry.score_names(), *FIGURES] if names else []
    for name in names:
        if name not in known:
            raise ConfigError(f"objective: {name!r} is not a score of a run{suggest(name, known)}")
        if names.count(name) > 1:
            raise ConfigError(f"objective: {name} is given twice; once is enough")
    if typed is not None and not names:
        raise ConfigError("objective: an empty list decides nothing; write objective=val/accuracy")
    return names


def direction(objective: str) -> str:
    """Returns the direction in Optuna's terms."""
    return "maximize" if registry.direction(objective) == "higher" else "minimize"
