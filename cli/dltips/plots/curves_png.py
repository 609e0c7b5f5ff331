"""Draws curves.png: loss, accuracy and learning rate over the epochs."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dltips.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TRAIN, VAL, RATE = "#1f77b4", "#e6550d", "#555555"
FEW = 40  # up to so many epochs, each is marked by a dot


def prepare() -> None:
    """Imports what `curves` needs, which takes longer than the drawing."""
    import matplotlib.backends.backend_agg
    import matplotlib.figure  # noqa: F401


def curves(records: Sequence[Mapping[str, Any]], path: Path, title: str = "") -> None:
    """Draws the records of metrics.jsonl, with a star at val's best; replaces `path` atomically.

    A value that is missing, NaN or infinite leaves a gap. A loss or a learning rate that spans more than a decade gets
    a logarithmic axis.
    """
    # late, because it takes 250 ms; not pyplot, whose global state is not needed
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 3.9), dpi=110)
    canvas = FigureCanvasAgg(figure)
    if title:
        figure.suptitle(title if len(title) <= 120 else f"{title[:60]} … {title[-57:]}", fontsize=11, parse_math=False)
    # a layout engine would draw everything twice; only numbers stand beside the axes
    margins = {"left": 0.055, "right": 0.99, "bottom": 0.13, "top": 0.83 if title else 0.91, "wspace": 0.22}
    loss, accuracy, rate = figure.subplots(1, 3, width_ratios=(4, 4, 3), gridspec_kw=margins)
    epochs = [float(record.get("epoch", n)) for n, record in enumerate(records, 1)]
    for axes, quantity, best in ((loss, "loss", min), (accuracy, "accuracy", max)):
        lines = {split: _values(records, f"{split}/{quantity}") for split in ("train", "val")}
        _draw(axes, epochs, lines, quantity)
        scores = [(value, epoch) for value, epoch in zip(lines["val"], epochs, strict=True) if math.isfinite(value)]
        if scores:
            value, epoch = best(scores, key=lambda score: score[0])  # of equal values, both min and max take the first
            label = f"best val {value:.4g}, epoch {epoch:g}"
            axes.plot([epoch], [value], "*", color=VAL, markersize=12, markeredgecolor="white", zorder=4, label=label)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, fontsize=9)
    _draw(rate, epochs, {"lr": _values(records, "lr")}, "learning rate")

    with replacing(path) as temporary, warnings.catch_warnings():
        # a character of the title that the font lacks is drawn as a box
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        canvas.print_figure(temporary, format="png")


def _values(records: Sequence[Mapping[str, Any]], key: str) -> list[float]:
    """Returns the values by epoch; NaN, which matplotlib leaves blank, for missing ones."""
    values = (record.get(key) for record in records)
    return [float(v) if isinstance(v, int | float) and math.isfinite(v) else math.nan for v in values]


def _draw(axes: Axes, epochs: Sequence[float], lines: Mapping[str, Sequence[float]], name: str) -> None:
    """Draws the lines of one panel, on axes that span all epochs, even those without a value."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(name, fontsize=11)
    axes.set_xlabel("epoch")
    drawn = [value for values in lines.values() for value in values if math.isfinite(value)]
    if not drawn:
        axes.set(xticks=[], yticks=[])
        axes.text(0.5, 0.5, "nothing to draw", transform=axes.transAxes, ha="center", va="center", color="0.5")
        return
    for label, values in lines.items():
        if any(map(math.isfinite, values)):
            color = {"train": TRAIN, "val": VAL}.get(label, RATE)
            marker = "o" if len(epochs) <= FEW else ""
            axes.plot(epochs, values, color=color, label=label, marker=marker, markersize=3.5, linewidth=1.4)
    margin = (max(epochs) - min(epochs)) * 0.03 or 0.5
    axes.set_xlim(min(epochs) - margin, max(epochs) + margin)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
    # a rate that ends near zero, such as a cosine's, would lose its shape
    decades = math.log10(max(drawn) / min(drawn)) if min(drawn) > 0 else 0.0
    if (name == "loss" and decades > 1) or (name == "learning rate" and 1 < decades < 4):
        axes.set_yscale("log")
        axes.set_title(f"{name} (log)", fontsize=11)
        # within three decades the powers of ten alone would be too few labels
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if max(drawn) < 1000 * min(drawn) else (1,)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(True, which="major", color="0.9")
    axes.set_axisbelow(True)
