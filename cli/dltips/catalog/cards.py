"""Defines a tip's card: the record above its function, next to the docstring; source_reader.py reads both."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True, kw_only=True)
class Card:
    """What the docstring's first line leaves open. Holds literals only, so that it is read without importing the tip.

    It is its own decorator: `@init` above `@card(...)` above the function.
    """

    when: str  # when it helps, and when it does not
    formula: str
    source: str
    costs: str  # time, memory, or other costs
    recommends: str = ""  # the figure that the source recommends; "" where it gives none
    # switch -> reason: a run that has both the tip and this switch is warned: `init=he`, `model.norm=batch`
    avoid: Mapping[str, str] = field(default_factory=dict)
    # overrides that the tip needs where the digits and an mlp are not enough: `model=cnn`
    try_with: Sequence[str] = ()

    def __call__(self, function: Function) -> Function:
        _cards[function] = self
        return function


card = Card
_cards: dict[Any, Card] = {}


def card_of(function: Callable[..., Any]) -> Card | None:
    """Returns a tip's card, None for a user's tip without one."""
    return _cards.get(function)
