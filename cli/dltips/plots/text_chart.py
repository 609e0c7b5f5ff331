"""Draws loss and accuracy curves as text: braille dots, or ASCII if the terminal has no better characters."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

Point = tuple[float, float | None]  # epoch, value; None if it is missing
Curves = Mapping[str, list[Point]]  # by split
Dot = tuple[int, int]  # column, row; the row counts from the top

SPLITS = ("train", "val")
SIDE_BY_SIDE = 100  # columns from which the two panels stand beside each other
GAP = 4  # columns between them
NARROWEST = 8  # minimum columns of curve, even if `width` is exceeded
CYAN, YELLOW, RESET = "\x1b[36m", "\x1b[33m", "\x1b[0m"
BRAILLE = {
    (0, 0): 0x01, (1, 0): 0x08,
    (0, 1): 0x02, (1, 1): 0x10,
    (0, 2): 0x04, (1, 2): 0x20,
    (0, 3): 0x40, (1, 3): 0x80,
}  # fmt: skip


def chart(
    records: Sequence[Mapping[str, Any]],
    *,
    width: int = 72,
    height: int = 8,
    unicode: bool = True,
    color: bool = False,
) -> str:
    """Returns the chart of loss and accuracy of train and val over the epochs, in lines up to `width`.

    From 100 columns on the two panels stand beside each other, else one above the other, each with `height` rows of
    curve. Train is a solid line and val a dashed one; in ASCII they are `*` and `o`. A value that is missing, NaN or
    infinite leaves a gap. A loss that spans more than a decade gets a logarithmic axis, and says so.
    """
    marks = _Braille(color) if unicode else _Ascii(color)
    both = {quantity: _curves(records, quantity) for quantity in ("loss", "accuracy")}
    panels = [(quantity, curves) for quantity, curves in both.items() if curves]
    beside = width >= SIDE_BY_SIDE and len(panels) > 1
    each = (width - GAP) // 2 if beside else width
    drawn = [_panel(quantity, curves, each, height, marks) for quantity, curves in panels]
    rows = [(" " * GAP).join(row) for row in zip(*drawn, strict=True)] if beside else _stacked(drawn)
    return "\n".join(row.rstrip() for row in rows)


def _stacked(panels: Sequence[Sequence[str]]) -> list[str]:
    rows: list[str] = []
    for panel in panels:
        rows += [*([""] if rows else []), *panel]
    return rows


def _curves(records: Sequence[Mapping[str, Any]], quantity: str) -> Curves:
    """Returns the points of each split that holds the quantity in any record."""
    return {
        split: [(float(record.get("epoch", n)), _value(record, key)) for n, record in enumerate(records, 1)]
        for split, key in ((split, f"{split}/{quantity}") for split in SPLITS)
        if any(key in record for record in records)
    }


def _value(record: Mapping[str, Any], key: str) -> float | None:
    """Returns a record's value; NaN for null, by which JSON replaces NaN and infinity."""
    if key not in record:
        return None
    return float(record[key]) if isinstance(record[key], int | float) else math.nan


def _finite(points: Sequence[Point]) -> list[float]:
    return [value for _, value in points if value is not None and math.isfinite(value)]


class _Ascii:
    """One dot per cell: a letter for each split, and a third one where they meet."""

    across, down = 1, 1  # dots of a cell
    wall, tick, corner, floor = "|", "+", "+", "-"
    sample: Mapping[str, str] = {"train": "*", "val": "o", "both": "8"}

    def __init__(self, color: bool) -> None:
        self.paint = {"train": CYAN, "val": YELLOW} if color else {}

    def painted(self, split: str, text: str) -> str:
        return f"{self.paint[split]}{text}{RESET}" if split in self.paint else text

    def dashed(self, dots: Iterator[Dot]) -> Iterator[Dot]:
        return dots

    def cell(self, lit: Mapping[str, set[Dot]], column: int, row: int) -> str:
        here = [split for split in lit if (column, row) in lit[split]]
        return self.painted(here[-1], self.sample["both" if len(here) > 1 else here[0]]) if here else " "


class _Braille(_Ascii):
    """Eight dots per cell; val's line is dashed, to be distinguished from train's without colour."""

    across, down = 2, 4
    wall, tick, corner, floor = "│", "┤", "└", "─"
    sample: Mapping[str, str] = {"train": "⠒⠒⠒", "val": "⠒ ⠒"}

    def dashed(self, dots: Iterator[Dot]) -> Iterator[Dot]:
        """Yields every other cell's width of the dots; always the first one, which may be the only one."""
        for n, dot in enumerate(dots):
            if n == 0 or dot[0] // self.across % 2 == 0:
                yield dot

    def cell(self, lit: Mapping[str, set[Dot]], column: int, row: int) -> str:
        bits, topmost = 0, ""
        for split, dots in lit.items():
            for (x, y), bit in BRAILLE.items():
                if (column * 2 + x, row * 4 + y) in dots:
                    bits, topmost = bits | bit, split
        return self.painted(topmost, chr(0x2800 + bits)) if bits else " "


