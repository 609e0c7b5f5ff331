"""`dltips sweep --workers N`: so many processes on one study; one that is killed is replaced while there is work."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing.connection import wait
from typing import Any

import torch

from dltips.main import EXIT_INTERRUPTED, EXIT_OK
from dltips.sweep.workers import settle

Work = Callable[[int], int]  # the worker's slot -> exit code

MOST_REPLACED = 20  # deaths in one command: a machine that kills so many has no memory for the sweep


def run(count: int, work: Work, say: Callable[[str], None]) -> int:
    """Start the workers and wait for them; the greatest exit code. `work` can be pickled: see below."""
    # a process with CUDA in it cannot be forked; what is spawned loads the data for itself
    context = multiprocessing.get_context("spawn" if torch.cuda.is_available() else "fork")
    stopping = False

    def start(slot: int) -> Any:
        process: Any = context.Process(target=_serve, args=(work, slot, count, os.getpid()))  # type: ignore[attr-defined]
        process.start()
        return process

    def stop(number: int, frame: object) -> None:
        nonlocal stopping
        stopping = True
        for process in crew.values():
            if process.is_alive():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGTERM)

    crew: dict[int, Any] = {}
    codes: list[int] = []
    replaced = 0
    theirs = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        crew |= {slot: start(slot) for slot in range(count)}
        while crew:
            ready = wait([process.sentinel for process in crew.values()])
            for slot, process in list(crew.items()):
                if process.sentinel not in ready:
                    continue
                process.join()
                del crew[slot]
                code = process.exitcode
                if code >= 0:
                    codes.append(code)
                    continue
                say(f"worker {slot}: killed by {signal.Signals(-code).name}; its trial goes on where it was")
                if stopping:
                    continue
                replaced += 1
                if replaced > MOST_REPLACED:
                    say(f"worker {slot}: is not replaced, since {replaced} were killed; is there memory enough?")
                else:
                    crew[slot] = start(slot)
    finally:
        for number, handler in theirs.items():
            signal.signal(number, handler)
    return EXIT_INTERRUPTED if stopping else max(codes, default=EXIT_OK)


def _serve(work: Work, slot: int, count: int, parent: int) -> None:
    settle(slot, count, parent)
    os._exit(_guarded(work, slot))


def _guarded(work: Work, slot: int) -> int:
    import sys
    import traceback

    code = 1
    try:
        code = work(slot)
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    except BaseException:
        traceback.print_exc()
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    return code
