"""Handles signals: which ones end a run, and who handles them for how long. No other module sets a handler."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

Handler = Callable[[int, Any], Any] | int | None


def present(*names: str) -> tuple[signal.Signals, ...]:
    """Returns those of the named signals that this platform has."""
    return tuple(getattr(signal, name) for name in names if hasattr(signal, name))


# schedulers send SIGUSR1 shortly before a job's time is over
STOPPING = present("SIGINT", "SIGTERM", "SIGUSR1")


def interrupt(number: int, frame: object) -> None:
    """Raises KeyboardInterrupt: a handler that turns a signal into a ctrl-C."""
    raise KeyboardInterrupt


def install(handler: Handler, numbers: Iterable[int] = STOPPING) -> dict[int, Any]:
    """Sets the handler for good; returns the previous ones."""
    return {number: signal.signal(number, handler) for number in numbers}


@contextlib.contextmanager
def handling(handler: Handler, numbers: Iterable[int] = STOPPING) -> Iterator[None]:
    """Sends the signals to the handler during the block, then restores the old ones. No effect in other threads."""
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
    """Blocks signals while the block runs: a new process inherits its parent's handlers until it sets its own."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def unblock() -> None:
    """Delivers the signals received since `signals_blocked`."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
