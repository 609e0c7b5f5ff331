"""Draws a search: the best over time, each parameter against the objective, importances; or the Pareto front."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from optuna.trial import FrozenTrial, TrialState

from dltips.files import replacing
from dltips.formatting import override_text
from dltips.plots.curves_png import TRAIN, VAL
from dltips.sweep.search.importance import importances
from dltips.sweep.search.space import Dimension

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from dltips.sweep.search.plan import SearchPlan

HISTORY, SLICES, IMPORTANCE, FRONT = (f"search-{name}.png" for name in ("history", "slices", "importance", "front"))
PRUNED = "0.7"  # gray
COLUMNS = 4  # panels in a row
LABEL_CHARACTERS = 18  # characters of a choice below its column


def draw(plan: SearchPlan, trials: Sequence[FrozenTrial], place: Path) -> None:
    """Draws what the reported trials allow; replaces each file atomically. Raises OSError, ValueError."""
    whole = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    pruned = [trial for trial in trials if trial.state is TrialState.PRUNED and trial.values]
    failed = sum(trial.state is TrialState.FAIL for trial in trials)
    if len(whole) < 2:
        return
    for values in zip(*(trial.values for trial in whole), strict=True):
        if not math.isfinite(10 * (max(values) - min(values))):
            raise ValueError("the scores lie too far apart")
    if len(plan.objectives) > 1:
        _save(_front(plan, whole), place / FRONT)
    else:
        _save(draw_history(plan, whole, pruned, failed), place / HISTORY)
        shares = importances(plan, trials)
        if shares is not None:
            _save(_importance(shares), place / IMPORTANCE)
    _save(draw_slices(plan, whole, pruned, failed), place / SLICES)


def draw_history(plan: SearchPlan, whole: Sequence[FrozenTrial], pruned: Sequence[FrozenTrial], failed: int) -> Figure:
    from matplotlib.ticker import MaxNLocator

    figure, (axes,) = _figure(7.0, 3.6, 1)
    higher = plan.directions[0] == "maximize"
    best: list[float] = []
    for trial in whole:
        best.append(trial.values[0] if not best else (max if higher else min)(best[-1], trial.values[0]))
    if pruned:
        axes.scatter(
            [trial.number for trial in pruned],
            [trial.values[0] for trial in pruned],
            s=14,
            color=PRUNED,
            label="pruned, at its last epoch",
            zorder=2,
        )
    axes.scatter(
        [trial.number for trial in whole],
        [trial.values[0] for trial in whole],
        s=18,
        color=TRAIN,
        label="trial",
        zorder=3,
    )
    axes.step([trial.number for trial in whole], best, where="post", color=VAL, linewidth=1.5, label="best so far")
    if failed:
        axes.plot([], [], linestyle="none", label=f"{failed} failed, not shown")
    axes.set_xlabel("trial")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_ylabel(_objective(plan, 0))
    _legend(axes)
    return figure


def draw_slices(plan: SearchPlan, whole: Sequence[FrozenTrial], pruned: Sequence[FrozenTrial], failed: int) -> Figure:
    """Draws the first objective over each parameter; later trials are darker."""
    from matplotlib.ticker import MaxNLocator

    dimensions = plan.space.dimensions
    columns = min(COLUMNS, len(dimensions))
    rows = math.ceil(len(dimensions) / columns)
    figure, panels = _figure(3.2 * columns + 0.6, 2.9 * rows, columns, rows)
    points = None
    for index, (dimension, axes) in enumerate(zip(dimensions, panels, strict=False)):
        if pruned:
            there = [trial for trial in pruned if dimension.key in trial.params]
            axes.scatter(
                [_place(dimension, trial) for trial in there],
                [trial.values[0] for trial in there],
                s=10,
                color=PRUNED,
                marker="x",
                linewidths=0.8,
                label="pruned, at its last epoch" if index == 0 else None,
            )
        there = [trial for trial in whole if dimension.key in trial.params]
        points = axes.scatter(
            [_place(dimension, trial) for trial in there],
            [trial.values[0] for trial in there],
            s=16,
            c=[trial.number for trial in there],
            cmap="Blues",
            vmin=-len(whole) / 2,  # the first ones would be white on white
            edgecolors="0.35",
            linewidths=0.4,
        )
        axes.set_xlabel(dimension.key)
        _scale(axes, dimension)
        if index % columns == 0:
            axes.set_ylabel(_objective(plan, 0))
        else:
            axes.set_yticklabels([])
        lows = [trial.values[0] for trial in (*whole, *pruned)]
        margin = 0.05 * (max(lows) - min(lows)) or 0.01
        axes.set_ylim(min(lows) - margin, max(lows) + margin)
    for axes in panels[len(dimensions) :]:
        axes.set_axis_off()
    if points is not None:
        bar = figure.colorbar(points, ax=list(panels), shrink=0.8, pad=0.01, ticks=MaxNLocator(integer=True))
        bar.set_label("trial", fontsize=8)
        bar.ax.tick_params(labelsize=7)
        bar.ax.set_ylim(0, max(trial.number for trial in whole))
    if failed:
        panels[0].plot([], [], linestyle="none", label=f"{failed} failed, not shown")
    if pruned or failed:
        figure.legend(frameon=False, fontsize=8, loc="outside upper left", ncols=2)
    return figure


def _place(dimension: Dimension, trial: FrozenTrial) -> float:
    value = trial.params[dimension.key]
    return float(dimension.labels.index(value)) if dimension.kind == "choice" else float(value)


def log_ticks(low: float, high: float) -> list[float]:
    """Returns 1, 2, 5, 10, ... or the ends if powers of ten alone would be too few ticks; else none."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    tens = [10.0**power for power in powers if low <= 10.0**power <= high]
    if len(tens) > 1 and high / low >= 10**1.5:
        return []
    steps = [float(f"{step}e{power}") for power in powers for step in (1, 2, 5)]
    found = [step for step in steps if low <= step <= high]
    return found if len(found) > 1 else [low, high]


