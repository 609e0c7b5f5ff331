"""dltips explain TIP: prints a tip's card, its docstring and its knobs."""

from __future__ import annotations

import json
import re
import shlex
import textwrap
from typing import TYPE_CHECKING, Any

from dltips import paths
from dltips.catalog import article_tips, articles, source_reader
from dltips.catalog.registry import FAMILIES, user_file
from dltips.commands.arguments import Parser
from dltips.errors import ConfigError, suggest
from dltips.exit_codes import EXIT_OK

if TYPE_CHECKING:
    from rich.console import Console

    from dltips.metrics import Metric

MAX_WIDTH = 100  # longer lines are hard to read
LABEL = 15
NARROWEST = 24


def run(arguments: list[str]) -> int:
    parser = Parser(prog="dltips explain", description="A tip's card: what, when, formula, source, costs, knobs.")
    parser.add_argument(
        "tip",
        help="an option (he, init=he), a family, a knob (model.norm), a metric (val/macro_f1), or a name from"
        " `dltips ls tips --seed`",
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    chosen = parser.parse_args(arguments)
    for module in paths.user_modules():
        user_file(module)
    found, show = _found(chosen.tip)
    if chosen.json:
        print(json.dumps(found, indent=2))
        return EXIT_OK
    from rich.console import Console

    show(Console(highlight=False, soft_wrap=True), found)
    return EXIT_OK


def _found(name: str) -> tuple[dict[str, Any], Any]:
    """Returns the explanation as data, and the function that prints it. Raises ConfigError."""
    if name in FAMILIES:
        return about_family(name), _show_family
    if name.partition(".")[0] in FAMILIES and "." in name:
        return about_knob(name.partition("=")[0]), _show_knob
    options = {family: source_reader.options(family) for family in FAMILIES}
    family, separator, option = re.sub(r"[\[\]'\"]", "", name).replace("/", "=", 1).rpartition("=")
    if separator and family in FAMILIES:
        if option not in options[family]:
            owners = [other for other in FAMILIES if option in options[other]]
            hint = f"; did you mean {owners[0]}={option}?" if owners else suggest(option, options[family])
            raise ConfigError(f"explain: {option!r} is not an option of {family}{hint}")
        return about_tip(family, option), _show_tip
    owners = [family for family in FAMILIES if name in options[family]]
    if len(owners) > 1:
        ways = ", ".join(f"{family}={name}" for family in owners)
        raise ConfigError(f"explain: {name!r} is an option of {len(owners)} families; say which: {ways}")
    if owners:
        return about_tip(owners[0], name), _show_tip
    row = article_tips.row(name)
    if row is not None:
        return about_row(row), _show_row
    metrics = source_reader.metrics()
    if (typed := name.removeprefix("metric=")) in metrics:
        return about_metric(typed, metrics[typed]), _show_metric
    listed = (option for family in options.values() for option in family)
    known = {*FAMILIES, *listed, *(row.id for row in article_tips.ROWS)}
    known |= metrics.keys()
    hint = suggest(name, known).or_else("; `dltips ls tips` lists them")
    raise ConfigError(f"explain: {name!r} is not a tip{hint}")


# The explanations as data


def about_tip(family: str, option: str) -> dict[str, Any]:
    """Returns a tip's card and what goes with it, as plain data."""
    entry = source_reader.entry(family, option)
    card = entry.card
    found: dict[str, Any] = {"tip": entry.switch, "family": family, "what": entry.docstring}
    if card is not None:
        found |= {"when": card.when, "formula": card.formula, "recommends": card.recommends, "costs": card.costs}
        found |= {"source": card.source, "articles": articles.cited(card.source), "avoid": dict(card.avoid)}
    found["avoided_by"] = {
        f"{other}={name}": record.avoid[entry.switch]
        for other in FAMILIES
        for name, record in source_reader.cards(other).items()
        if record is not None and entry.switch in record.avoid
    }
    found["knobs"] = _knobs(family, option)
    found["shared_knobs"] = [knob["key"] for knob in _knobs(family, "_common")]
    found["try"] = f"dltips train +recipe=quickstart {shlex.join([entry.switch, *entry.at_home])}"
    found["claims"] = {
        row.says: row.command
        for row in article_tips.ROWS
        if row.command.startswith("dltips train -m") and _names(row, entry)
    }
    return found


def _names(row: articles.ArticleTip, entry: source_reader.Entry) -> bool:
    """Returns whether one arm of a comparison has this option."""
    choices = dict(override.split("=", 1) for override in row.overrides)
    return entry.name in re.findall(r"\w+", choices.get(entry.family, "")) and "," in choices[entry.family]


def about_family(family: str) -> dict[str, Any]:
    return {
        "family": family,
        "what": source_reader.module_docstring(family),
        "options": source_reader.options(family),
        "shared_knobs": _knobs(family, "_common"),
    }


def about_knob(key: str) -> dict[str, Any]:
    """Returns the knob in each option that has it. Raises ConfigError."""
    family = key.partition(".")[0]
    knobs = {option: _knobs(family, option) for option in [*source_reader.options(family), "_common"]}
    found = {option: knob for option, listed in knobs.items() for knob in listed if knob["key"] == key}
    if not found:
        known = {knob["key"] for listed in knobs.values() for knob in listed}
        hint = suggest(key, known).or_else(f"; `dltips explain {family}` lists its options")
        raise ConfigError(f"explain: {key!r} is not a knob of {family}{hint}")
    commands = {
        row.says: row.command for row in article_tips.ROWS if any(one.startswith(f"{key}=") for one in row.overrides)
    }
    return {"knob": key, "options": found, "tips": commands}


def about_row(row: articles.ArticleTip) -> dict[str, Any]:
    """Returns a tip of the articles that is not an option: a knob's value, a verb, a comparison."""
    found = {
        "tip": row.id,
        "what": row.says,
        "switch": row.switch,
        "articles": {letter: articles.SOURCES[letter] for letter in row.letters},
    }
    return found | {"state": row.state, "try": row.command}


def about_metric(name: str, entry: Metric) -> dict[str, Any]:
    """Returns a metric's description, its direction, and the keys that take it."""
    uses = [f"dltips compare --metric {name}"]
    if entry.source in ("loop", "confusion", "record"):
        uses = [f"dltips train metric={name}", f"dltips sweep objective={name}", *uses]
    elif entry.source == "run":
        uses = [f"dltips sweep 'objective=[val/accuracy,{name}]'", *uses]
    return {"metric": name, "what": entry.line, "better": entry.better, "try": uses}


def _knobs(family: str, option: str) -> list[dict[str, Any]]:
    return [
        {
            "key": knob.key,
            "default": knob.default,
            "override": f"{knob.key}={knob.written.replace(', ', ',')}",
            "comment": knob.comment,
        }
        for knob in source_reader.knobs(family, option)
    ]


# The explanations as text


def _show_tip(console: Console, found: dict[str, Any]) -> None:
    console.print(found["tip"], style="bold")
    _show_text(console, found["what"] or "Says nothing of itself.")
    console.print()
    if "when" not in found:
        _row(console, "card", "none: it stands above the function, as @card(when=..., formula=..., ...)")
    for label, key in (
        ("when it helps", "when"),
        ("formula", "formula"),
        ("recommended", "recommends"),
        ("costs", "costs"),
        ("source", "source"),
    ):
        if found.get(key):
            _row(console, label, found[key])
    for letter, title in found.get("articles", {}).items():
        _row(console, "", f"{letter}: {title}", style="dim")
    label, warnings = "not with", found.get("avoid", {}) | found["avoided_by"]
    for reason in dict.fromkeys(warnings.values()):
        switches = ", ".join(switch for switch in warnings if warnings[switch] == reason)
        _row(console, label, f"{switches}: {reason}")
        label = ""
    _show_knobs(console, "knobs", found["knobs"])
    if found["shared_knobs"]:
        shared = ", ".join(key.partition(".")[2] for key in found["shared_knobs"])
        text = f"every {found['family']} option also has {shared}: dltips explain {found['family']}"
        _row(console, "" if found["knobs"] else "knobs", text, style="dim")
    label = "try"
    for what, command in {"": found["try"], **found["claims"]}.items():
        if what:
            _row(console, "to settle" if label else "", what)
        _command(console, label if not what else "", command)
        label = "" if what else label


def _show_family(console: Console, found: dict[str, Any]) -> None:
    console.print(f"{found['family']}=", style="bold")
    _show_text(console, found["what"])
    console.print()
    width = max(map(len, found["options"]))
    for option, line in found["options"].items():
        _hanging(console, f"  {option:<{width}}  ", line, "cyan")
    if found["shared_knobs"]:
        console.print()
        _show_knobs(console, "all of them", found["shared_knobs"])


def _show_knob(console: Console, found: dict[str, Any]) -> None:
    console.print(found["knob"], style="bold")
    console.print()
    names = {option: "every option" if option == "_common" else option for option in found["options"]}
    width = max(LABEL - 2, *map(len, names.values()))
    for option, knob in found["options"].items():
        comment = f"  {knob['comment']}" if knob["comment"] else ""
        _hanging(console, f"{names[option]:<{width}}  ", f"{knob['override']}{comment}", "cyan")
    label = "try"
    for says, command in found["tips"].items():
        _row(console, label, says)
        _command(console, "", command)
        label = ""


def _show_row(console: Console, found: dict[str, Any]) -> None:
    console.print(found["tip"], style="bold")
    _show_text(console, f"{found['what'][0].upper()}{found['what'][1:]}.")
    console.print()
    _row(console, "switch", found["switch"] + ("" if found["state"] == "available" else " (not yet)"))
    label = "source"
    for letter, title in found["articles"].items():
        _row(console, label, f"{letter}: {title}")
        label = ""
    if found["try"]:
        _command(console, "try", found["try"])


def _show_metric(console: Console, found: dict[str, Any]) -> None:
    console.print(found["metric"], style="bold")
    _show_text(console, found["what"])
    console.print()
    for label, command in zip(("try", "", ""), found["try"], strict=False):
        _command(console, label, command)


def _show_knobs(console: Console, label: str, knobs: list[dict[str, Any]]) -> None:
    width = max((len(knob["override"]) for knob in knobs), default=0)
    beside = LABEL + width + 2 + NARROWEST <= console.width
    for knob in knobs:
        if knob["comment"] and beside:
            _hanging(console, f"{label:<{LABEL}}{knob['override']:<{width}}  ", knob["comment"], "cyan", LABEL)
        else:
            _row(console, label, knob["override"])
            if knob["comment"]:
                _row(console, "", f"  {knob['comment']}")
        label = ""


def _show_text(console: Console, text: str) -> None:
    """Prints a docstring: refills its paragraphs, and keeps indented lines."""
    for index, paragraph in enumerate(re.split(r"\n\s*\n", text)):
        if index:
            console.print()
        if re.search(r"^ ", paragraph, re.MULTILINE):
            console.print(paragraph, markup=False)
        else:
            _hanging(console, "", " ".join(paragraph.split()))


def _row(console: Console, label: str, text: str, style: str = "") -> None:
    _hanging(console, f"{label:<{LABEL}}", text, "cyan", text_style=style)


def _command(console: Console, label: str, command: str) -> None:
    """Prints a command on one line, however long, to be copied."""
    _print(console, f"{label:<{LABEL}}", command, "cyan", "green")


def _hanging(
    console: Console, lead: str, text: str, style: str = "", styled: int | None = None, text_style: str = ""
) -> None:
    """Prints text filled to the right of its lead, whose first characters are styled."""
    width = min(console.width, MAX_WIDTH)
    lines = textwrap.wrap(text, max(NARROWEST, width - len(lead)), break_long_words=False, break_on_hyphens=False) or [
        ""
    ]
    for index, line in enumerate(lines):
        _print(console, lead if index == 0 else " " * len(lead), line, style, text_style, styled)


def _print(
    console: Console, lead: str, text: str, style: str = "", text_style: str = "", styled: int | None = None
) -> None:
    from rich.text import Text

    styled = len(lead) if styled is None else styled
    line = Text.assemble((lead[:styled], style), lead[styled:], (text, text_style))
    line.rstrip()
    console.print(line)
