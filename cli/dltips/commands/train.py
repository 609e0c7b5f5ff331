"""dltips train: compose a config with Hydra, validate it, run it."""

from __future__ import annotations

import math
import os
import sys
from typing import NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from dltips import paths
from dltips.catalog.registry import user_file
from dltips.commands import grid_flags
from dltips.config.composition import Loader, errors_of_one_line, installed
from dltips.errors import ConfigError
from dltips.exit_codes import EXIT_OK, EXIT_USAGE, fail
from dltips.train.parallel.spawn import run_on_devices
from dltips.train.parallel.world import world
from dltips.weights.reachability import refuse_early

COMPARE_SECONDS = 60  # for each strategy, if nothing else is said
SHOW = ("--cfg", "-c", "--info", "-i", "--help", "-h", "--shell-completion", "-sc")  # Hydra's flags that run nothing
REFUSED = ("--version", "--experimental-rerun", "--hydra-help", "--config-path", "-cp", "--config-name", "-cn")


def run(arguments: list[str]) -> int:
    """One run, which Hydra composes and calls back for, or a grid of runs."""
    # argparse takes no flag between two overrides
    arguments = [f"+{argument}" if argument.startswith("recipe=") else argument for argument in arguments]
    multirun = [argument for argument in arguments if argument in ("-m", "--multirun")]
    arguments = [*multirun, *(argument for argument in arguments if argument not in multirun)]
    for argument in arguments:
        if argument.split("=")[0] in REFUSED:
            raise ConfigError(f"{argument}: is no option of dltips train; see dltips train --help")
    arguments, budget = _without_compare(arguments)
    if budget is not None and multirun:
        raise ConfigError("--compare: is for one run, not for a grid; leave out -m")
    if multirun or budget is not None:
        _refuse_several("-m" if multirun else "--compare")
    arguments, asked = grid_flags.split(arguments)
    if asked and not multirun:
        raise ConfigError(f"{asked[0].split('=')[0]}: is for a grid of runs; write dltips train -m ...")
    _check_flags(arguments)
    flags = [argument.split("=")[0] for argument in arguments if argument.startswith("-") and argument not in multirun]
    if not set(flags) & set(SHOW):
        launcher = [argument for argument in arguments if argument.startswith(("hydra/launcher=", "hydra.launcher."))]
        if launcher and not multirun:
            raise ConfigError(f"{launcher[0]}: is for a grid of runs; write dltips train -m {launcher[0]} ...")
        if flags and multirun:
            raise ConfigError(f"{flags[0]}: is not for a grid of runs; leave it out")
        if multirun:
            return _grid(arguments[len(multirun) :], asked)
    return _by_hydra(arguments, budget)


def _by_hydra(arguments: list[str], budget: float | None) -> int:
    """One run, or what Hydra shows of its config."""
    codes: list[int] = []
    failures: list[Exception] = []

    @hydra.main(config_path=str(paths.shipped("configs")), config_name="config", version_base="1.3")
    def task(composed: DictConfig) -> None:
        # Hydra would announce an error with lines of its own, so none gets that far
        try:
            codes.append(_one_run(composed, budget))
        except ConfigError as error:
            codes.append(fail(str(error)))
        except Exception as error:
            failures.append(error)

    # Hydra reads sys.argv, which has no place for a verb, and shows errors in full only if the environment says so
    theirs = sys.argv
    sys.argv = ["dltips train", *arguments]
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        with errors_of_one_line(), installed():
            task()
    finally:
        sys.argv = theirs
    if failures:
        raise failures[0]
    return max(codes, default=EXIT_OK)


def _refuse_several(flag: str) -> None:
    """Errors: ConfigError where torchrun or srun has started several of what is one process's work."""
    place = world(os.environ)
    if place is not None:
        if place.rank:
            sys.exit(EXIT_USAGE)  # the first one says why
        raise ConfigError(
            f"{flag}: {place.size} processes were started (by torchrun or srun), each of which would do all of it;"
            " start one, without them"
        )


def _grid(overrides: list[str], asked: list[str]) -> int:
    options = grid_flags.options(asked)
    for module in paths.user_modules():
        user_file(module)
    from dltips.sweep.grid import run_grid

    return run_grid.run(overrides, run_grid.Options(**options))


def _check_flags(arguments: list[str]) -> None:
    """Errors: ConfigError for a flag that Hydra does not know, before Hydra prints its usage."""
    if not any(argument.startswith("-") for argument in arguments):
        return
    parser = get_args_parser()

    def error(message: str) -> NoReturn:
        raise ConfigError(f"dltips train: {message}; see dltips train --help")

    parser.error = error  # type: ignore[method-assign]
    parser.parse_args([argument for argument in arguments if argument not in ("--help", "-h", "--version")])


def _without_compare(arguments: list[str]) -> tuple[list[str], float | None]:
    """The arguments without `--compare` or `--compare=SECONDS`, and the seconds. Errors: ConfigError."""
    flags = [argument for argument in arguments if argument.split("=")[0] == "--compare"]
    if not flags:
        return arguments, None
    _, _, value = flags[-1].partition("=")
    try:
        budget = float(value or COMPARE_SECONDS)
    except ValueError:
        budget = math.nan
    if not 0 < budget < math.inf:
        raise ConfigError(f"--compare: {value!r} is no number of seconds; write --compare={COMPARE_SECONDS}")
    return [argument for argument in arguments if argument not in flags], budget


def _one_run(composed: DictConfig, budget: float | None) -> int:
    # as they were typed: an interpolation in them is validated before anyone resolves it
    overrides = list(OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False))  # type: ignore[arg-type]
    loader = GlobalHydra.instance().config_loader()
    assert isinstance(loader, Loader)
    finetune = composed.get("finetune") or {}
    refuse_early(finetune.get("source"), finetune.get("file"))
    # torch comes with them: only now
    if budget is not None:
        from dltips.sweep.compare_strategies import compare

        return compare(composed, overrides, loader.left_out, budget)

    def one_run() -> int:
        from dltips.train.run import train

        return train(composed, overrides, loader.left_out)

    return run_on_devices(composed, overrides, sys.argv[1:], one_run)