def _scale(axes: Axes, dimension: Dimension) -> None:
    from matplotlib.ticker import NullFormatter

    if dimension.kind == "choice":
        names = [override_text(name) for name in dimension.labels]
        short = [name if len(name) <= LABEL_CHARACTERS else f"{name[: LABEL_CHARACTERS - 1]}…" for name in names]
        upright = sum(map(len, short)) > 30
        axes.set_xticks(range(len(short)), short, rotation=30 if upright else 0, ha="right" if upright else "center")
        axes.set_xlim(-0.5, len(short) - 0.5)
        return
    if dimension.log:
        axes.set_xscale("log")
        ratio = (dimension.high / dimension.low) ** 0.03
        axes.set_xlim(dimension.low / ratio, dimension.high * ratio)
        axes.xaxis.set_minor_formatter(NullFormatter())  # it would write 2 x 10^1 and 3 x 10^1 over one another
        if ticks := log_ticks(dimension.low, dimension.high):
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        return
    margin = 0.03 * (dimension.high - dimension.low)
    axes.set_xlim(dimension.low - margin, dimension.high + margin)


def _importance(shares: dict[str, float]) -> Figure:
    figure, (axes,) = _figure(6.0, 0.9 + 0.35 * len(shares), 1)
    keys = list(shares)[::-1]
    bars = axes.barh(keys, [shares[key] for key in keys], color=TRAIN, height=0.6)
    axes.bar_label(bars, [f"{shares[key]:.0%}" for key in keys], padding=3, fontsize=8)
    axes.set_xlim(0, 1.1 * max(shares.values()))
    axes.set_xlabel("importance (fANOVA)")
    axes.grid(axis="y", visible=False)
    return figure


def _front(plan: SearchPlan, whole: Sequence[FrozenTrial]) -> Figure:
    from dltips.sweep.search.ranking import pareto

    figure, (axes,) = _figure(6.0, 4.2, 1)
    front = sorted(pareto(plan, whole), key=lambda trial: trial.values[0])
    axes.scatter([t.values[0] for t in whole], [t.values[1] for t in whole], s=18, color=PRUNED, label="trial")
    axes.plot(
        [trial.values[0] for trial in front],
        [trial.values[1] for trial in front],
        color=VAL,
        marker="o",
        markersize=5,
        linewidth=1.2,
        label="Pareto front",
    )
    for trial in front[:12]:
        axes.annotate(
            str(trial.number), (trial.values[0], trial.values[1]), (4, 4), textcoords="offset points", fontsize=7
        )
    values = [trial.values[1] for trial in whole]
    if min(values) > 0 and max(values) / min(values) >= 10:
        axes.set_yscale("log")
    axes.set_xlabel(_objective(plan, 0))
    axes.set_ylabel(_objective(plan, 1))
    _legend(axes)
    return figure


def _legend(axes: Axes) -> None:
    """Draws the legend above the panel, away from the points."""
    axes.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=4, borderaxespad=0.2)


def _objective(plan: SearchPlan, index: int) -> str:
    seeds = f", mean of {plan.settings.seeds} seeds" if plan.settings.seeds > 1 else ""
    return f"{plan.objectives[index]}{seeds}"


def _figure(width: float, height: float, columns: int, rows: int = 1) -> tuple[Figure, Sequence[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    panels = [figure.add_subplot(rows, columns, index + 1) for index in range(rows * columns)]
    for axes in panels:
        axes.grid(True, color="0.92", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
        axes.xaxis.label.set_fontsize(9)
        axes.yaxis.label.set_fontsize(9)
    return figure, panels


def _save(figure: Figure, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with replacing(path) as temporary:
        FigureCanvasAgg(figure).print_figure(temporary, format="png")
