"""Formats numbers, times, settings and tables."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

SETTING_DIGITS = 12  # digits of a number: 0.1 + 0.2 is 0.3, and no two typed numbers become equal


def few(names: Iterable[object], most: int = 3) -> str:
    """Returns the first few of a list, and how many more there are."""
    texts = [str(name) for name in names]
    return ", ".join(texts[:most]) + (f" and {len(texts) - most} more" if len(texts) > most else "")


def clock(seconds: float) -> str:
    """Returns 3:05 or 1:02:03."""
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def label(varied: Mapping[str, Any]) -> str:
    """Returns init=he optimizer.lr=0.1."""
    return " ".join(f"{key}={override_text(value)}" for key, value in varied.items()) or "as it is"


def override_text(value: Any) -> str:
    """Returns a setting as people type it."""
    if isinstance(value, list):
        return f"[{','.join(override_text(inner) for inner in value)}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def columns(rows: Sequence[Sequence[str]], left: int = 0) -> list[str]:
    """Returns cells in columns, the first `left` of them aligned left, the others right."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def setting_text(value: Any, digits: int | None = SETTING_DIGITS) -> str:
    """Returns a setting as typed, 1 and 1.0 alike; digits=None: the shortest text that reads back as the same number.

    Control characters, which a terminal obeys, are dropped.
    """
    if isinstance(value, str):
        return "".join(char for char in value if char.isprintable())
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, list | tuple):
        return f"[{','.join(setting_text(inner, digits) for inner in value)}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{setting_text(key)}: {setting_text(inner, digits)}' for key, inner in value.items())}}}"
    if isinstance(value, float):
        return repr(value) if digits is None else f"{value:.{digits}g}"
    return json.dumps(value, default=str)


def rounded(value: float, digits: int) -> str:
    """Rounds to so many digits; a number that has more before its point is written in full: 0.123457, 1234568."""
    return f"{value:.{digits}g}" if abs(value) < 10**digits else f"{value:.0f}"


def four_digits(value: float) -> str:
    """Writes four digits, zeros included: 0.5000, 12.30, 1234."""
    return f"{value:#.4g}".rstrip(".")


def seconds_text(seconds: float) -> str:
    """Formats seconds: 1.23, from ten on 12.3."""
    return f"{seconds:,.{1 if seconds >= 10 else 2}f}"


def megabytes(size: float) -> str:
    """Formats a size: 0.123, from a thousand on 1,234."""
    return f"{size:.3g}" if size < 1000 else f"{size:,.0f}"


def p_value(p: float) -> str:
    """Formats a p value: 0.0123, or <0.0001."""
    return "<0.0001" if p < 0.0001 else f"{p:.4f}"


class ColumnNumbers:
    """Formats one table's numbers with decimals for four digits of the largest, and at least four below ten."""

    def __init__(self, largest: float) -> None:
        self.scientific = largest >= 1e9 or 0 < largest < 1e-4
        digits = math.floor(math.log10(largest)) + 1 if largest > 0 else 0
        self.decimals = 4 if 0 <= digits <= 1 else max(0, 4 - digits)

    def __call__(self, value: float) -> str:
        return f"{value:.3e}" if self.scientific else f"{value:,.{self.decimals}f}"
