"""The articles' tips and claims: none is missing, and every switch that is said to be available is one."""

import itertools
import json
import re

import pytest

from dltips import paths
from dltips.catalog import article_tips, articles, source_reader
from dltips.catalog.article_tips import ROWS
from dltips.catalog.articles import SOURCES, ArticleTip
from dltips.catalog.registry import FAMILIES
from dltips.commands.verbs import VERBS
from dltips.config.composition import compose
from dltips.config.overrides import parse
from dltips.config.validation import validate
from dltips.main import main

TABLE = paths.CHECKOUT.parent / "shared" / "TIPS.md"
NAMED = re.compile(r"[a-z]+(?:\.[a-z_]+)?=(?:\[[a-z_,]+\]|[a-z0-9_.]+)|dltips [a-z]+|[a-z]+\.(?:[a-z_]+|\*)")


# "B (its author)", "S, B's reply 10 (T says otherwise)": what stands in brackets says more, perhaps of another article
BRACKETS = re.compile(r"\([^)]*\)")


def letters(articles: str) -> set[str]:
    """The articles that a cell of the list names."""
    return set(re.findall(rf"\b[{''.join(SOURCES)}]\b", BRACKETS.sub("", articles)))


def arms(row: ArticleTip) -> list[tuple[str, ...]]:
    """The runs of a row's grid."""
    choices = [
        [f"{override.key_or_group}={value}" for value in override.sweep_string_iterator()]
        if override.is_sweep_override()
        else [str(override.input_line)]
        for override in parse(list(row.overrides))
    ]
    return list(itertools.product(*choices))


@pytest.mark.parametrize("row", [row for row in ROWS if row.overrides and not row.later], ids=lambda row: row.id)
def test_every_switch_that_is_available_is_a_valid_run(row: ArticleTip) -> None:
    runs = arms(row)
    validate(compose(["+recipe=quickstart", *runs[-1]])[0])
    for run in runs:
        for override in run:
            family, _, option = override.partition("=")
            if family in FAMILIES:
                assert set(re.findall(r"\w+", option)) <= set(source_reader.options(family)), override


@pytest.mark.parametrize("row", [row for row in ROWS if row.later], ids=lambda row: row.id)
def test_what_is_not_yet_there_is_not_there(row: ArticleTip) -> None:
    """So that the table is put right when it comes."""
    verb = re.match(r"dltips (\w+)", row.switch)
    if verb:
        assert verb[1] not in VERBS or row.id == "mc_dropout"
    assert row.command == "" and row.state == "not yet"


def test_a_switch_of_another_verb_is_one() -> None:
    for row in ROWS:
        if row.switch.startswith("dltips") and not row.later:
            assert row.switch.split()[1] in VERBS


def test_names_are_unique_and_every_row_says_something() -> None:
    assert len({row.id for row in ROWS}) == len(ROWS)
    for row in ROWS:
        assert row.letters and set(row.letters) <= set(SOURCES)
        assert 3 < len(row.says) <= 80 and not row.says.endswith(".")
        assert article_tips.row(row.id) is row
    assert article_tips.row("nosuch") is None


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_cards_cite_the_articles_of_the_tips_that_they_are(row: ArticleTip) -> None:
    """A row may switch several options on: between them they cite all of its articles."""
    options = [switch.split("=") for switch in row.switch.split(", ") if re.fullmatch(r"\w+=\w+", switch)]
    cards = [source_reader.entry(family, option).card for family, option in options if family in FAMILIES]
    cited = {letter for card in cards if card is not None for letter in articles.cited(card.source)}
    assert not cards or set(row.letters) <= cited


@pytest.mark.parametrize(
    ("cell", "articles"),
    [
        ("K, S, T", "KST"),
        ("S, B's reply 10 (B's article prefers -1 to +1)", "SB"),
        ("K, S; T by size alone (medium: the last layer and the head)", "KST"),
        ("K (SVM), S (linear classifier; T has none)", "KS"),
        ("B (its author)", "B"),
        ("", ""),
    ],
)
def test_what_stands_in_brackets_names_no_further_article(cell: str, articles: str) -> None:
    assert letters(cell) == set(articles)


# Against the list itself, which is no part of the package


def table() -> dict[str, list[tuple[str, str, str]]]:
    """Section -> (id, switch, articles) of each row; a claim has no switch."""
    found: dict[str, list[tuple[str, str, str]]] = {}
    section = ""
    for line in TABLE.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            section = line[3:]
            found[section] = []
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("| ") else []
        if cells and cells[0] != "id":
            switch, articles = ("", cells[1]) if section.startswith("Further") else (cells[1], cells[2])
            more = re.findall(r"; (\w+): ", cells[2]) if not switch else []  # a claim within a claim
            found[section] += [(name, switch, articles) for name in [*cells[0].split(", "), *more]]
    return {section: rows for section, rows in found.items() if rows}


def not_yet(row: ArticleTip, switch: str) -> bool:
    """Whether the list wants a knob that the option of the row does not have."""
    key = switch.partition("=")[0]
    family = key.partition(".")[0]
    chosen = [option for override in row.overrides for name, _, option in [override.partition("=")] if name == family]
    if not chosen or not re.fullmatch(r"\w+\.\w+", key):
        return False
    return key not in {knob.key for option in [*chosen, "_common"] for knob in source_reader.knobs(family, option)}


with_the_list = pytest.mark.skipif(not TABLE.is_file(), reason=f"{TABLE.name} is not here")


@with_the_list
def test_every_row_of_the_list_is_here_in_its_order() -> None:
    sections = table()
    assert [[name for name, _, _ in section] for section in sections.values()] == [
        [row.id for row in section] for section in article_tips.TABLE.values()
    ]
    assert sum(map(len, sections.values())) == len(ROWS) > 80


@with_the_list
def test_every_switch_goes_by_the_name_that_the_list_gives_it() -> None:
    for name, switch, named in itertools.chain(*table().values()):
        row = article_tips.row(name)
        assert row is not None
        assert set(row.letters) == letters(named), name
        given = [one for one in NAMED.findall(switch.replace("`", "")) if not not_yet(row, one)]
        here = {row.switch, *row.switch.split(", "), *row.overrides}
        for one in given:
            assert one in here or (one == "optimizer=..." and row.switch == f"optimizer={name}"), (name, one)
        assert given or switch in ("", "every config", "optimizer=..."), (name, switch)


def test_ls_prints_every_row_on_a_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls", "tips", "--seed"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert [line.split()[0] for line in lines] == [row.id for row in ROWS]
    for row, line in zip(ROWS, lines, strict=True):
        assert row.switch in line and row.says in line and line.endswith("(not yet)") == row.later


def test_json_holds_the_same_and_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls", "--seed", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [(row["id"], row["switch"], row["claim"], row["state"], row["try"]) for row in listed] == [
        (row.id, row.switch, row.says, row.state, row.command) for row in ROWS
    ]
