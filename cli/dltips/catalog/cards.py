"""A tip's card: the record that stands above its function, next to the docstring; `dltips explain` prints both."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a docstring's first line, which says what the tip does, leaves open. Literals only: read without import.

    It is its own decorator: `@init` above `@card(...)` above the function.
    """

    when: str  # when it helps, and when it does not
    formula: str
    source: str
    costs: str  # time, memory, or what else it takes
    recommends: str = ""  # the figure that the source recommends; "" where it gives none
    # switch -> reason: what it does not go with. `init=he`, `model.norm=batch`: a run that has both is warned
    avoid: Mapping[str, str] = field(default_factory=dict)
    # overrides with which the tip is at home, where the digits and an mlp are not enough: `model=cnn`
    try_with: Sequence[str] = ()

    def __call__(self, function: Function) -> Function:
        _cards[function] = self
        return function


card = Card
_cards: dict[Any, Card] = {}


def card_of(function: Callable[..., Any]) -> Card | None:
    """None for a tip of the user's own that has none."""
    return _cards.get(function)
