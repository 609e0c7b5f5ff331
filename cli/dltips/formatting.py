"""Formats numbers, times, settings and tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


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
