"""`dltips train -m`: runs a grid of trials, in this process or in others; finished trials are not run again."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from dltips.config.redaction import redact
from dltips.config.validation import Config
from dltips.errors import ConfigError
from dltips.exit_codes import EXIT_INTERRUPTED, EXIT_OK, EXIT_PARTLY
from dltips.formatting import label
from dltips.metrics import is_better
from dltips.runs import folder
from dltips.runs.code_version import code_hash
from dltips.runs.file_names import SUMMARY, read_metrics
from dltips.signals import STOPPING, handling, interrupt
from dltips.sweep import sweep_folder as places
from dltips.sweep.grid.compose_trials import Frozen, freeze
from dltips.sweep.grid.grid_report import report
from dltips.sweep.grid.launchers import Launcher, launcher_for, run_here
from dltips.sweep.preflight import Checker
from dltips.sweep.trial import ENDED, FAILED, Trial, TrialOutcome, folder_name, outcome_of
from dltips.train.context import RunContext


@dataclass(frozen=True)
class Options:
    """The options of `dltips train -m` besides the grid itself."""

    zipped: Sequence[Sequence[str]] = ()  # keys whose lists go in step
    workers: int = 1
    retry: bool = False
    dry_run: bool = False


@dataclass
class Grid:
    """The trials of one command, and their states."""

    trials: Sequence[Trial]
    contents: Sequence[str]  # of each trial: the hash of everything its result depends on
    metric: str
    name: str | None = None
    place: Path = field(default_factory=Path)
    outcomes: dict[int, TrialOutcome] = field(default_factory=dict)

    @property
    def identity(self) -> str:
        return hashlib.sha256(" ".join(self.contents).encode()).hexdigest()[:16]

    @property
    def best(self) -> TrialOutcome | None:
        best: TrialOutcome | None = None
        for outcome in self.outcomes.values():
            if outcome.score is not None and outcome.status in ENDED:
                better = best is None or best.score is None or is_better(self.metric, outcome.score, best.score)
                best = outcome if better else best
        return best


def run(overrides: list[str], options: Options) -> int:
    """Freezes the grid, runs what is left, prints the table; returns the exit code. Raises ConfigError first."""
    folder.check_writable()
    frozen = freeze(overrides, options.zipped)
    launcher = launcher_for(frozen.launcher, options.workers)
    if options.workers > 1:
        torch.set_num_threads(1)  # threads do not survive a fork
    context = RunContext(frozen.typed)
    for note in frozen.notes:
        _say(note)
    grid = _laid_out(frozen, Checker(context.datasets))
    if options.dry_run:
        from dltips.sweep.grid.estimate import show

        grid.place = places.find(grid.identity) or Path()
        left = _left_to_run(grid, retry=False) if grid.place != Path() else list(grid.trials)
        return show(grid.trials, {trial.number for trial in left}, context.datasets, options.workers)
    grid.name = None if "name" in frozen.varied else grid.trials[0].config.settings.name
    grid.place = places.find(grid.identity) or places.make(grid.identity, grid.name)
    with places.alone(grid.place):
        return _run(grid, frozen, launcher, context, retry=options.retry)


def _laid_out(frozen: Frozen, checker: Checker) -> Grid:
    """Returns the numbered trials, each once. Raises ConfigError for one that could not start."""
    if "metric" in frozen.varied:
        raise ConfigError("metric: decides which trial is the best, so that all have the same; give one")
    trials: list[Trial] = []
    contents: list[str] = []
    code = code_hash()
    for cell in frozen.cells:
        trial = Trial(len(trials), cell.plain, cell.varied, "", "")
        config = cell.config
        if config.settings.resume is not None:
            raise ConfigError("resume: is for one run; a grid goes on by itself when the same command is given again")
        content = _checked(checker, config, cell.varied)
        if content in contents:
            _say(f"{label(cell.varied)} is left out: the same as trial {contents.index(content)}")
            continue
        trials.append(replace(trial, folder=folder_name(trial.number, config.hash), hash=config.hash, code=code))
        contents.append(content)
    return Grid(trials, contents, trials[0].config.settings.metric)


def _checked(checker: Checker, config: Config, varied: Mapping[str, Any]) -> str:
    """Returns the trial's content hash. Raises ConfigError with the trial at the message's end."""
    try:
        return checker.content_hash(config)
    except ConfigError as error:
        raise ConfigError(f"{error} (trial {label(varied)})" if varied else str(error)) from error


def _run(grid: Grid, frozen: Frozen, launcher: Launcher, context: RunContext, *, retry: bool) -> int:
    left = _left_to_run(grid, retry=retry)
    _describe(grid, frozen)
    done = len(grid.trials) - len(left)
    count = "1 trial" if len(grid.trials) == 1 else f"{len(grid.trials)} trials"
    _say(f"{grid.place}: {count}" + (f", {done} of them done before" if done else ""))
    progress = GridProgress(grid, left, live=launcher is run_here and sys.stderr.isatty())
    context = replace(context, watchers=[progress.epoch] if progress.live else [])
    interrupted = False
    try:
        with handling(interrupt, STOPPING[1:]):  # a running trial handles them itself
            for outcome in launcher(left, grid.place, context) if left else ():
                grid.outcomes[outcome.number] = outcome
                progress.ended(outcome)
                # a killed worker reports why; stopping a trial by hand stops the grid
                interrupted = interrupted or (outcome.status == "interrupted" and outcome.error is None)
    except KeyboardInterrupt:
        interrupted = True
    best = grid.best
    with handling(signal.SIG_IGN, STOPPING[1:]):  # it ends anyway, and the table is still wanted
        _draw_best(grid, best)
        with contextlib.suppress(OSError):  # stdout is closed
            print(report(grid.trials, grid.outcomes, grid.metric, best, grid.place), flush=True)
    if interrupted:
        return EXIT_INTERRUPTED
    whole = all(number in grid.outcomes and grid.outcomes[number].status in ENDED for number in range(len(grid.trials)))
    return EXIT_OK if whole else EXIT_PARTLY


def _left_to_run(grid: Grid, *, retry: bool) -> list[Trial]:
    """Returns the unfinished trials: new ones, those cut off and, with --retry, the failed ones.

    Records the outcomes of the others; with --retry deletes failed trials' summaries and diverged trials' folders.
    """
    finished = places.finished_elsewhere()
    left: list[Trial] = []
    trials: list[Trial] = []
    for trial, content in zip(grid.trials, grid.contents, strict=True):
        path = grid.place / trial.folder
        outcome = outcome_of(trial.number, path)
        if outcome is None and not path.exists() and content in finished:
            path = finished[content]
            outcome = outcome_of(trial.number, path)
            trial = replace(trial, folder=places.relative(path, grid.place))
        trials.append(trial)
        if outcome is not None and retry and outcome.status in FAILED:
            if outcome.status == "diverged":  # from the beginning, unlike a failure, which resumes
                shutil.rmtree(path)
            else:
                (path / SUMMARY).unlink()
            outcome = None
        if outcome is not None and outcome.status in (*ENDED, *FAILED):
            grid.outcomes[trial.number] = outcome
        else:
            left.append(trial)
    grid.trials = trials
    return left


def _describe(grid: Grid, frozen: Frozen) -> None:
    listed = [(trial.number, trial.folder, trial.varied) for trial in grid.trials]
    content = {
        "kind": "grid",
        "name": grid.name,
        "command": places.command(),
        "metric": grid.metric,
        "varied": list(frozen.varied),
        "identity": grid.identity,
        "trials": places.as_listed(listed),
    }
    places.write(grid.place, content)


def _draw_best(grid: Grid, best: TrialOutcome | None) -> None:
    """Draws curves.png of the best run only: for all runs it would take longer than many of the runs."""
    if best is None:
        return
    config = grid.trials[best.number].config
    picture = best.path / "curves.png"
    if config.log.pictures == "best" and not picture.exists():
        from dltips.plots.curves_png import curves

        curves(read_metrics(best.path), picture, redact(config.settings.name or best.path.name))


class GridProgress:
    """Prints a line to stderr for each trial, and in a terminal the current trial's progress below."""

    def __init__(self, grid: Grid, left: Sequence[Trial], *, live: bool) -> None:
        self.live = live
        self.width = len(str(len(grid.trials) - 1))
        self.varied = {trial.number: trial.varied for trial in grid.trials}
        self.epochs = {trial.number: trial.plain["epochs"] for trial in left}
        self.metric = grid.metric
        self.order = [trial.number for trial in left]
        self.ended_count = 0
        self.started = self.shown = time.perf_counter()
        self.show("")

    def show(self, state: str) -> None:
        """Shows the current trial on a line that the next one overwrites."""
        if self.live and self.ended_count < len(self.order):
            number = self.order[self.ended_count]
            text = f"trial {number:>{self.width}}  {label(self.varied[number])}  {state}"
            sys.stderr.write(f"\r\x1b[2K{text[: shutil.get_terminal_size().columns - 1]}")
            sys.stderr.flush()

    def epoch(self, record: Mapping[str, Any]) -> bool:
        now = time.perf_counter()
        if now - self.shown > 0.2:
            self.shown = now
            score = record.get(self.metric)
            text = f"{self.metric} {score:.4f}" if isinstance(score, float) else ""
            self.show(f"epoch {record['epoch']}/{self.epochs[self.order[self.ended_count]]}  {text}")
        return False

    def ended(self, outcome: TrialOutcome) -> None:
        self.ended_count += 1
        text = f"trial {outcome.number:>{self.width}}  {label(self.varied[outcome.number])}  "
        if outcome.status in ENDED and outcome.score is not None:
            text += f"{self.metric} {outcome.score:.4f}  {outcome.seconds:.1f} s"
        else:
            text += outcome.status + (f": {outcome.error}" if outcome.error else "")
        rest = len(self.order) - self.ended_count
        seconds_left = (time.perf_counter() - self.started) / self.ended_count * rest
        if rest and seconds_left >= 10 and outcome.status != "interrupted":
            from dltips.formatting import clock

            text += f"  {clock(seconds_left)} left"
        if self.live:
            sys.stderr.write("\r\x1b[2K")
        _say(text)
        if outcome.status != "interrupted":
            self.show("")


def _say(text: str) -> None:
    with contextlib.suppress(OSError):  # stderr is closed; the trials go on
        print(text, file=sys.stderr, flush=True)
