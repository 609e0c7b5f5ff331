"""dltips diff: the differences between two runs. Imports no torch."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from dltips.commands.arguments import RUN, Parser
from dltips.errors import ConfigError
from dltips.exit_codes import EXIT_OK

if TYPE_CHECKING:
    from rich.text import Text

    from dltips.insight.difference import Change


def run(arguments: list[str]) -> int:
    parser = Parser(
        prog="dltips diff", description="Show the settings in which two runs differ, their results, and their versions."
    )
    parser.add_argument("first", metavar="RUN", help=RUN)
    parser.add_argument("second", metavar="RUN", help="the run to compare it with")
    parser.add_argument("--json", action="store_true", help="for programs")
    chosen = parser.parse_args(arguments)
    # late: `--help` does not need it
    from dltips.insight import comparison, difference
    from dltips.runs import past_runs

    first, second = (past_runs.find(name) for name in (chosen.first, chosen.second))
    for one in (first, second):
        if not one.settings:
            raise ConfigError(f"{one.path}: its settings cannot be read; config.yaml and summary.json are damaged")
    found = {
        "settings": difference.settings(first, second),
        "results": difference.results(first, second),
        "circumstances": difference.provenance(first, second),
    }
    if chosen.json:
        names = ("first", "second")
        plain = {
            section: {
                change.key: {names[side]: comparison.plain(value) for side, value in change.values.items()}
                for change in changes
            }
            for section, changes in found.items()
        }
        print(json.dumps({"runs": [str(first.path), str(second.path)], **plain}, indent=2))
        return EXIT_OK
    _print([str(first.path), str(second.path)], found)
    return EXIT_OK


def _print(folders: Sequence[str], found: Mapping[str, Sequence[Change]]) -> None:
    """Prints a line per key: the first run's value in red, the second's in green; plain outside a terminal."""
    from rich.console import Console
    from rich.text import Text

    changes = [change for section in found.values() for change in section]
    lines = [Text.assemble(("- ", "red"), (_literal(folders[0]), "red"))]
    lines.append(Text.assemble(("+ ", "green"), (_literal(folders[1]), "green")))
    if not changes:
        lines.append(Text("nothing differs: settings, results, versions and data are the same"))
    elif not found["settings"]:
        lines.append(Text("no setting differs"))
    keys = max((len(_literal(change.key)) for change in changes), default=0)
    values = min(40, max((len(change.shown(0)) for change in changes), default=0))
    for section in found.values():
        if section:
            lines.append(Text())
        lines += [_line(change, keys, values) for change in section]
    console = Console(highlight=False)
    for line in lines:
        console.print(line if sys.stdout.isatty() else line.plain, soft_wrap=True, markup=False)


def _line(change: Change, keys: int, values: int) -> Text:
    from rich.text import Text

    line = Text.assemble(
        f"{_literal(change.key):<{keys}}  ",
        (f"{change.shown(0):<{values}}", "red" if 0 in change.values else "dim"),
        "  ->  ",
        (change.shown(1), "green" if 1 in change.values else "dim"),
    )
    first, second = (change.values.get(side) for side in (0, 1))
    if "/" in change.key and isinstance(first, float) and isinstance(second, float):
        line.append(f"  ({second - first:+.4f})")
    return line


def _literal(written: str) -> str:
    """Returns the text without control sequences."""
    return "".join(char for char in written if char.isprintable())
