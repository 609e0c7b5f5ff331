"""The curves of a comparison: the mean over seeds per group, with its 95 % interval as a band."""

from __future__ import annotations

import math
import os
import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dltips.insight.comparison import FIGURES, Comparison
from dltips.insight.curves import Point, mean_curve
from dltips.insight.groups import Group
from dltips.registry import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST = 8  # groups: more curves cannot be told apart
SUFFIXES = (".png", ".svg", ".pdf")
# Okabe and Ito 2008, told apart with any colour vision; yellow is too light for lines on white
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#888888")


def check_target(path: Path) -> None:
    """Before anything is read: can the picture be written there? Errors: ConfigError."""
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"plot: {path} is no picture that can be written; end it in {', '.join(SUFFIXES)}")
    place = path.expanduser().parent
    if not place.is_dir():
        raise ConfigError(f"plot: {place} is no folder; make it first, or choose another")
    if path.is_dir() or not os.access(place, os.W_OK):
        raise ConfigError(f"plot: {path} cannot be written; choose another file")


def draw(comparison: Comparison, path: Path) -> list[str]:
    """Draw the best groups' curves; `path` is replaced whole or not at all. What there is to say about it, in lines.

    Errors: ConfigError where there is nothing to draw.
    """
    if comparison.metric in FIGURES:
        raise ConfigError(
            f"plot: {comparison.metric} is one figure per run; draw a metric of epochs: --metric val/loss"
        )
    finished = [row for row in comparison.rows if row.used]
    wanted, also = finished[:MOST], ""
    reference = comparison.reference
    if reference is not None and not any(row is reference for row in wanted):
        wanted, also = [*wanted[:-1], reference], ", and the baseline"
    curves = [
        (
            f"{row.group.label} ({len(row.by_seed)})",
            mean_curve(Group(row.group.label, row.group.settings, row.used), comparison.metric),
        )
        for row in wanted
    ]
    curves = [(label, points) for label, points in curves if points]
    if not curves:
        raise ConfigError(
            f"plot: no finished run has {comparison.metric} by epoch; choose a metric that metrics.jsonl has"
        )
    _picture(curves, comparison.metric, path.expanduser())
    notes = [f"picture   {path}"]
    if len(finished) > MOST:
        best = MOST - 1 if also else MOST
        notes.append(f"the picture has the best {best} of {len(finished)} groups{also}")
    return notes


def _picture(curves: Sequence[tuple[str, Sequence[Point]]], metric: str, path: Path) -> None:
    # late, because it takes 0.25 s; and not pyplot, whose global state would only be in the way
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, 5.2), dpi=110, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    for (label, points), color, order in zip(curves, COLORS, range(MOST), strict=False):
        epochs = [point.epoch for point in points]
        marker = "o" if len(points) == 1 else ""
        means = [point.mean for point in points]
        axes.plot(epochs, means, color=color, label=_wrapped(label), marker=marker, zorder=3 - order / MOST)
        axes.fill_between(
            epochs,
            [point.low for point in points],
            [point.high for point in points],
            color=color,
            alpha=0.15,
            linewidth=0,
        )
    _scale(axes, curves, metric)
    # in the order of the table, beside the curves: over them it would hide some
    legend = figure.legend(
        loc="outside right upper", frameon=False, fontsize=9, title="group (seeds)", alignment="left"
    )
    legend.get_title().set_fontsize(9)
    for written in legend.get_texts():
        written.set_parse_math(False)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with warnings.catch_warnings():
            # a label may hold signs that the font lacks; they are drawn as boxes
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            canvas.print_figure(temporary, format=path.suffix.lower().removeprefix("."))
        os.replace(temporary, path)
    except OSError as error:
        raise ConfigError(f"plot: {path} cannot be written ({error.strerror}); choose another file") from error
    finally:
        temporary.unlink(missing_ok=True)


def _wrapped(label: str) -> str:
    lines = textwrap.wrap(label, 38, break_on_hyphens=False)
    return "\n".join([*lines[:3], "..."] if len(lines) > 4 else lines)


def _scale(axes: Axes, curves: Sequence[tuple[str, Sequence[Point]]], metric: str) -> None:
    """Axes that show the means; a band of two or three seeds may be far wider, and is cut off."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    means = [point.mean for _, points in curves for point in points]
    axes.set_xlabel("epoch")
    epochs = [point.epoch for _, points in curves for point in points]
    if len(set(epochs)) > 1:
        axes.set_xlim(min(epochs), max(epochs))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True, min_n_ticks=1))
    axes.set_title(f"{metric}: mean and 95 % interval over seeds", fontsize=11)
    low, high = min(means), max(means)
    if metric.endswith("loss") and low > 0 and high > 10 * low:
        axes.set_yscale("log")
        axes.set_title(f"{metric} (log): mean and 95 % interval over seeds", fontsize=11)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if math.log10(high / low) < 3 else (1,)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_ylim(low / 1.5, high * 1.5)
    else:
        margin = (high - low) * 0.15 or abs(high) * 0.05 or 1.0
        fraction = low >= 0 and high <= 1 and not metric.endswith("loss")
        bounds = (max(low - margin, -0.02), min(high + margin, 1.02)) if fraction else (low - margin, high + margin)
        axes.set_ylim(*bounds)
    axes.grid(True, which="major", color="0.9")
    axes.set_axisbelow(True)
