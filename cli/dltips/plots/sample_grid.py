"""Draws a grid of samples: one row per augmentation, one column per sample, pixels unchanged."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy
import torch
from torch import Tensor
from torch.nn import functional

from dltips.files import replacing
from dltips.plots.curves_png import TRAIN, VAL

if TYPE_CHECKING:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

SMALL, LARGE = 96, 160  # smaller images are enlarged towards the first side in pixels, larger ones shrunk to the second
WAVE = (150, 64)  # width and height of a waveform
DPI, LINE, GAP, EDGE = 100, 15, 6, 16  # LINE: pixels from one line of small text to the next
LABEL, NOTE = 11, 8  # points


@dataclass(frozen=True)
class SampleRow:
    """One row: its samples, and the texts beside and below them."""

    label: str
    samples: Tensor  # (count, C, H, W) in [0, 1], or waveforms (count, 1, T)
    notes: Sequence[str] = ()  # small lines below the label
    captions: Sequence[Sequence[str]] = ()  # lines below each sample


def grid(rows: Sequence[SampleRow], path: Path, title: str) -> None:
    """Draws the rows, the first of which are the originals; replaces `path` atomically. Raises OSError."""
    with warnings.catch_warnings():
        # a character of a class's name that the font lacks is drawn as a box
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        _save(_draw(rows, title), path)


def _draw(rows: Sequence[SampleRow], title: str) -> FigureCanvasAgg:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(dpi=DPI)
    canvas = FigureCanvasAgg(figure)
    waves = rows[0].samples.dim() == 3
    pictures = [] if waves else [_pixels(row.samples) for row in rows]
    width, height = WAVE if waves else (pictures[0].shape[2], pictures[0].shape[1])
    columns = len(rows[0].samples)
    texts = [(row.label, LABEL) for row in rows] + [(note, NOTE) for row in rows for note in row.notes]
    left = 2 * EDGE + max(_width(canvas, text, size) for text, size in texts)
    right = max(left + columns * (width + GAP), 2 * EDGE + _width(canvas, title, LABEL)) - GAP + EDGE
    # the top of each row: its samples, then its captions below
    tops, end = [], EDGE + 2 * LINE
    for row in rows:
        tops.append(end)
        below = LINE * max((len(lines) for lines in row.captions), default=0)
        end += max(height + below, LINE * (len(row.notes) + 1)) + GAP
    bottom = end - GAP + EDGE
    figure.set_size_inches((right + 0.5) / DPI, (bottom + 0.5) / DPI)  # rounded down to full pixels

    paper = numpy.full((bottom, right, 3), 255, dtype=numpy.uint8)
    for picture, top in zip(pictures, tops, strict=not waves):
        for column, image in enumerate(picture):
            x = left + column * (width + GAP)
            paper[top : top + height, x : x + width] = image
    figure.figimage(paper)  # pixel by pixel, without resampling
    if waves:
        _draw_waves(figure, rows, tops, left, bottom)

    def write(x: float, y: float, text: str, size: int, align: str, color: str = "black") -> None:
        figure.text(
            x / right, 1 - y / bottom, text, fontsize=size, ha=align, va="center", color=color, parse_math=False
        )

    write(EDGE, EDGE + LINE / 2, title, LABEL, "left")
    for row, top in zip(rows, tops, strict=True):
        middle = top + max(LINE, height - LINE * len(row.notes)) / 2
        write(left - EDGE, middle, row.label, LABEL, "right")
        for line, note in enumerate(row.notes, 1):
            write(left - EDGE, middle + LINE * line + 1, note, NOTE, "right", "0.4")
        for column, lines in enumerate(row.captions):
            for line, text in enumerate(lines):
                centre = left + column * (width + GAP) + width / 2
                fitted = _fitted(canvas, text, width + GAP)
                write(centre, top + height + LINE * (line + 0.5), fitted, NOTE, "center", "0.25")
    return canvas


def _pixels(images: Tensor) -> numpy.ndarray:
    """Returns (N, H, W, 3) uint8: small images enlarged by an integer factor, large ones shrunk."""
    images = images.detach().float().cpu().clamp(0, 1)
    if images.shape[1] != 3:
        images = images[:, :1].expand(-1, 3, -1, -1)
    side = max(images.shape[2:])
    if side > LARGE:
        height, width = (max(1, round(length * LARGE / side)) for length in images.shape[2:])
        images = functional.interpolate(images, (height, width), mode="bilinear", antialias=True).clamp(0, 1)
    factor = max(1, round(SMALL / side))
    images = images.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    pixels: numpy.ndarray = images.permute(0, 2, 3, 1).mul(255).round().to(torch.uint8).numpy()
    return pixels


def _draw_waves(figure: Figure, rows: Sequence[SampleRow], tops: Iterable[int], left: int, bottom: int) -> None:
    """Draws waveforms on one scale, so that a gain shows."""
    from matplotlib.lines import Line2D
    from matplotlib.transforms import IdentityTransform

    width, height = WAVE
    loudest = max(float(row.samples.abs().max()) for row in rows) or 1.0
    for number, (row, top) in enumerate(zip(rows, tops, strict=True)):
        for column, wave in enumerate(row.samples[:, 0].detach().float().cpu().unbind()):
            x0, middle = left + column * (width + GAP), bottom - top - height / 2
            levels = envelope(wave, width) * (height / 2 / loudest) + middle
            x = torch.linspace(x0, x0 + width, len(levels))
            for points, color, thick in (
                (([x0, x0 + width], [middle, middle]), "0.85", 0.8),
                ((x.numpy(), levels.numpy()), VAL if number else TRAIN, 0.7),
            ):
                line = Line2D(*points, color=color, linewidth=thick, transform=IdentityTransform())
                figure.add_artist(line)


def envelope(wave: Tensor, width: int) -> Tensor:
    """Returns the wave itself if it is short, else the minimum and maximum of each of `width` parts."""
    if len(wave) <= 4 * width:
        return wave
    parts = torch.tensor_split(wave, width)
    return torch.stack([torch.stack((part.min(), part.max())) for part in parts]).flatten()


def _width(canvas: FigureCanvasAgg, text: str, size: int) -> int:
    from matplotlib.font_manager import FontProperties

    renderer = canvas.get_renderer()  # type: ignore[no-untyped-call]
    width: float = renderer.get_text_width_height_descent(text, FontProperties(size=size), False)[0]
    return round(width)


def _fitted(canvas: FigureCanvasAgg, text: str, width: int) -> str:
    if _width(canvas, text, NOTE) <= width:
        return text
    while text and _width(canvas, f"{text}…", NOTE) > width:
        text = text[:-1]
    return f"{text}…"


def _save(canvas: FigureCanvasAgg, path: Path) -> None:
    with replacing(path) as temporary:
        canvas.print_figure(temporary, format="png", dpi=DPI)
