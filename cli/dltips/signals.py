"""Signals: which of them end a run, and who handles them for how long. No other module sets a handler."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

Handler = Callable[[int, Any], Any] | int | None


def present(*names: str) -> tuple[signal.Signals, ...]:
    """Those of the named signals that this platform has."""
    return tuple(getattr(signal, name) for name in names if hasattr(signal, name))


# SIGUSR1 is how schedulers announce that a job's time is nearly over
STOPPING = present("SIGINT", "SIGTERM", "SIGUSR1")


def interrupt(number: int, frame: object) -> None:
    """A handler that turns a signal into a ctrl-C."""
    raise KeyboardInterrupt


def install(handler: Handler, numbers: Iterable[int] = STOPPING) -> dict[int, Any]:
    """Set the handler for good; returns the previous ones."""
    return {number: signal.signal(number, handler) for number in numbers}


@contextlib.contextmanager
def handling(handler: Handler, numbers: Iterable[int] = STOPPING) -> Iterator[None]:
    """Within, the signals go to the handler; then the previous ones are back. In another thread nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = install(handler, numbers)
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)


@contextlib.contextmanager
def signals_blocked() -> Iterator[None]:
    """Within, signals wait: a process that starts has its parent's handlers until it sets its own."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def unblock() -> None:
    """Deliver what has come since `signals_blocked`."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
