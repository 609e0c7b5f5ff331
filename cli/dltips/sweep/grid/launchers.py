"""Chooses where a grid's trials run: here, in workers of this machine, or by hydra/launcher=.

hydra/launcher=NAME with its knobs (hydra.launcher.KNOB=VALUE) is plain data in configs/hydra/launcher/NAME.yaml: a
launcher takes frozen trials and yields their outcomes as they come.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from dltips.catalog.registry import check_knobs, knobs_of
from dltips.config.hydra_keys import BASIC
from dltips.errors import ConfigError
from dltips.sweep.trial import Trial, TrialOutcome, run_trial
from dltips.train.context import RunContext

Launcher = Callable[[Sequence[Trial], Path, RunContext], Iterator[TrialOutcome]]

# hydra/launcher=NAME -> the module of launch/ for it, and its package, also the name of the extra
LAUNCHERS = {
    "submitit_local": ("with_submitit", "submitit"),
    "submitit_slurm": ("with_slurm", "submitit"),
    "ray": ("with_ray", "ray"),
}


def run_here(trials: Sequence[Trial], place: Path, context: RunContext) -> Iterator[TrialOutcome]:
    """Runs trials in this process, one after another. Raises KeyboardInterrupt if a stopped one had finished."""
    for number, trial in enumerate(trials, 1):
        outcome = run_trial(trial, place, context)
        yield outcome
        if outcome.status == "interrupted":
            return
        if context.stop.requested and number < len(trials):
            raise KeyboardInterrupt
        gc.collect()  # a net and its hooks form reference cycles; objects from before the first trial are frozen


def launcher_for(chosen: Mapping[str, Any], workers: int) -> Launcher:
    """Returns the chosen launcher with its knobs. Raises ConfigError, also if its package is missing."""
    name = str(chosen["name"])
    if name == BASIC:
        if workers == 1:
            return run_here
        from dltips.sweep.grid.grid_workers import in_workers

        return partial(in_workers, workers)
    if workers != 1:
        raise ConfigError(
            f"--workers: are processes of this machine, but hydra/launcher={name} places the trials itself"
        )
    return _elsewhere(name, {key: value for key, value in chosen.items() if key != "name"})


def _elsewhere(name: str, knobs: Mapping[str, Any]) -> Launcher:
    """Returns a launcher of dltips.sweep.grid.launch, its knobs checked. Raises ConfigError."""
    module_name, package = LAUNCHERS[name]
    if importlib.util.find_spec(package) is None:
        raise ConfigError(f"hydra/launcher={name}: needs {package}; pip install 'dltips[{package}]'")
    module = importlib.import_module(f"dltips.sweep.grid.launch.{module_name}")
    checked = check_knobs("hydra.launcher", knobs, knobs_of(module.Knobs), f"hydra/launcher={name}")
    launcher: Launcher = module.launcher(module.Knobs(**checked))
    return launcher
