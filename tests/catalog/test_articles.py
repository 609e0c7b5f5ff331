"""The articles' letters in a card's source, and the command of a tip."""

import re

import pytest

from dltips.catalog import articles
from dltips.catalog.article_tips import ROWS
from dltips.catalog.articles import SOURCES
from dltips.config.overrides import parse

# "B (its author)", "S, B's reply 10 (T says otherwise)": what stands in brackets says more, perhaps of another article
BRACKETS = re.compile(r"\([^)]*\)")


def letters(articles: str) -> set[str]:
    """The articles that a cell of the list names."""
    return set(re.findall(rf"\b[{''.join(SOURCES)}]\b", BRACKETS.sub("", articles)))


def test_a_command_asks_for_a_grid_where_it_compares() -> None:
    commands = {row.id: row.command for row in ROWS}
    assert commands["he"] == "dltips train +recipe=quickstart init=he"
    assert commands["audio"].endswith(" 'augmentation=[time_shift,distort]'") and " -m " not in commands["audio"]
    assert commands["init_decides"].startswith("dltips train -m +recipe=quickstart model.norm=none init=zeros,")
    for row in ROWS:
        swept = any(override.is_sweep_override() for override in parse(list(row.overrides)))
        assert (" -m " in row.command) == (swept and not row.later), row.id


@pytest.mark.parametrize(
    ("text", "letters"),
    [
        ("tips K, S and T; He et al. 2015", "KST"),
        ("tip B; Keras", "B"),
        ("tips S and B", "SB"),
        ("Kingma and Ba 2015, arXiv 1412.6980", ""),
        ("tips K and S; see B. Recht, T. Hinton", "KS"),
        ("-", ""),
    ],
)
def test_the_articles_that_a_card_cites(text: str, letters: str) -> None:
    assert set(articles.cited(text)) == set(letters)
