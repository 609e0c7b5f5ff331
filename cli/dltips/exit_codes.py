"""Exit codes, and the one line on stderr with which a command fails; verbs.py decides which."""

from __future__ import annotations

import sys

EXIT_OK, EXIT_INTERNAL, EXIT_USAGE, EXIT_DIVERGED, EXIT_PARTLY, EXIT_INTERRUPTED = 0, 1, 2, 4, 5, 130


def fail(message: str, code: int = EXIT_USAGE) -> int:
    """Prints one line to stderr; returns the exit code."""
    print(f"dltips: {' '.join(message.split())}", file=sys.stderr)
    return code
