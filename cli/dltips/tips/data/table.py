"""Reads tables: numbers unchanged (missing ones are NaN), categories as one feature per level."""

from __future__ import annotations

import csv as standard_csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy

from dltips.catalog.cards import card
from dltips.errors import ConfigError, suggest
from dltips.tips.data.npz import given_file
from dltips.tips.data.source import Acquired, Source, cached, data, file_stamp

FILE_KEY = "data.file"  # the start of error messages in training
VERSION = "1"  # a new one makes every file be read again
DELIMITERS = ",;\t|"
MISSING = frozenset(("", "?", "-", "na", "n/a", "nan", "null", "none"))
NUMERIC_SHARE = 0.9  # a column with at least this share of numbers is numeric
MOST_LEVELS = 20  # more levels, and more than half as many as rows: an identifier or a measured value


@dataclass(frozen=True)
class Table:
    """A file's cells as texts, column by column, and the line in which each row starts."""

    path: Path
    columns: Mapping[str, Sequence[str]]
    lines: Sequence[int]
    delimiter: str


@data.named("csv")
@card(
    when="measurements in a table, one row per sample; compare with model=svm, which often does as well",
    formula="a number is a feature; a category is a feature per level, 1 for its own and 0 for the others",
    source="RFC 4180",
    costs="the first run reads the file, about a second for 50,000 rows of 15 columns; later runs map the arrays",
    try_with=("data.file=PATH", "data.label=COLUMN"),
)
def csv(
    *,
    file: str | None,
    label: str | int | None,
    categorical: tuple[str, ...] | None,
    ignore: tuple[str, ...],
    delimiter: str | None,
) -> Source:
    """A table (.csv, UTF-8, first line the names of the columns): numbers and categories, and a column of labels.

    Numbers become float32, NaN where missing (empty, ?, NA, ...); preprocessing puts the training mean there.
    Categories become one feature per level, in sorted order, what is missing being a level. With categorical=null
    those are the columns that are not numbers. Raises ConfigError with line and column.
    """
    path = given_file(file, "table (.csv)")
    label = None if label is None else str(label)  # a column may be called 3
    key = "\n".join([VERSION, file_stamp(path), repr((label, categorical, ignore, delimiter))])
    return cached("csv", key, lambda: _acquire(path, label, categorical, ignore, delimiter))


def read_table(path: Path, delimiter: str | None, where: str) -> Table:
    """Returns the stripped cells; finds the delimiter in the header if not given. Raises ConfigError, `where` first."""
    text = _text(path, where)
    header = next((line for line in text.splitlines() if line.strip()), "")
    if delimiter is None:
        # the one that gives the most names
        delimiter = max(DELIMITERS, key=lambda each: len(next(standard_csv.reader([header], delimiter=each), [])))
    rows = _rows(path, text, delimiter, where)
    _, names = next(rows, (0, []))
    if not names:
        raise ConfigError(f"{where}: {path} is empty; its first line must name the columns")
    for position, name in enumerate(names):
        if not name or name in names[:position]:
            problem = f"has two columns called {name}" if name else f"has no name for column {position + 1}"
            raise ConfigError(f"{where}: {path} {problem}; its first line must name each column")
    lines, cells = [], []
    for line, row in rows:
        if len(row) != len(names):
            raise ConfigError(f"{where}: {path}, line {line} has {len(row)} cells, but the header {len(names)}")
        lines.append(line)
        cells.append(row)
    if not cells:
        raise ConfigError(f"{where}: {path} has a header, but no rows")
    return Table(path, dict(zip(names, zip(*cells, strict=True), strict=True)), lines, delimiter)


def encode(table: Table, columns: Sequence[str], categories: Mapping[str, Sequence[str]], where: str) -> numpy.ndarray:
    """Returns (N, F) float32 of the columns, categories as one feature per level. Raises ConfigError."""
    parts = [
        _one_hot(table, name, categories[name], where) if name in categories else _numbers(table, name, where)[:, None]
        for name in columns
    ]
    return numpy.concatenate(parts, axis=1, dtype=numpy.float32)


def is_missing(cell: str) -> bool:
    return cell.casefold() in MISSING


def _text(path: Path, where: str) -> str:
    if path.is_dir():
        raise ConfigError(f"{where}: {path} is a folder; give a .csv file")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{where}: {path} cannot be read ({error.strerror}); check its permissions") from error
    try:
        return content.decode("utf-8-sig")  # Excel writes a byte order mark
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{where}: {path}, line {line} is not UTF-8; save the table as UTF-8") from error


def _rows(path: Path, text: str, delimiter: str, where: str) -> Iterator[tuple[int, list[str]]]:
    """Yields each row with the line in which it starts; skips empty lines."""
    line = 1
    try:
        reader = standard_csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        for row in reader:
            if any(map(str.strip, row)) or len(row) > 1:
                yield line, [cell.strip() for cell in row]
            line = reader.line_num + 1
    except TypeError as error:
        raise ConfigError(
            f"data.delimiter: {delimiter!r} is not a single character; write data.delimiter=null"
        ) from error
    except standard_csv.Error as error:
        raise ConfigError(f"{where}: {path}, line {line} is not a row of a table ({error}); fix its quotes") from error