def _panel(quantity: str, curves: Curves, width: int, height: int, marks: _Ascii) -> list[str]:
    """Returns a header, `height` rows of curve, the x axis and its labels, each line `width` columns wide."""
    values = [value for points in curves.values() for value in _finite(points)]
    low, high = (min(values), max(values)) if values else (0.0, 0.0)
    is_log = quantity == "loss" and 0 < low < high / 10
    labels = _labels(low, high, is_log, height) if values else {}
    margin = max(5, *map(len, labels.values())) if labels else 5
    across = max(width - margin - 2, NARROWEST)
    lit = _lit(curves, (low, high), is_log, (across * marks.across, height * marks.down), marks)

    lines = [_header(f"{quantity} (log)" if is_log else quantity, curves, lit, margin + 2 + across, marks)]
    for row in range(height):
        label = labels.get(row, "")
        cells = "".join(marks.cell(lit, column, row) for column in range(across))
        lines.append(f"{label:>{margin}} {marks.tick if label else marks.wall}{cells}")
    lines.append(" " * (margin + 1) + marks.corner + marks.floor * across)
    lines.append(" " * (margin + 2) + _epochs(curves, across))
    return lines


def _header(title: str, curves: Curves, lit: Mapping[str, set[Dot]], width: int, marks: _Ascii) -> str:
    """Returns the title, and each split's mark with its last value; shorter if the panel is narrow."""
    last = {split: [value for _, value in points if value is not None][-1:] for split, points in curves.items()}
    full = {split: " ".join([split, *map(_short, last[split])]) for split in curves}
    if "both" in marks.sample and len(lit) > 1 and set.intersection(*lit.values()):
        full["both"] = "both"
    for texts in (full, {split: split for split in full}):
        plain = "".join(f"  {marks.sample[split]} {text}" for split, text in texts.items())
        if len(title + plain) <= width:
            shown = "".join(f"  {marks.painted(split, marks.sample[split])} {text}" for split, text in texts.items())
            return title + shown + " " * (width - len(title + plain))
    return title


def _short(value: float) -> str:
    return f"{value:#.4g}".rstrip(".")


def _labels(low: float, high: float, is_log: bool, height: int) -> dict[int, str]:
    """Returns the y axis' labels by row: the extremes, with as many digits as needed, and one in between."""
    if low == high:
        return {height // 2: f"{high:.3g}"}
    digits = next((n for n in range(3, 17) if f"{low:.{n}g}" != f"{high:.{n}g}"), 17)
    labels = {0: f"{high:.{digits}g}", height - 1: f"{low:.{digits}g}"}
    if height >= 6:
        middle = (height - 1) // 2
        share = middle / (height - 1)
        between = high * (low / high) ** share if is_log else high + (low - high) * share
        labels[middle] = f"{between:.{digits}g}"
    return labels


def _epochs(curves: Curves, across: int) -> str:
    """Returns the x axis' labels: the first epoch on the left, the last on the right."""
    first, last = (f"{epoch:g}" for epoch in _span(curves))
    if first == last:
        return f"epoch {first}".center(across)
    return first + "epoch".center(across - len(first) - len(last)) + last


def _span(curves: Curves) -> tuple[float, float]:
    epochs = [epoch for points in curves.values() for epoch, _ in points]
    return min(epochs), max(epochs)


def _lit(curves: Curves, span: tuple[float, float], is_log: bool, size: Dot, marks: _Ascii) -> dict[str, set[Dot]]:
    """Returns the dots of each split's line through its points, in a field of `size` dots."""
    scale = math.log if is_log else float
    first, last = _span(curves)
    low, high = map(scale, span)

    def dot(epoch: float, value: float) -> Dot:
        x = (epoch - first) / (last - first) if last > first else 0.5
        y = (high - scale(value)) / (high - low) if high > low else 0.5
        return int(x * (size[0] - 1) + 0.5), int(y * (size[1] - 1) + 0.5)

    lit: dict[str, set[Dot]] = {}
    for split, points in curves.items():
        lit[split] = set()
        for run in _unbroken(points):
            line = _line([dot(epoch, value) for epoch, value in run])
            lit[split].update(marks.dashed(line) if split == "val" else line)
    return lit


def _unbroken(points: Sequence[Point]) -> Iterator[list[tuple[float, float]]]:
    """Yields the sections of points with finite values."""
    run: list[tuple[float, float]] = []
    for epoch, value in (*points, (0.0, None)):
        if value is not None and math.isfinite(value):
            run.append((epoch, value))
        elif run:
            yield run
            run = []


def _line(corners: Sequence[Dot]) -> Iterator[Dot]:
    """Yields every dot on the straight lines between the points."""
    yield corners[0]
    for (x, y), (to_x, to_y) in pairwise(corners):
        steps = max(abs(to_x - x), abs(to_y - y))
        for step in range(1, steps + 1):
            yield round(x + (to_x - x) * step / steps), round(y + (to_y - y) * step / steps)
