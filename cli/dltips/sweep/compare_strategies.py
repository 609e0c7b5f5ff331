"""`dltips train finetune=auto --compare`: trains four strategies under one time budget and judges auto's choice."""

from __future__ import annotations

import math
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from dltips import paths
from dltips.config.overrides import typed_keys
from dltips.config.plain import to_plain
from dltips.config.validation import Config, validate
from dltips.errors import ConfigError, OutputError
from dltips.exit_codes import EXIT_DIVERGED, EXIT_INTERRUPTED, EXIT_OK
from dltips.feed.dataset_cache import DatasetCache
from dltips.metrics import is_better
from dltips.nets.stages import stages_of
from dltips.runs import folder
from dltips.runs.file_names import read_summary
from dltips.train.build import build_run
from dltips.train.context import RunContext
from dltips.train.run import run_once

STRATEGIES = ("linear_probe", "top_layers", "most_layers", "earlier_stage_svm")


@dataclass(frozen=True)
class StrategyOutcome:
    """The outcome of one strategy within its time."""

    strategy: str
    folder: str
    summary: Mapping[str, Any]
    seconds: float  # from reading the data to the last epoch


def compare(composed: DictConfig, overrides: list[str], notes: list[str], seconds: float) -> int:
    """Asks auto, runs all four, prints the table; returns the exit code. Raises ConfigError.

    A strategy starts no epoch after so many seconds; features and fits, which come first, are not cut short.
    """
    config = validate(composed)
    if config.tip("finetune").name != "auto":
        raise ConfigError(
            f"--compare: runs the strategies among which finetune=auto chooses, but finetune is"
            f" {config.tip('finetune').name}; write finetune=auto"
        )
    if config.settings.resume is not None:
        raise ConfigError("--compare: begins runs of its own; leave resume out")
    folder.check_writable()
    store = DatasetCache()
    asked = build_run(config, datasets=store)
    chosen = asked.plan.strategy
    stages = len(stages_of(asked.training.net.module)) - 1 if asked.plan.top is None else math.inf
    trials = {strategy: validate(_with(config, strategy, stages)) for strategy in STRATEGIES}
    for note in (*notes, *asked.notes):
        print(_folded(note), flush=True)
    count = len(asked.splits.val)
    outcomes, codes, refused, reported = [], [], [], {*notes, *asked.notes}
    for strategy, trial in trials.items():
        started = time.perf_counter()
        try:
            context = RunContext(
                typed_keys(overrides),
                reported=reported,
                datasets=store,
                prints_report=False,
                watchers=[until(started + seconds)],
            )
            code, path = run_once(trial, None, context)
        except OutputError:
            raise
        except ConfigError as error:  # this strategy may not fit the settings of the others
            refused.append(f"{strategy} is left out: {error}")
            continue
        codes.append(code)
        if code == EXIT_INTERRUPTED:
            rest = STRATEGIES[STRATEGIES.index(strategy) + 1 :]
            refused.append(f"interrupted in {strategy}: {', '.join(rest) or 'nothing'} not run")
            break
        summary = read_summary(path) or {}
        outcomes.append(StrategyOutcome(strategy, str(path), summary, time.perf_counter() - started))
    lines = table(outcomes, chosen, config.settings.metric, seconds, count) if outcomes else []
    print("\n".join([*lines, *map(_folded, refused)]), flush=True)
    if EXIT_INTERRUPTED in codes:
        return EXIT_INTERRUPTED
    return EXIT_DIVERGED if EXIT_DIVERGED in codes else max(codes, default=EXIT_OK)


def until(deadline: float) -> Callable[[Mapping[str, Any]], bool]:
    """Returns a watcher that ends a run at the first epoch after the deadline, of time.perf_counter()."""
    return lambda record: time.perf_counter() > deadline


def _folded(text: str) -> str:
    """Wraps a text at words, for a terminal."""
    if not sys.stdout.isatty():
        return text
    return textwrap.fill(text, shutil.get_terminal_size().columns, break_long_words=False, break_on_hyphens=False)


def _with(config: Config, strategy: str, stages: float) -> DictConfig:
    """Returns the config with another strategy, which keeps auto's knobs if it has them, within the net's stages."""
    section = dict(config.plain["finetune"])
    own = to_plain(OmegaConf.load(paths.shipped("configs") / "finetune" / f"{strategy}.yaml"))
    shared = to_plain(OmegaConf.load(paths.shipped("configs") / "finetune" / "_common.yaml"))
    knobs = {key: section.get(key, value) for key, value in own.items() if key != "name"}
    for key in {"n", "freeze_first"} & set(knobs):
        knobs[key] = min(knobs[key], stages)
    plain = dict(config.plain)
    if strategy == "earlier_stage_svm":  # which is fitted once, to samples without augmentation
        plain["augmentation"] = {"none": {"name": "none"}}
        plain["data"] = {**config.plain["data"], "balance": "none"}
    plain["finetune"] = {"name": strategy} | {key: section[key] for key in shared} | knobs
    plain["name"] = "-".join(filter(None, (config.settings.name, strategy)))
    return OmegaConf.create(plain)


def table(outcomes: Sequence[StrategyOutcome], chosen: str, metric: str, seconds: float, count: int) -> list[str]:
    """Returns the table of strategies, best first, and the verdict on auto's choice."""

    def score(outcome: StrategyOutcome) -> float | None:
        best = outcome.summary.get("best")
        return None if best is None else best[metric]

    ranked = [outcome for outcome in outcomes if score(outcome) is not None]
    ranked.sort(key=lambda outcome: score(outcome) or 0.0, reverse=is_better(metric, 1.0, 0.0))
    rows = [("strategy", metric, "epochs", "seconds", "trained")]
    for outcome in [*ranked, *(outcome for outcome in outcomes if outcome not in ranked)]:
        value, last = score(outcome), outcome.summary.get("last") or {}
        rows.append(
            (
                f"{outcome.strategy}{' *' if outcome.strategy == chosen else ''}",
                outcome.summary.get("status", "-") if value is None else f"{value:.4f}",
                str(last.get("epoch", 0)),
                f"{outcome.seconds:.1f}",
                f"{outcome.summary.get('trained_parameters', 0):,}",
            )
        )
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    lines = [
        "",
        *(
            "  ".join(
                cell.ljust(width) if place == 0 else cell.rjust(width)
                for place, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ),
        f"* what auto chose; {seconds:g} s each, one seed, {count:,} validation samples",
        *(f"  {outcome.strategy:<{widths[0]}}  {outcome.folder}" for outcome in outcomes),
    ]
    slow = [outcome.strategy for outcome in outcomes if outcome.seconds > 1.1 * seconds + 1]
    if slow:
        lines.append(f"features, fit or one epoch took longer than {seconds:g} s: {', '.join(slow)}")
    found = {outcome.strategy: score(outcome) for outcome in ranked}
    mine = found.get(chosen)
    if not ranked or mine is None:
        return [*lines, f"auto chose {chosen}, which has no score"]
    best = ranked[0]
    ahead = abs((score(best) or 0.0) - mine)
    if ahead == 0:
        return [*lines, f"auto was right: nothing beats {chosen}"]
    what = f"{ahead:.4f} in {metric}"
    if metric == "val/accuracy":
        what = f"{round(ahead * count)} of {count:,} validation samples"
    return [*lines, f"{best.strategy} would have been right: ahead of {chosen} by {what}"]
