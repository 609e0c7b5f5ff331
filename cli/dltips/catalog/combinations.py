"""Warns of combinations that make no sense: each card names what its tip conflicts with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dltips.catalog.cards import card_of
from dltips.catalog.registry import FAMILIES, Tip

Chosen = Mapping[str, Sequence[Tip]]  # by family


def warnings(tips: Chosen, resolved: Mapping[str, Any]) -> list[str]:
    """Returns one line, with the reason, for each chosen tip and each switch of the run that its card warns of."""
    found: dict[frozenset[str], str] = {}  # by the pair: if two tips warn of each other, only the first warning counts
    for family, chosen_tips in tips.items():
        for tip in chosen_tips:
            card, chosen = card_of(tip.function), f"{family}={tip.name}"
            for switch, reason in (card.avoid if card else {}).items():
                if is_on(tips, resolved, switch):
                    found.setdefault(frozenset((chosen, switch)), f"{chosen} with {switch}: {reason}")
    return list(found.values())


def is_on(tips: Chosen, resolved: Mapping[str, Any], switch: str) -> bool:
    """Returns whether a run has `family=option` or `key=value`."""
    key, _, value = switch.partition("=")
    if key in FAMILIES:
        return value in [tip.name for tip in tips[key]]
    found: Any = resolved
    for part in key.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return False
        found = found[part]
    return ("null" if found is None else str(found).lower()) == value.lower()
