"""What is the user's mistake, and the nearest word to what was typed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ConfigError(Exception):
    """The user's mistake, in one line: the key, the value, the remedy. Exit code 2, no traceback."""


def suggest(word: str, words: Iterable[str]) -> str:
    """`; did you mean X?` if something is close, else the list of what there is."""
    words = sorted(words)
    folded = {known.casefold(): known for known in words}
    close = difflib.get_close_matches(word.casefold(), folded, n=1, cutoff=0.6)
    return f"; did you mean {folded[close[0]]}?" if close else f"; there is: {', '.join(words) or 'nothing'}"
