"""dltips compare: runs side by side, with statistics over seeds. Imports no torch."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from dltips.commands.arguments import Parser
from dltips.errors import ConfigError
from dltips.exit_codes import EXIT_OK

EPILOG = """\
Runs that differ in their seed alone make a group. Shown are n (seeds), mean, standard deviation and
95 % t interval of the metric at the best epoch, the mean training time, the size of the net, the mean
paired difference to the best group over the seeds that both have, and its p value (paired t-test,
Holm over the table). Only finished runs are averaged: n is 4/8 where 4 of 8 seeds diverged or
failed, and such a group stands below the complete ones. Settings that only some runs have are no
difference. Long numbers are shown with 6 digits where these tell the groups apart.

  dltips compare                                        all runs under ./outputs
  dltips compare last                                   those of the newest grid or search
  dltips compare outputs/SWEEP --by init --metric val/loss
  dltips compare 'outputs/2026*' --baseline init=xavier --csv table.csv --plot curves.png
"""


def run(arguments: list[str]) -> int:
    chosen = _parser().parse_args(arguments)
    # late: `--help` does not need it
    from dltips.insight import compare_table, comparison, comparison_plot
    from dltips.runs import past_runs

    by = None if chosen.by is None else [key.strip() for key in chosen.by.split(",") if key.strip()]
    if by == []:
        raise ConfigError(f"by: {chosen.by!r} names no setting; write --by init,optimizer.lr")
    if chosen.json and chosen.csv == "-":
        raise ConfigError("csv: - and --json would both go to stdout; give --csv a file")
    if chosen.plot is not None:
        comparison_plot.check_target(Path(chosen.plot))
    found = comparison.compare(past_runs.runs_in(chosen.places), by, chosen.metric, chosen.baseline)
    notes = comparison_plot.draw(found, Path(chosen.plot)) if chosen.plot is not None else []
    if chosen.csv not in (None, "-"):
        _write(chosen.csv, compare_table.as_csv(found))
        notes.append(f"table     {chosen.csv}")
    if chosen.json:
        print(json.dumps(comparison.as_json(found), indent=2, allow_nan=False))
    elif chosen.csv == "-":
        print(compare_table.as_csv(found), end="")
        notes = [*compare_table.below(found), *notes]
    else:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else compare_table.WIDTH
        _print(compare_table.table(found, width), compare_table.below(found))
    sys.stdout.flush()  # so that the notes come below the table
    for note in notes:
        print(note, file=sys.stderr)
    return EXIT_OK


def _parser() -> Parser:
    import argparse

    parser = Parser(
        prog="dltips compare",
        description="Compare runs, grouped by what differs apart from the seed.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("places", nargs="*", metavar="FOLDER", help="runs, sweeps, folders of them, or quoted patterns")
    parser.add_argument("--by", metavar="KEYS", help="the settings that make groups: init,optimizer.lr")
    parser.add_argument(
        "--metric",
        help="what to compare: val/loss, train_val_gap, seconds, layers/LAYER/variance, epochs_to:val/accuracy:0.95,"
        " ... (dltips ls metrics lists them); else what decided",
    )
    parser.add_argument("--baseline", metavar="GROUP", help="compare to this group, or to a run's, not to the best")
    parser.add_argument("--csv", metavar="FILE", help="write the table as CSV; - is stdout")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--plot", metavar="PNG", help="draw the groups' curves, with bands over seeds")
    return parser


def _write(name: str, content: str) -> None:
    try:
        Path(name).expanduser().write_text(content, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"csv: {name} cannot be written ({error.strerror}); choose another file") from error


def _print(lines: Sequence[tuple[str, bool]], below: Sequence[str]) -> None:
    """Prints the table; the reference is bold in a terminal."""
    encoding = sys.stdout.encoding or "ascii"
    if not encoding.lower().startswith("utf"):
        # characters that cannot be written are replaced; cells begin with blanks, so that the columns stay
        lines = [(_written(line.replace(" ±", "+-"), encoding), bold) for line, bold in lines]
        below = [_written(line, encoding) for line in below]
    if not sys.stdout.isatty():
        print("\n".join([*(line for line, _ in lines), *([""] if below else []), *below]))
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    for line, bold in lines:
        console.print(Text(line, style="bold" if bold else ""), soft_wrap=True)
    if below:
        console.print()
    for line in below:
        console.print(Text(line, style="dim"), soft_wrap=True)


def _written(line: str, encoding: str) -> str:
    return line.encode(encoding, "replace").decode(encoding)
