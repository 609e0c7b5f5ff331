"""A tip's card stands above its function and changes nothing about it."""

import ast
import dataclasses
import inspect

import pytest

from dltips.catalog.cards import Card, card, card_of

WORDS = {"when": "always", "formula": "x", "source": "tips K and S", "costs": "nothing"}


def test_a_card_is_found_by_its_function_which_stays_the_same() -> None:
    def tip() -> int:
        return 3

    assert card(**WORDS)(tip) is tip and tip() == 3
    assert card_of(tip) == Card(**WORDS)
    assert card_of(lambda: 3) is None


def test_what_a_tip_has_no_use_for_is_left_out_and_the_rest_is_not() -> None:
    plain = Card(**WORDS)
    assert (plain.recommends, plain.avoid, plain.try_with) == ("", {}, ())
    for word in WORDS:
        with pytest.raises(TypeError, match=word):
            Card(**{name: text for name, text in WORDS.items() if name != word})
    with pytest.raises(TypeError, match="wehn"):
        card(**WORDS, wehn="never")


def test_two_cards_share_nothing_and_none_can_be_changed() -> None:
    first, second = Card(**WORDS), Card(**WORDS)
    assert first.avoid is not second.avoid
    with pytest.raises(dataclasses.FrozenInstanceError):
        first.when = "never"  # type: ignore[misc]


def test_its_module_needs_no_torch() -> None:
    """`dltips explain` makes cards of what it reads in the sources."""
    tree = ast.parse(inspect.getsource(inspect.getmodule(Card)))  # type: ignore[arg-type]
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert modules == {"__future__", "collections.abc", "dataclasses", "typing"}
