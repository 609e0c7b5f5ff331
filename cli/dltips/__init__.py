"""dltips: deep-learning tips as switches, and each switch as evidence. Own tips import their parts from here."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from dltips.catalog.cards import card as card
    from dltips.catalog.registry import Bounds as Bounds
    from dltips.catalog.registry import Count as Count
    from dltips.catalog.registry import Fraction as Fraction
    from dltips.catalog.registry import NonNegative as NonNegative
    from dltips.catalog.registry import Positive as Positive
    from dltips.catalog.registry import Score as Score
    from dltips.catalog.registry import Size as Size
    from dltips.catalog.registry import family as family
    from dltips.errors import ConfigError as ConfigError
    from dltips.metrics import metric as metric

_HOMES = {
    "card": "catalog.cards",
    "ConfigError": "errors",
    "metric": "metrics",
    **dict.fromkeys(
        ("Bounds", "Count", "Fraction", "NonNegative", "Positive", "Score", "Size", "family"), "catalog.registry"
    ),
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"dltips.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'dltips' has no attribute {name!r}")
