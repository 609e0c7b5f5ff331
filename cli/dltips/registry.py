"""The names that tips of users import from here; new tips import them from dltips itself."""

from dltips.catalog.registry import Bounds, Count, Fraction, NonNegative, Positive, Size, family
from dltips.errors import ConfigError

__all__ = ["Bounds", "ConfigError", "Count", "Fraction", "NonNegative", "Positive", "Size", "family"]
