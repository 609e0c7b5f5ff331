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
from dltips.insight.groups import RunGroup, wrap_label
from dltips.insight.mean_curves import Point, common_epochs, mean_curve
from dltips.metrics import is_of_run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_CURVES = 8  # groups: more curves cannot be distinguished
SUFFIXES = (".png", ".svg", ".pdf")
# Okabe and Ito 2008, distinguishable with any colour vision; yellow is too light for lines on white
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#888888")


def check_target(path: Path) -> None:
    """Checks, before anything is read, that the picture can be written. Raises ConfigError."""
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"plot: {path} is not a picture that can be written; end it in {', '.join(SUFFIXES)}")
    folder = path.expanduser().parent
    if not folder.is_dir():
        raise ConfigError(f"plot: {folder} is not a folder; make it first, or choose another")
    if path.is_dir() or not os.access(folder, os.W_OK):
        raise ConfigError(f"plot: {path} cannot be written; choose another file")


def draw_curves(comparison: Comparison, path: Path) -> list[str]:
    """Draws the best groups' curves and replaces `path` atomically; returns notes on the picture.

    Raises ConfigError if there is nothing to draw.
    """
    if is_of_run(comparison.metric):
        raise ConfigError(
            f"plot: {comparison.metric} is one figure per run; draw a metric of epochs: --metric val/loss"
        )
    finished = [row for row in comparison.rows if row.used]
    drawn, with_baseline = finished[:MOST_CURVES], ""
    reference = comparison.reference
    if reference is not None and not any(row is reference for row in drawn):
        drawn, with_baseline = [*drawn[:-1], reference], ", and the baseline"
    curves = [
        (
            f"{row.group.label} ({row.n})",
            mean_curve(RunGroup(row.group.label, row.group.settings, row.used), comparison.metric),
        )
        for row in drawn
    ]
    without_curve = [row.group.label for row, (_, points) in zip(drawn, curves, strict=True) if not points]
    curves = [(label, points) for label, points in curves if points]
    if not curves:
        raise ConfigError(
            f"plot: no finished run has {comparison.metric} by epoch; choose a metric that metrics.jsonl has"
        )
    band_is_cut = _picture(curves, comparison.metric, path.expanduser())
    notes = [f"picture   {path}"]
    if without_curve:
        notes.append(f"no curve of {', '.join(without_curve)}: metrics.jsonl has no {comparison.metric} there")
    if any(len(common_epochs(points)) < len(points) for _, points in curves):
        notes.append("dashed is the mean over the seeds that go on when others have stopped early")
    if band_is_cut:
        notes.append("an interval that is far wider than the rest is cut at the edge of the picture")
    if len(finished) > MOST_CURVES:
        best = MOST_CURVES - 1 if with_baseline else MOST_CURVES
        notes.append(f"the picture has the best {best} of {len(finished)} groups{with_baseline}")
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
    for (label, points), color, order in zip(curves, COLORS, range(MOST_CURVES), strict=False):
        common = common_epochs(points)
        for points_drawn, style, name in ((common, "-", _legend_text(label)), (points[len(common) - 1 :], "--", "")):
            if name or len(points_drawn) > 1:
                marker = "o" if len(points_drawn) == 1 else ""
                means = [point.mean for point in points_drawn]
                layer = 3 - order / MOST_CURVES
                axes.plot(_epochs(points_drawn), means, style, color=color, label=name, marker=marker, zorder=layer)
        axes.fill_between(
            _epochs(common),
            [point.low for point in common],
            [point.high for point in common],
            color=color,
            alpha=0.15,
            linewidth=0,
        )
    band_is_cut = scale_axes(axes, curves, metric)
    # in the table's order, beside the curves: inside it would hide some
    legend = figure.legend(
        loc="outside right upper", frameon=False, fontsize=9, title="group (seeds)", alignment="left"
    )
    legend.get_title().set_fontsize(9)
    for label_text in legend.get_texts():
        label_text.set_parse_math(False)
    try:
        with replacing(path) as temporary, warnings.catch_warnings():
            # a character of a label that the font lacks is drawn as a box
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            canvas.print_figure(temporary, format=path.suffix.lower().removeprefix("."))
    except OSError as error:
        raise ConfigError(f"plot: {path} cannot be written ({error.strerror}); choose another file") from error
    return band_is_cut


def _epochs(points: Sequence[Point]) -> list[int]:
    return [point.epoch for point in points]


def _legend_text(label: str) -> str:
    lines = wrap_label(label, 38)
    return "\n".join([*lines[:3], "..."] if len(lines) > 4 else lines)


def scale_axes(axes: Axes, curves: Sequence[tuple[str, Sequence[Point]]], metric: str) -> bool:
    """Scales the axes to the means and their bands; returns whether a band was too wide and is cut."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    points = [point for _, points in curves for point in points]
    axes.set_xlabel("epoch")
    epochs = [point.epoch for point in points]
    if len(set(epochs)) > 1:
        axes.set_xlim(min(epochs), max(epochs))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True, min_n_ticks=1))
    subtitle = "mean and 95 % interval over seeds" if any(point.n > 1 for point in points) else "one seed each"
    axes.set_title(f"{metric}: {subtitle}", fontsize=11)
    low, high = (extreme(point.mean for point in points) for extreme in (min, max))
    if metric.endswith("loss") and low > 0 and high > 10 * low:
        axes.set_yscale("log")
        axes.set_title(f"{metric} (log): {subtitle}", fontsize=11)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if math.log10(high / low) < 3 else (1,)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
        factor = math.sqrt(high / low)  # the means keep at least half of the height
        bottom, top, band_is_cut = _axis_limits(points, low / factor, high * factor)
        axes.set_ylim(bottom / 1.1, top * 1.1)
    else:
        space = _space_beside_means(points)
        bottom, top, band_is_cut = _axis_limits(points, low - space, high + space)
        margin = (top - bottom) * 0.05 or abs(high) * 0.05 or 1.0
        if low >= 0 and high <= 1 and not metric.endswith("loss"):  # a fraction: never beyond 0 and 1
            bottom, top = max(bottom, 0.0), min(top, 1.0)
            axes.set_ylim(max(bottom - margin, -0.02), min(top + margin, 1.02))
        else:
            axes.set_ylim(bottom - margin, top + margin)
    axes.grid(True, which="major", color="0.9")
    axes.set_axisbelow(True)
    return band_is_cut


def _space_beside_means(points: Sequence[Point]) -> float:
    """Returns the space for bands beyond the highest and the lowest mean: the means' height, or twice a usual band.

    A band of two seeds is nine standard deviations wide, of three two and a half: those of two are the usual ones only
    if there are no others.
    """
    means = [point.mean for point in points]
    half_widths = [(point.n, point.high - point.mean) for point in points if point.n > 1]
    usual = [half for n, half in half_widths if n > 2] or [half for _, half in half_widths] or [0.0]
    return max(max(means) - min(means), 2 * median(usual))


def _axis_limits(points: Sequence[Point], lowest: float, highest: float) -> tuple[float, float, bool]:
    """Returns limits for the means and the bands within bounds, and whether other bands are cut."""
    bottom = min(point.low if point.low >= lowest else point.mean for point in points)
    top = max(point.high if point.high <= highest else point.mean for point in points)
    return bottom, top, any(point.low < lowest or point.high > highest for point in points)
