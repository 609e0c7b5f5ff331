"""dltips predict RUN PATHS...: a trained net on new files."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

from dltips.commands.arguments import RUN, Parser
from dltips.errors import ConfigError
from dltips.exit_codes import EXIT_OK


def run(arguments: list[str]) -> int:
    parser = Parser(prog="dltips predict", description="The likeliest classes of new files, by a run's net.")
    parser.add_argument("run", help=RUN)
    parser.add_argument("paths", nargs="+", metavar="PATH", help="an image, a sound, a npz or csv file, or a folder")
    parser.add_argument("--top", type=int, metavar="K", help="classes for each sample (default: 3)")
    parser.add_argument("--checkpoint", choices=("best", "last"), default="best")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write a table as well: a line for each sample")
    chosen = parser.parse_args(arguments)
    if chosen.csv is not None and chosen.csv.exists():
        raise ConfigError(f"--csv: {chosen.csv} exists already; choose another name, or remove it first")
    from dltips.use.predict import predict

    found = predict(chosen.run, chosen.paths, chosen.top, chosen.checkpoint, chosen.device)
    if found["run"] != chosen.run:
        print(f"by {found['run']}", file=sys.stderr)
    if chosen.csv is not None:
        _write_csv(chosen.csv, found["predictions"])
    print(json.dumps(found, indent=2) if chosen.json else _table(found["predictions"]))
    return EXIT_OK


def _table(predictions: list[dict[str, Any]]) -> str:
    """Returns the table as text: a line for each sample, its name, then the classes, likeliest first."""
    rows = [
        [_plain(entry["name"]), *(text for one in entry["top"] for text in (_plain(one["class"]), _percent(one)))]
        for entry in predictions
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for name, *cells in rows:
        pairs = zip(cells[::2], widths[1::2], cells[1::2], widths[2::2], strict=True)
        classes = [f"{text:<{width}} {percent:>{space}}" for text, width, percent, space in pairs]
        lines.append("  ".join([f"{name:<{widths[0]}}", *classes]))
    return "\n".join(lines)


def _percent(one: dict[str, Any]) -> str:
    return f"{100 * one['probability']:.1f} %"


def _plain(name: str) -> str:
    """Returns a name of a file or folder without control sequences."""
    return "".join(sign if sign.isprintable() else "?" for sign in name)


def _write_csv(file: Path, predictions: list[dict[str, Any]]) -> None:
    ranks = range(1, len(predictions[0]["top"]) + 1)
    try:
        # exclusive: two processes cannot overwrite each other's file
        with file.open("x", encoding="utf-8", newline="") as opened:
            writer = csv.writer(opened)
            writer.writerow(["name", *(f"{part}_{rank}" for rank in ranks for part in ("class", "probability"))])
            for entry in predictions:
                cells = [one[part] for one in entry["top"] for part in ("class", "probability")]
                writer.writerow([entry["name"], *cells])
    except OSError as error:
        raise ConfigError(f"--csv: {file} cannot be written ({error.strerror})") from error
