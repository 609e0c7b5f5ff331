"""Who a worker is, and whether it still lives."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROC = Path("/proc")


@dataclass(frozen=True)
class WorkerId:
    """A process. Two of one `machine` share a table of processes: the boot's id and the process namespace, or ""."""

    host: str
    machine: str
    pid: int
    started: str  # in clock ticks since the boot: a number that is given to a second process is told apart


def this_worker() -> WorkerId:
    return WorkerId(socket.gethostname(), _machine(), os.getpid(), _started(os.getpid()) or "")


def is_dead(worker: Mapping[str, Any], me: WorkerId, age: float, grace: float | None) -> bool:
    """On this machine by its table of processes; elsewhere after `grace` seconds without a sign of life.

    A stopped process (SIGSTOP, a suspended laptop) is not dead.
    """
    if me.machine and worker.get("machine") == me.machine:
        pid = worker.get("pid")
        return type(pid) is not int or _started(pid) != worker.get("started")
    return grace is not None and age > grace


def _machine() -> str:
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink(PROC / 'self/ns/pid')}"
    except OSError:
        return ""  # no Linux: signs of life alone


def _started(pid: int) -> str | None:
    """None if there is no such process, or one that is dead and not yet waited for."""
    try:
        # the second field is the program's name in brackets, which may hold anything
        state, *rest = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return None
    return None if state in ("Z", "X", "x") else rest[18]
