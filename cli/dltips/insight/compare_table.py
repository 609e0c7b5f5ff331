"""Formats a comparison as text and as CSV."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence

from dltips.insight.compared_group import ComparedGroup
from dltips.insight.comparison import Comparison, record
from dltips.insight.groups import text, wrapped

WIDTH, NARROWEST = 100, 24  # of the table outside a terminal; of its first column
SPARED = ("MB", "seconds", "sd")  # columns left out in a narrow terminal, in this order
NOTHING, PRUNED = "-", "pruned"
LONGEST = 12  # letters of a status; ours are shorter
MOST = 50  # rows in a terminal; the CSV has all


def table(comparison: Comparison, width: int = WIDTH) -> list[tuple[str, bool]]:
    """Returns the lines, each with whether it is highlighted: the head, and the reference's row. Wraps long labels.

    Groups of pruned runs alone, of which a search has many, and columns without information are left out.
    """
    there = shown_rows(comparison)
    rows = there[:MOST]
    number = Formatter(max((abs(row.spread.mean) for row in rows if row.spread), default=0.0))
    head = ["n", comparison.metric, "sd", "95 %", "seconds", "MB", "difference", "p"]
    cells = [_cells(row, comparison, number) for row in rows]
    said = [column for column in range(len(head)) if not cells or any(line[column] != NOTHING for line in cells)]
    head, cells = [head[column] for column in said], [[line[column] for column in said] for line in cells]
    widths = [max(len(line[column]) for line in [head, *cells]) for column in range(len(head))]
    longest = max([len("group"), *(len(row.group.label) for row in rows)])
    dropped = []
    for name in SPARED:
        if name in head and min(longest, NARROWEST) + sum(widths) + 2 * len(widths) > width:
            at = head.index(name)
            dropped.append(name)
            del widths[at]
            for line in (head, *cells):
                del line[at]
    room = max(NARROWEST, width - sum(widths) - 2 * len(widths))
    first = min(room, longest)
    lines = [(_line("group", head, first, widths), True)]
    for row, line in zip(rows, cells, strict=True):
        label, *more = wrapped(row.group.label, first, "  ")
        lines.append((_line(label, line, first, widths), row.reference))
        lines += [(part, row.reference) for part in more]
    if dropped:
        lines.append((f"the terminal is too narrow for {' and '.join(dropped)}; --csv FILE has all", False))
    if len(there) > MOST:
        lines.append((f"... and {len(there) - MOST} more groups; --csv FILE has them all", False))
    return lines


def shown_rows(comparison: Comparison) -> Sequence[ComparedGroup]:
    """Returns the rows without the groups of pruned runs alone; all rows if there are no others."""
    return [row for row in comparison.rows if row.spread or set(row.left_out) != {PRUNED}] or comparison.rows


def below(comparison: Comparison) -> list[str]:
    """Returns the notes below the table: what is left out, how values are computed."""
    lines = []
    count = comparison.left_out_count
    if count:
        lines.append(f"{count} run{'' if count == 1 else 's'} left out: {', '.join(comparison.left_out)}")
    hidden = len(comparison.rows) - len(shown_rows(comparison))
    if hidden:
        groups = "1 group of pruned runs" if hidden == 1 else f"{hidden} groups of pruned runs"
        lines.append(f"{groups} alone not shown; --csv FILE has all")
    reference, tests = comparison.reference, sum(row.p is not None for row in comparison.rows)
    if reference is not None and tests:
        kind = "baseline" if comparison.baseline else _first(comparison)
        picked = "" if comparison.baseline else f"; the {kind} was picked by looking, --baseline names one beforehand"
        holm = f", Holm over {tests}" if tests > 1 else ""
        lines.append(f"p: paired t-test over seeds, to the {kind}{holm}{picked}")
    if len(comparison.rows) == 1 and not comparison.by:
        lines.append("nothing differs apart from the seed: one group")
    return lines + [f"note: {note}" for note in comparison.notes]


def _first(comparison: Comparison) -> str:
    """Returns the description of the first group."""
    return "best" if comparison.better else "lowest"


def _line(label: str, cells: Sequence[str], first: int, widths: Sequence[int]) -> str:
    columns = (cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
    return f"{label:<{first}}  {'  '.join(columns)}".rstrip()


def _cells(row: ComparedGroup, comparison: Comparison, number: Formatter) -> list[str]:
    if row.spread is None:
        became = max(row.left_out, key=row.left_out.__getitem__, default=NOTHING)
        return [row.n, "no value" if became.startswith("without ") else became[:LONGEST] or NOTHING, *[NOTHING] * 6]
    found = row.spread
    difference = NOTHING if row.difference is None else f"{'+' if row.difference > 0 else ''}{number(row.difference)}"
    if row.reference:
        difference = "baseline" if comparison.baseline else _first(comparison)
    return [
        row.n,
        number(found.mean),
        NOTHING if found.deviation is None else number(found.deviation),
        NOTHING if found.high is None else f"±{number(found.high - found.mean)}",
        NOTHING if row.seconds is None else f"{row.seconds:,.{1 if row.seconds >= 10 else 2}f}",
        NOTHING if row.size_mb is None else f"{row.size_mb:.3g}" if row.size_mb < 1000 else f"{row.size_mb:,.0f}",
        difference,
        NOTHING if row.p is None else "<0.0001" if row.p < 0.0001 else f"{row.p:.4f}",
    ]


class Formatter:
    """Formats one table's numbers with decimals for four digits of the largest, and at least four below ten."""

    def __init__(self, largest: float) -> None:
        self.scientific = largest >= 1e9 or 0 < largest < 1e-4
        digits = math.floor(math.log10(largest)) + 1 if largest > 0 else 0
        self.decimals = 4 if 0 <= digits <= 1 else max(0, 4 - digits)

    def __call__(self, value: float) -> str:
        return f"{value:.3e}" if self.scientific else f"{value:,.{self.decimals}f}"


def as_csv(comparison: Comparison) -> str:
    """Returns a line per group, in full precision; each differing setting has a column."""
    stream = io.StringIO()
    keys = list(comparison.by)
    records = [record(row) for row in comparison.rows]
    figures = (
        [name for name in records[0] if name not in ("group", "settings", "folders", "left_out")] if records else []
    )
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["group", *keys, *figures, "left_out"])
    for entry in records:
        settings = [text(entry["settings"][key], None) if key in entry["settings"] else "" for key in keys]
        out = json.dumps(entry["left_out"]) if entry["left_out"] else ""
        writer.writerow(
            [entry["group"], *settings, *("" if entry[name] is None else entry[name] for name in figures), out]
        )
    return stream.getvalue()
