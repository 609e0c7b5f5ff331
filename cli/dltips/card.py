"""The name that tips of users import from here; new tips import it from dltips itself."""

from dltips.catalog.cards import Card, card

__all__ = ["Card", "card"]
