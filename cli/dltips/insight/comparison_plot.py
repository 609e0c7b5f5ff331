"""Draws the curves of a comparison: the mean over seeds per group, with its 95 % interval as a band."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from dltips.errors import ConfigError
from dltips.files import replacing
from dltips.insight.comparison import Comparison
from dltips.insight.groups import RunGroup, wrapped
from dltips.insight.mean_curves import Point, common_epochs, mean_curve
from dltips.metrics import is_of_run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST = 8  # groups: more curves cannot be distinguished
SUFFIXES = (".png", ".svg", ".pdf")
# Okabe and Ito 2008, distinguishable with any colour vision; yellow is too light for lines on white
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#888888")


def check_target(path: Path) -> None:
    """Checks, before anything is read, that the picture can be written. Raises ConfigError."""
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"plot: {path} is no picture that can be written; end it in {', '.join(SUFFIXES)}")
    place = path.expanduser().parent
    if not place.is_dir():
        raise ConfigError(f"plot: {place} is no folder; make it first, or choose another")
    if path.is_dir() or not os.access(place, os.W_OK):
        raise ConfigError(f"plot: {path} cannot be written; choose another file")


def draw(comparison: Comparison, path: Path) -> list[str]:
    """Draws the best groups' curves and replaces `path` atomically; returns notes on the picture.

    Raises ConfigError if there is nothing to draw.
    """
    if is_of_run(comparison.metric):
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
            f"{row.group.label} ({row.n})",
            mean_curve(RunGroup(row.group.label, row.group.settings, row.used), comparison.metric),
        )
        for row in wanted
    ]
    without = [row.group.label for row, (_, points) in zip(wanted, curves, strict=True) if not points]
    curves = [(label, points) for label, points in curves if points]
    if not curves:
        raise ConfigError(
            f"plot: no finished run has {comparison.metric} by epoch; choose a metric that metrics.jsonl has"
        )
    cut = _picture(curves, comparison.metric, path.expanduser())
    notes = [f"picture   {path}"]
    if without:
        notes.append(f"no curve of {', '.join(without)}: metrics.jsonl has no {comparison.metric} there")
    if any(len(common_epochs(points)) < len(points) for _, points in curves):
        notes.append("dashed is the mean over the seeds that go on when others have stopped early")
    if cut:
        notes.append("an interval that is far wider than the rest is cut at the edge of the picture")
    if len(finished) > MOST:
        best = MOST - 1 if also else MOST
        notes.append(f"the picture has the best {best} of {len(finished)} groups{also}")
    return notes


def _picture(curves: Sequence[tuple[str, Sequence[Point]]], metric: str, path: Path) -> bool:
    """Draws; returns whether a band was cut."""
    # late, because it takes 0.25 s; not pyplot, whose global state is not needed
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, 5.2), dpi=110, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    for (label, points), color, order in zip(curves, COLORS, range(MOST), strict=False):
        whole = common_epochs(points)
        for part, style, name in ((whole, "-", _wrapped(label)), (points[len(whole) - 1 :], "--", "")):
            if name or len(part) > 1:
                marker = "o" if len(part) == 1 else ""
                means = [point.mean for point in part]
                place = 3 - order / MOST
                axes.plot(_epochs(part), means, style, color=color, label=name, marker=marker, zorder=place)
        axes.fill_between(
            _epochs(whole),
            [point.low for point in whole],
            [point.high for point in whole],
            color=color,
            alpha=0.15,
            linewidth=0,
        )
    cut = scale(axes, curves, metric)
    # in the table's order, beside the curves: inside it would hide some
    legend = figure.legend(
        loc="outside right upper", frameon=False, fontsize=9, title="group (seeds)", alignment="left"
    )
    legend.get_title().set_fontsize(9)
    for written in legend.get_texts():
        written.set_parse_math(False)
    try:
        with replacing(path) as temporary, warnings.catch_warnings():
            # a character of a label that the font lacks is drawn as a box
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            canvas.print_figure(temporary, format=path.suffix.lower().removeprefix("."))
    except OSError as error:
        raise ConfigError(f"plot: {path} cannot be written ({error.strerror}); choose another file") from error
    return cut


def _epochs(points: Sequence[Point]) -> list[int]:
    return [point.epoch for point in points]


def _wrapped(label: str) -> str:
    lines = wrapped(label, 38)
    return "\n".join([*lines[:3], "..."] if len(lines) > 4 else lines)


def scale(axes: Axes, curves: Sequence[tuple[str, Sequence[Point]]], metric: str) -> bool:
    """Scales the axes to the means and their bands; returns whether a band was too wide and is cut."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    points = [point for _, points in curves for point in points]
    axes.set_xlabel("epoch")
    epochs = [point.epoch for point in points]
    if len(set(epochs)) > 1:
        axes.set_xlim(min(epochs), max(epochs))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True, min_n_ticks=1))
    shown = "mean and 95 % interval over seeds" if any(point.n > 1 for point in points) else "one seed each"
    axes.set_title(f"{metric}: {shown}", fontsize=11)
    low, high = (choose(point.mean for point in points) for choose in (min, max))
    if metric.endswith("loss") and low > 0 and high > 10 * low:
        axes.set_yscale("log")
        axes.set_title(f"{metric} (log): {shown}", fontsize=11)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if math.log10(high / low) < 3 else (1,)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
        factor = math.sqrt(high / low)  # the means keep at least half of the height
        bottom, top, cut = _limits(points, low / factor, high * factor)
        axes.set_ylim(bottom / 1.1, top * 1.1)
    else:
        room = _room(points)
        bottom, top, cut = _limits(points, low - room, high + room)
        margin = (top - bottom) * 0.05 or abs(high) * 0.05 or 1.0
        if low >= 0 and high <= 1 and not metric.endswith("loss"):  # a fraction: never beyond 0 and 1
            bottom, top = max(bottom, 0.0), min(top, 1.0)
            axes.set_ylim(max(bottom - margin, -0.02), min(top + margin, 1.02))
        else:
            axes.set_ylim(bottom - margin, top + margin)
    axes.grid(True, which="major", color="0.9")
    axes.set_axisbelow(True)
    return cut


def _room(points: Sequence[Point]) -> float:
    """Returns the space for bands beyond the highest and the lowest mean: the means' height, or twice a usual band.

    A band of two seeds is nine standard deviations wide, of three two and a half: those of two are the usual ones only
    if there are no others.
    """
    means = [point.mean for point in points]
    halves = [(point.n, point.high - point.mean) for point in points if point.n > 1]
    usual = [half for n, half in halves if n > 2] or [half for _, half in halves] or [0.0]
    return max(max(means) - min(means), 2 * median(usual))


def _limits(points: Sequence[Point], lowest: float, highest: float) -> tuple[float, float, bool]:
    """Returns limits for the means and the bands within bounds, and whether other bands are cut."""
    bottom = min(point.low if point.low >= lowest else point.mean for point in points)
    top = max(point.high if point.high <= highest else point.mean for point in points)
    return bottom, top, any(point.low < lowest or point.high > highest for point in points)
