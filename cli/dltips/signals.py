"""Signals: which of them end a run, and how they are held, blocked and given back."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

# what ends a run; SIGUSR1 is how schedulers say beforehand that the time is over
STOPPING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))


@contextlib.contextmanager
def signals_blocked() -> Iterator[None]:
    """Within, signals wait: a process that starts has our handler until it sets its own, and is in no list yet."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def interrupt(number: int, frame: object) -> None:
    """A handler that makes a signal a ctrl-C."""
    raise KeyboardInterrupt
