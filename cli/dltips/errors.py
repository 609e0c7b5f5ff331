"""Errors of the user's, and suggestions for mistyped words."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass


class ConfigError(Exception):
    """The user's mistake, in one line: the key, the value, the remedy. Exit code 2, no traceback."""

    @property
    def key(self) -> str:
        """Returns the start of the message: `optimizer.lr` of `optimizer.lr: 'x' is not a number`."""
        return str(self).partition(":")[0]


class WrongType(ConfigError):
    """A value whose type does not fit its key."""

    def __init__(self, message: str, wanted: type) -> None:
        super().__init__(message)
        self.wanted = wanted


class OutputError(ConfigError):
    """A results folder or file that cannot be made or written; it affects all trials, not one."""


@dataclass(frozen=True)
class Suggestion:
    """The nearest known word, if any, and all known words; as text it ends an error's line."""

    nearest: str | None
    known: tuple[str, ...]

    def __str__(self) -> str:
        if self.nearest:
            return f"; did you mean {self.nearest}?"
        return f"; there is: {', '.join(self.known) or 'nothing'}"

    def __bool__(self) -> bool:
        return self.nearest is not None

    def or_else(self, text: str) -> str:
        """Returns the text if a word is near, else the given one."""
        return str(self) if self else text


def suggest(word: str, words: Iterable[str]) -> Suggestion:
    """Returns the suggestion for a word that is not among the known ones."""
    known = tuple(sorted(words))
    folded = {one.casefold(): one for one in known}
    close = difflib.get_close_matches(word.casefold(), folded, n=1, cutoff=0.6)
    return Suggestion(folded[close[0]] if close else None, known)
