"""Reports a search: a line for each trial, and at the end the table, the best one, and the next commands."""

from __future__ import annotations

import math
import shlex
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial, TrialState

from dltips.config.overrides import with_plus
from dltips.config.redaction import redact
from dltips.exit_codes import EXIT_INTERRUPTED, EXIT_OK, EXIT_PARTLY
from dltips.formatting import columns, label, override_text
from dltips.runs.file_names import read_metrics
from dltips.sweep.search.objective import FOLDERS, RACED, SCORES, SECONDS
from dltips.sweep.search.ranking import pareto, ranked
from dltips.sweep.search.study import ERROR, WORKER, ClaimedTrial
from dltips.sweep.search.trial_loop import TrialResult

if TYPE_CHECKING:
    from dltips.sweep.search.plan import SearchPlan

SHOWN = 10  # rows of the table; dltips compare shows more
EDGE = 0.05  # of an interval's width (on its own scale): beyond a best value so near to an end a better one may lie
STATUS = {
    TrialState.COMPLETE: "",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.WAITING: "waiting",
    TrialState.RUNNING: "running",
}


class SearchProgress:
    """Prints a line for each trial that ends."""

    def __init__(self, plan: SearchPlan, done: Callable[[], int], count: int) -> None:
        self.plan, self.done, self.count = plan, done, count

    def __call__(self, claim: ClaimedTrial, values: Mapping[str, Any], told: TrialResult) -> None:
        line = f"trial {claim.number:>{len(str(self.count - 1))}}  {label(self.plan.space.varied(values))}"
        scores = "  ".join(
            f"{name} {number(value)}" for name, value in zip(self.plan.objectives, told.values, strict=False)
        )
        if told.state == "failed":
            line += f"  failed: {told.error}"
        else:
            line += f"  {scores}  {told.attributes[SECONDS]:.1f} s" + ("  pruned" if told.state == "pruned" else "")
        say(f"{line}  ({self.done()} of {self.count})")


def say(override_text: str) -> None:
    print(override_text, file=sys.stderr, flush=True)


def number(value: float) -> str:
    if abs(value) >= 1e12:
        return f"{value:.5g}"
    return f"{value:,.0f}" if value == int(value) and abs(value) >= 100 else f"{value:.4f}"


def report(plan: SearchPlan, place: Path, trials: Sequence[FrozenTrial], *, interrupted: bool) -> int:
    """Prints the results, first those that cannot fail; returns the exit code."""
    order = ranked(plan, trials)
    failed = [trial for trial in trials if trial.state is TrialState.FAIL]
    left = [trial for trial in trials if not trial.state.is_finished()]
    lines = []
    if order:
        lines += ["", *columns(_rows(plan, trials, order)), ""]
    lines.append(_counted(trials))
    lines += [f"trial {trial.number}  failed: {trial.user_attrs.get(ERROR, '?')}" for trial in failed[:3]]
    if len(failed) > 3:
        lines.append(f"... and {len(failed) - 3} more")
    if order:
        lines += _best(plan, place, order[0])
    print("\n".join(lines), flush=True)
    if order:
        lines = _about_best(plan, place, trials, order[0])
        print("".join(f"{line}\n" for line in lines), end="", flush=True)
    if left:
        again = f"dltips sweep resume={shlex.quote(str(place))}"
        storage = " storage=ADDRESS" if plan.settings.storage is not None else ""
        cut = "interrupted" if interrupted else "not all trials are done"
        print(f"{cut}: {len(left)} of {len(trials)} trials are left; go on with: {again}{storage}", flush=True)
    else:
        print(f"compare   dltips compare {place}\nboard     dltips board {place}", flush=True)
    if interrupted:
        return EXIT_INTERRUPTED
    return EXIT_PARTLY if failed else EXIT_OK


def _rows(plan: SearchPlan, trials: Sequence[FrozenTrial], order: Sequence[FrozenTrial]) -> list[list[str]]:
    keys = [dimension.key for dimension in plan.space.dimensions]
    several = plan.settings.seeds > 1
    front = {trial.number for trial in pareto(plan, order)} if len(plan.objectives) > 1 else set()
    timed = ["seconds"] if "seconds" not in plan.objectives else []  # no two columns of the same name
    spread_of = "sd" if len(plan.objectives) == 1 else f"sd of {plan.objectives[0]}"
    rows = [["trial", *keys, *plan.objectives, *([spread_of] if several else []), *timed, ""]]
    for trial in order[:SHOWN]:
        varied = plan.space.varied(trial.params)
        scores = trial.user_attrs.get(SCORES) or []
        spread = [f"{statistics.stdev(scores):.4f}" if len(scores) > 1 else "-"] if several else []
        rows.append(
            [
                str(trial.number),
                *(override_text(varied[key]) for key in keys),
                *(number(value) for value in trial.values),
                *spread,
                *(f"{trial.user_attrs.get(SECONDS, 0):.1f}" for _ in timed),
                "front" if trial.number in front else "",
            ]
        )
    return rows


