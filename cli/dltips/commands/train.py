"""dltips train: composes a config, validates it, runs it; with -m a grid of runs."""

from __future__ import annotations

import math
import os
import sys
from argparse import Namespace

from dltips import paths
from dltips.catalog.registry import user_file
from dltips.commands import grid_flags
from dltips.commands.arguments import Parser
from dltips.errors import ConfigError
from dltips.exit_codes import EXIT_OK, EXIT_USAGE
from dltips.train.parallel.world import world_from

COMPARE_SECONDS = 60  # for each strategy, by default
HELP = "see dltips train --help"
OWN_OPTIONS = "your own options are found by DLTIPS_IMPORT=FILE.py, in configs/ beside that file"
# Hydra's flags without a meaning here, each with its replacement
REFUSED = {
    **dict.fromkeys(("--version", "--experimental-rerun", "--hydra-help"), HELP),
    **dict.fromkeys(("--config-path", "-cp", "--config-name", "-cn"), HELP),
    **dict.fromkeys(("--config-dir", "-cd"), OWN_OPTIONS),
    **dict.fromkeys(("--shell-completion", "-sc"), "see dltips completion --help"),
}


def run(arguments: list[str]) -> int:
    """Runs once, runs a grid, or prints a config instead; returns the exit code."""
    for argument in arguments:
        if remedy := REFUSED.get(argument.split("=")[0]):
            raise ConfigError(f"{argument}: is not an option of dltips train; {remedy}")
    arguments, budget = _without_compare(arguments)
    arguments, asked = grid_flags.split(arguments)
    chosen = _parser().parse_intermixed_args(arguments)
    if budget is not None and chosen.multirun:
        raise ConfigError("--compare: is for one run, not for a grid; leave out -m")
    if chosen.multirun or budget is not None:
        _refuse_several("-m" if chosen.multirun else "--compare")
    if asked and not chosen.multirun:
        raise ConfigError(f"{asked[0].split('=')[0]}: is for a grid of runs; write dltips train -m ...")
    if chosen.cfg is None and (chosen.package is not None or chosen.resolve):
        raise ConfigError(f"--{'resolve' if chosen.resolve else 'package'}: goes with --cfg; write --cfg job as well")
    if chosen.multirun and (chosen.cfg or chosen.info) and _has_several_values(chosen.overrides):
        shown = "--cfg" if chosen.cfg else "--info"
        raise ConfigError(f"{shown}: is for one run, not for a grid; leave out -m, and give each key one value")
    if chosen.help or chosen.cfg or chosen.info:
        return _show(chosen)
    if chosen.multirun:
        return _grid(chosen.overrides, asked)
    return _one_run(chosen.overrides, budget)


def _parser() -> Parser:
    parser = Parser(prog="dltips train", add_help=False, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--help", "-h", action="store_true")
    parser.add_argument("--multirun", "-m", action="store_true")
    parser.add_argument("--run", "-r", action="store_true")  # the default anyway
    parser.add_argument("--cfg", "-c", choices=["job", "hydra", "all"])
    parser.add_argument("--package", "-p")
    parser.add_argument("--resolve", action="store_true")
    parser.add_argument("--info", "-i", nargs="?", const="all", choices=["all", "config", "defaults", "searchpath"])
    return parser


def _has_several_values(overrides: list[str]) -> bool:
    from dltips.config.overrides import parse

    return any(override.is_sweep_override() for override in parse(overrides))


def _show(chosen: Namespace) -> int:
    from dltips.commands import show_composition

    if chosen.help:
        text = show_composition.help_of(chosen.overrides)
    elif chosen.info:
        text = show_composition.info_of(chosen.overrides, chosen.info)
    else:
        text = show_composition.config_of(chosen.overrides, chosen.cfg, chosen.package, resolve=chosen.resolve)
    print(text, end="")
    return EXIT_OK


def _refuse_several(flag: str) -> None:
    """Raises ConfigError if torchrun or srun has started several processes of a command that needs one."""
    place = world_from(os.environ)
    if place is not None:
        if place.rank:
            sys.exit(EXIT_USAGE)  # only the first one reports the reason
        raise ConfigError(
            f"{flag}: {place.size} processes were started (by torchrun or srun), each of which would do all of it;"
            " start one, without them"
        )


def _grid(overrides: list[str], asked: list[str]) -> int:
    options = grid_flags.options(asked)
    for module in paths.user_modules():
        user_file(module)  # before torch, whose import takes two seconds
    from dltips.sweep.grid import run_grid

    return run_grid.run(overrides, run_grid.Options(**options))


def _without_compare(arguments: list[str]) -> tuple[list[str], float | None]:
    """Returns the arguments without `--compare[=SECONDS]`, and the seconds. Raises ConfigError."""
    flags = [argument for argument in arguments if argument.split("=")[0] == "--compare"]
    if not flags:
        return arguments, None
    _, _, value = flags[-1].partition("=")
    try:
        budget = float(value or COMPARE_SECONDS)
    except ValueError:
        budget = math.nan
    if not 0 < budget < math.inf:
        raise ConfigError(f"--compare: {value!r} is not a number of seconds; write --compare={COMPARE_SECONDS}")
    return [argument for argument in arguments if argument not in flags], budget


def _one_run(overrides: list[str], budget: float | None) -> int:
    from dltips.config.composition import compose
    from dltips.weights.reachability import refuse_early

    composed, left_out = compose(overrides)
    finetune = composed.get("finetune") or {}
    refuse_early(finetune.get("source"), finetune.get("file"))
    # late: they import torch
    if budget is not None:
        from dltips.sweep.compare_strategies import compare

        return compare(composed, overrides, left_out, budget)

    def one_run() -> int:
        from dltips.train.run import train

        return train(composed, overrides, left_out)

    from dltips.train.parallel.spawn import run_on_devices

    return run_on_devices(composed, overrides, overrides, one_run)
