"""dltips ls: families, a family's options, all tips, recipes, metrics, the stages of a net."""

from __future__ import annotations

import argparse
import json

from dltips import paths
from dltips.catalog import source_reader
from dltips.catalog.registry import FAMILIES, user_file
from dltips.commands.arguments import Parser
from dltips.errors import ConfigError, suggest
from dltips.exit_codes import EXIT_OK

WORDS = (*FAMILIES, "tips", "recipes", "metrics", "stages")

EPILOG = """\
The stages of a net, by the names that finetune takes: dltips ls stages MODEL [KEY=VALUE ...]
Metrics of each epoch: for metric=, monitor, a search's objective and compare --metric. All others: for
compare --metric; of a whole run, without the goals (epochs_to, seconds_to), for a search's objective as well.
"""


def run(arguments: list[str]) -> int:
    if "stages" in arguments[:1] or (arguments[:1] == ["--json"] and "stages" in arguments[1:2]):
        from dltips.commands import stages

        return stages.run([word for word in arguments if word != "stages"])
    what = "List families, options, recipes and metrics."
    layout = argparse.RawDescriptionHelpFormatter
    parser = Parser(prog="dltips ls", description=what, epilog=EPILOG, formatter_class=layout)
    parser.add_argument(
        "what", nargs="?", help="a family, `tips` (all families), `recipes` or `metrics`; nothing: everything"
    )
    parser.add_argument("--seed", action="store_true", help="the articles' tips and claims, and what switches each")
    parser.add_argument("--json", action="store_true", help="for programs")
    chosen = parser.parse_args(arguments)
    if chosen.what not in (None, *WORDS):
        raise ConfigError(
            f"ls: {chosen.what!r} is neither a family nor `tips`, `recipes` or `metrics`{suggest(chosen.what, WORDS)}"
        )
    if chosen.seed and chosen.what not in (None, "tips"):
        raise ConfigError(f"ls: --seed lists tips, not {chosen.what}; write dltips ls tips --seed")
    for module in paths.user_modules():
        user_file(module)
    if chosen.seed:
        return _seed(chosen.json)
    wanted = (*FAMILIES, "recipes", "metrics") if chosen.what is None else (chosen.what,)
    listing = {name: _listed(name) for name in wanted}
    if chosen.json:
        print(json.dumps(listing, indent=2))
        return EXIT_OK
    for name, options in listing.items():
        if chosen.what is None:
            print(f"\n{name}=" if name in FAMILIES else f"\n{name}")
        width = max(map(len, options), default=0)
        for option, text in options.items():
            print(f"  {option:<{width}}  {text}".rstrip())
    return EXIT_OK


def _listed(name: str) -> dict[str, str]:
    if name == "tips":
        return source_reader.tips()
    if name == "metrics":
        return {name: entry.line for name, entry in source_reader.metrics().items()}
    return _recipes() if name == "recipes" else source_reader.options(name)


def _seed(as_json: bool) -> int:
    """Prints the articles' tips and claims, each with its switch; returns the exit code."""
    from dltips.catalog import article_tips

    if as_json:
        listed = [
            {"id": row.id, "switch": row.switch, "claim": row.says, "state": row.state}
            | {"section": section, "articles": list(row.letters), "try": row.command}
            for section, rows in article_tips.TABLE.items()
            for row in rows
        ]
        print(json.dumps(listed, indent=2))
        return EXIT_OK
    for section, rows in article_tips.TABLE.items():
        print(f"\n{section}")
        # the wider column comes last
        columns = sorted(
            ([row.switch for row in rows], [row.says for row in rows]), key=lambda texts: max(map(len, texts))
        )
        columns.insert(0, [row.id for row in rows])
        widths = [max(map(len, texts)) for texts in columns[:2]]
        for row, *texts in zip(rows, *columns, strict=True):
            later = "  (not yet)" if row.later else ""
            print(f"  {texts[0]:<{widths[0]}}  {texts[1]:<{widths[1]}}  {texts[2]}{later}")
    return EXIT_OK


def _recipes() -> dict[str, str]:
    """Returns recipe -> the first line of its header."""
    from dltips.config import recipes

    found = {}
    for name in recipes.names():
        try:
            lines = recipes.text_of(name).splitlines()
        except ConfigError:
            lines = ["# cannot be read"]
        found[name] = next(
            (line.lstrip("# ") for line in lines if line.startswith("# ") and "@package" not in line), ""
        )
    return found