def _counted(trials: Sequence[FrozenTrial]) -> str:
    whole = sum(trial.state is TrialState.COMPLETE for trial in trials)
    parts = [f"{len(trials)} trials: {whole} complete"]
    raced = sum(RACED in trial.user_attrs for trial in trials)
    for state in (TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING, TrialState.WAITING):
        count = sum(trial.state is state for trial in trials)
        if count:
            more = f" ({raced} of them by the race of seeds)" if state is TrialState.PRUNED and raced else ""
            parts.append(f"{count} {STATUS[state]}{more}")
    return ", ".join(parts)


def _best(plan: SearchPlan, place: Path, best: FrozenTrial) -> list[str]:
    varied = plan.space.varied(best.params)
    scores = ", ".join(f"{name} {number(value)}" for name, value in zip(plan.objectives, best.values, strict=True))
    best_in = f"the best in {plan.objectives[0]}: " if len(plan.objectives) > 1 else ""
    path = _path(place, best)
    if path.is_dir():
        where = str(path)
    else:
        host = (best.user_attrs.get(WORKER) or {}).get("host", "another machine")
        where = f"{path.name}, which is not in {place}: a worker on {host} ran it in a folder of its own"
    return [
        f"best      {best_in}trial {best.number}: {label(varied)}, {scores}",
        f"folder    {where}",
        f"train     {command(plan, varied)}",
    ]


def _path(place: Path, trial: FrozenTrial) -> Path:
    """Returns a trial's first run. Its name comes from a database, so it must not lead out of the folder."""
    return place / Path(str((trial.user_attrs.get(FOLDERS) or ["?"])[0])).name


def _about_best(plan: SearchPlan, place: Path, trials: Sequence[FrozenTrial], best: FrozenTrial) -> list[str]:
    """Returns lines on the best trial: parameters at an end of their interval, the importances."""
    lines = []
    if len(plan.objectives) == 1:
        lines += at_the_edge(plan, best)
        from dltips.sweep.search.importance import lines_of

        lines += lines_of(plan, trials)
    try:
        _draw(plan, place, trials, _path(place, best))
    except (OSError, ValueError, ArithmeticError) as error:  # a full disk, scores beyond any axis
        lines.append(f"pictures  cannot be drawn ({' '.join(str(error).split())})")
    pictures = sorted(place.glob("search-*.png"))
    if pictures:
        lines.append(f"pictures  {' '.join(picture.name for picture in pictures)} in {place}")
    return lines


def command(plan: SearchPlan, varied: Mapping[str, Any]) -> str:
    """Returns the command that trains the best trial again."""
    chosen = [f"{key}={_exact(value)}" for key, value in varied.items()]
    if plan.settings.seeds > 1:
        chosen.append(f"seed=range({plan.space.base['seed']},{plan.space.base['seed'] + plan.settings.seeds})")
    many = ["-m"] if plan.settings.seeds > 1 else []
    return shlex.join(["dltips", "train", *many, *map(with_plus, plan.fixed), *chosen])


def _exact(value: Any) -> str:
    return repr(value) if isinstance(value, float) else override_text(value)


def at_the_edge(plan: SearchPlan, best: FrozenTrial) -> list[str]:
    """Returns a line for each parameter whose best value is at an end of its interval."""
    lines = []
    for dimension in plan.space.dimensions:
        if dimension.kind == "choice" or dimension.key not in best.params:
            continue
        scale = math.log if dimension.log else float
        low, high, value = (scale(part) for part in (dimension.low, dimension.high, best.params[dimension.key]))
        part = (value - low) / (high - low)
        if EDGE < part < 1 - EDGE:
            continue
        where = "downwards" if part <= EDGE else "upwards"
        shown = override_text(dimension.setting(best.params[dimension.key]))
        lines.append(f"{dimension.key}: the best value {shown} lies at the edge of {dimension.typed}; widen it {where}")
    return lines


def _draw(plan: SearchPlan, place: Path, trials: Sequence[FrozenTrial], path: Path) -> None:
    """Draws the search's pictures, and curves.png of the best run only: for all it would take too long."""
    if plan.space.base["log"].get("pictures") == "none":
        return
    from dltips.sweep.search.search_plots import draw

    draw(plan, trials, place)
    records = read_metrics(path)
    if records and not (path / "curves.png").exists():
        from dltips.plots.curves_png import curves

        curves(records, path / "curves.png", redact(plan.settings.name or path.name))
