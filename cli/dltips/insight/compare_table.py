"""Formats a comparison as text and as CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence

from dltips.formatting import ColumnNumbers, megabytes, p_value, seconds_text, setting_text
from dltips.insight.compared_group import ComparedGroup
from dltips.insight.comparison import Comparison, group_record
from dltips.insight.groups import wrap_label

DEFAULT_WIDTH, NARROWEST_LABEL = 100, 24  # of the table outside a terminal; of its first column
SPARED_COLUMNS = ("MB", "seconds", "sd")  # columns left out in a narrow terminal, in this order
NO_VALUE, PRUNED = "-", "pruned"
LONGEST_STATUS = 12  # letters of a status; ours are shorter
MOST_ROWS = 50  # rows in a terminal; the CSV has all


def table(comparison: Comparison, width: int = DEFAULT_WIDTH) -> list[tuple[str, bool]]:
    """Returns the lines, each with whether it is highlighted: the head, and the reference's row. Wraps long labels.

    Groups of pruned runs alone, of which a search has many, and columns without information are left out.
    """
    all_rows = shown_rows(comparison)
    rows = all_rows[:MOST_ROWS]
    number = ColumnNumbers(max((abs(row.spread.mean) for row in rows if row.spread), default=0.0))
    head = ["n", comparison.metric, "sd", "95 %", "seconds", "MB", "difference", "p"]
    cells = [_cells(row, comparison, number) for row in rows]
    filled = [column for column in range(len(head)) if not cells or any(line[column] != NO_VALUE for line in cells)]
    head, cells = [head[column] for column in filled], [[line[column] for column in filled] for line in cells]
    widths = [max(len(line[column]) for line in [head, *cells]) for column in range(len(head))]
    longest_label = max([len("group"), *(len(row.group.label) for row in rows)])
    dropped = []
    for name in SPARED_COLUMNS:
        if name in head and min(longest_label, NARROWEST_LABEL) + sum(widths) + 2 * len(widths) > width:
            index = head.index(name)
            dropped.append(name)
            del widths[index]
            for line in (head, *cells):
                del line[index]
    label_room = max(NARROWEST_LABEL, width - sum(widths) - 2 * len(widths))
    label_width = min(label_room, longest_label)
    lines = [(_line("group", head, label_width, widths), True)]
    for row, line in zip(rows, cells, strict=True):
        label, *continued = wrap_label(row.group.label, label_width, "  ")
        lines.append((_line(label, line, label_width, widths), row.reference))
        lines += [(part, row.reference) for part in continued]
    if dropped:
        lines.append((f"the terminal is too narrow for {' and '.join(dropped)}; --csv FILE has all", False))
    if len(all_rows) > MOST_ROWS:
        lines.append((f"... and {len(all_rows) - MOST_ROWS} more groups; --csv FILE has them all", False))
    return lines


def shown_rows(comparison: Comparison) -> Sequence[ComparedGroup]:
    """Returns the rows without the groups of pruned runs alone; all rows if there are no others."""
    return [row for row in comparison.rows if row.spread or set(row.left_out) != {PRUNED}] or comparison.rows


def footnotes(comparison: Comparison) -> list[str]:
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
        kind = "baseline" if comparison.baseline else _first_group(comparison)
        caveat = "" if comparison.baseline else f"; the {kind} was picked by looking, --baseline names one beforehand"
        holm = f", Holm over {tests}" if tests > 1 else ""
        lines.append(f"p: paired t-test over seeds, to the {kind}{holm}{caveat}")
    if len(comparison.rows) == 1 and not comparison.by:
        lines.append("nothing differs apart from the seed: one group")
    return lines + [f"note: {note}" for note in comparison.notes]


def _first_group(comparison: Comparison) -> str:
    """Returns the description of the first group."""
    return "best" if comparison.better else "lowest"


def _line(label: str, cells: Sequence[str], label_width: int, widths: Sequence[int]) -> str:
    columns = (cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
    return f"{label:<{label_width}}  {'  '.join(columns)}".rstrip()


def _cells(row: ComparedGroup, comparison: Comparison, number: ColumnNumbers) -> list[str]:
    if row.spread is None:
        status = max(row.left_out, key=row.left_out.__getitem__, default=NO_VALUE)
        return [
            row.n,
            "no value" if status.startswith("without ") else status[:LONGEST_STATUS] or NO_VALUE,
            *[NO_VALUE] * 6,
        ]
    spread = row.spread
    difference = NO_VALUE if row.difference is None else f"{'+' if row.difference > 0 else ''}{number(row.difference)}"
    if row.reference:
        difference = "baseline" if comparison.baseline else _first_group(comparison)
    return [
        row.n,
        number(spread.mean),
        NO_VALUE if spread.deviation is None else number(spread.deviation),
        NO_VALUE if spread.high is None else f"±{number(spread.high - spread.mean)}",
        NO_VALUE if row.seconds is None else seconds_text(row.seconds),
        NO_VALUE if row.size_mb is None else megabytes(row.size_mb),
        difference,
        NO_VALUE if row.p is None else p_value(row.p),
    ]


def as_csv(comparison: Comparison) -> str:
    """Returns a line per group, in full precision; each differing setting has a column."""
    stream = io.StringIO()
    keys = list(comparison.by)
    records = [group_record(row) for row in comparison.rows]
    figures = (
        [name for name in records[0] if name not in ("group", "settings", "folders", "left_out")] if records else []
    )
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["group", *keys, *figures, "left_out"])
    for entry in records:
        settings = [setting_text(entry["settings"][key], None) if key in entry["settings"] else "" for key in keys]
        left_out = json.dumps(entry["left_out"]) if entry["left_out"] else ""
        writer.writerow(
            [entry["group"], *settings, *("" if entry[name] is None else entry[name] for name in figures), left_out]
        )
    return stream.getvalue()