def _number(cell: str) -> float | None:
    """Returns the cell's number; None if it is not finite, or too large for float32."""
    if "_" in cell:  # Python reads 1_000
        return None
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) and abs(value) < 3.4e38 else None


def _numbers(table: Table, name: str, where: str) -> numpy.ndarray:
    """Returns (N,) float32, NaN where missing. Raises ConfigError."""
    values = numpy.empty(len(table.lines), numpy.float32)
    for row, cell in enumerate(table.columns[name]):
        value = math.nan if is_missing(cell) else _number(cell)
        if value is None:
            remedy = ", or list the column in data.categorical" if where == FILE_KEY else ""
            raise ConfigError(
                f"{where}: {table.path}, line {table.lines[row]}: {name} is {cell!r}, which is not a number;"
                f" fix or empty the cell{remedy}"
            )
        values[row] = value
    return values


def _level(cell: str) -> str:
    return "" if is_missing(cell) else cell


def _one_hot(table: Table, name: str, levels: Sequence[str], where: str) -> numpy.ndarray:
    """Returns (N, levels); a row of zeros for a missing cell in a column without missing levels. Raises ConfigError."""
    positions = {level: position for position, level in enumerate(levels)}
    encoded = numpy.zeros((len(table.lines), len(levels)), numpy.float32)
    for row, cell in enumerate(map(_level, table.columns[name])):
        if cell in positions:
            encoded[row, positions[cell]] = 1
        elif cell:
            hint = suggest(cell, levels) if len(levels) <= MOST_LEVELS else ""
            raise ConfigError(
                f"{where}: {table.path}, line {table.lines[row]}: {name} is {cell!r}, which training never saw{hint}"
            )
    return encoded


def _acquire(
    path: Path,
    label: str | None,
    categorical: Sequence[str] | None,
    ignore: Sequence[str],
    delimiter: str | None,
) -> Acquired:
    table = read_table(path, delimiter, FILE_KEY)
    if label is None:
        raise ConfigError(
            f"data.label: is missing; give the column to predict, data.label=NAME; there is: {', '.join(table.columns)}"
        )
    for key, names in (("label", [label]), ("categorical", categorical or ()), ("ignore", ignore)):
        for name in names:
            if name not in table.columns:
                raise ConfigError(f"data.{key}: {path} has no column {name!r}{suggest(name, table.columns)}")
    for key, names in (("categorical", categorical or ()), ("ignore", ignore)):
        if label in names:
            raise ConfigError(f"data.{key}: {label} is the column of the labels; take it off the list")
    columns = [name for name in table.columns if name != label and name not in ignore]
    if not columns:
        raise ConfigError(f"data.file: {path} has no column beside the labels to learn from")
    classes = _classes(table, label)
    numbers = {name: number for number, name in enumerate(classes)}
    categorical_names = (
        [name for name in columns if _is_categorical(table, name)] if categorical is None else categorical
    )
    categories = {name: sorted(set(map(_level, table.columns[name]))) for name in columns if name in categorical_names}
    arrays = {
        "inputs": encode(table, columns, categories, FILE_KEY),
        "targets": numpy.asarray([numbers[cell] for cell in table.columns[label]], numpy.int64),
    }
    reader: dict[str, Any] = {
        "kind": "csv",
        "columns": columns,
        "categories": categories,
        "delimiter": delimiter,
        "missing": bool(numpy.isnan(arrays["inputs"]).any()),
    }
    return Acquired(arrays, classes, reader)


def _classes(table: Table, label: str) -> list[str]:
    """Returns the sorted labels, numbers by value, texts alphabetically. Raises ConfigError."""
    cells = table.columns[label]
    for row, cell in enumerate(cells):
        if not cell:
            raise ConfigError(f"data.file: {table.path}, line {table.lines[row]}: {label} is empty; delete the row")
    distinct = set(cells)
    if len(distinct) < 2:
        raise ConfigError(f"data.label: {label} holds one class only ({cells[0]}); there must be two")
    if _too_many(distinct, cells):
        raise ConfigError(
            f"data.label: {label} has {len(distinct)} different values in {len(cells)} rows, which are not"
            " classes; give another column"
        )
    numbers = {cell: _number(cell) for cell in distinct}
    if any(value is None for value in numbers.values()):
        return sorted(distinct)
    return sorted(distinct, key=lambda cell: (numbers[cell], cell))


def _is_categorical(table: Table, name: str) -> bool:
    """Returns whether a column is of texts. Raises ConfigError if it is neither numbers nor categories."""
    present = [cell for cell in table.columns[name] if not is_missing(cell)]
    share = sum(_number(cell) is not None for cell in present) / max(1, len(present))
    if share >= NUMERIC_SHARE or not present:
        return False  # a stray text among numbers is reported when they are read
    if _too_many(set(present), present):
        raise ConfigError(
            f"data.ignore: {name} has {len(set(present))} different texts in {len(present)} rows, which are no"
            f" categories; leave the column out with 'data.ignore=[{name}]', or list it in data.categorical"
        )
    return True


def _too_many(distinct: set[str], cells: Sequence[str]) -> bool:
    return len(distinct) > MOST_LEVELS and 2 * len(distinct) > len(cells)
