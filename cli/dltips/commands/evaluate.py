"""dltips evaluate RUN: scores on the test split, which no other command reads."""

from __future__ import annotations

import json
from typing import Any

from dltips.commands.arguments import RUN, Parser
from dltips.exit_codes import EXIT_OK
from dltips.metrics import TABLE


def run(arguments: list[str]) -> int:
    parser = Parser(prog="dltips evaluate", description="Test-set scores of a run's best checkpoint.")
    parser.add_argument("run", help=RUN)
    parser.add_argument("--checkpoint", choices=("best", "last"), default="best")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", action="store_true", help="for programs")
    chosen = parser.parse_args(arguments)
    from dltips.use.evaluate import evaluate

    scores = evaluate(chosen.run, chosen.checkpoint, chosen.device)
    if chosen.json:
        print(json.dumps(scores, indent=2))
    else:
        _show(scores)
    return EXIT_OK


SHOWN = {"balanced_accuracy": "balanced", "macro_f1": "macro F1"}


def _number(score: float | None) -> str:
    return "-" if score is None else f"{score:.4f}"


def _show(scores: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    console.print(escape(scores["run"]), soft_wrap=True)
    names = ["loss", *(entry.name for entry in TABLE.values() if entry.source == "confusion")]
    shown = (f"{SHOWN.get(name, name)} {_number(scores[name])}" for name in names)
    console.print(
        f"test {'  '.join(shown)}  ({scores['samples']:,} samples,"
        f" {scores['checkpoint']} checkpoint of epoch {scores['epoch']})"
    )
    per_class = Table("class", "samples", "precision", "recall", "F1", box=None, header_style="bold")
    for column in per_class.columns[1:]:
        column.justify = "right"
    for entry in scores["per_class"]:
        numbers = [_number(entry[name]) for name in ("precision", "recall", "f1")]
        per_class.add_row(escape(entry["class"]), f"{entry['samples']:,}", *numbers)
    console.print(per_class)
    names, matrix = scores["classes"], scores["confusion"]
    if len(names) <= 20:
        confusion = Table("true \\ predicted", *map(escape, names), box=None, header_style="bold")
        for column in confusion.columns[1:]:
            column.justify = "right"
        for index, (name, row) in enumerate(zip(names, matrix, strict=True)):
            cells = [
                f"[bold green]{count}[/]" if at == index and count else f"[red]{count}[/]" if count else "[dim]0[/]"
                for at, count in enumerate(row)
            ]
            confusion.add_row(escape(name), *cells)
        console.print(confusion)
    else:
        pairs = [
            (count, names[i], names[j])
            for i, row in enumerate(matrix)
            for j, count in enumerate(row)
            if i != j and count
        ]
        console.print("most confused:")
        for count, true, predicted in sorted(pairs, reverse=True)[:10]:
            console.print(f"  {count:>5}  {escape(true)} taken for {escape(predicted)}")
    reads = scores["test_reads"]
    note = "" if reads == 1 else ": the more often it decides something, the less it is a test"
    console.print(f"the test split of this run has been read {reads} time{'s' if reads != 1 else ''}{note}")
