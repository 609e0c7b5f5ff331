"""Identifies a worker, and tells whether it is alive."""

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
    """A process. Two of one `machine` share a process table: the boot's id and the process namespace, or ""."""

    host: str
    machine: str
    pid: int
    started: str  # start time in clock ticks since boot: distinguishes a reused pid


def this_worker() -> WorkerId:
    return WorkerId(socket.gethostname(), _machine(), os.getpid(), _started(os.getpid()) or "")


def is_dead(worker: Mapping[str, Any], me: WorkerId, age: float, grace: float | None) -> bool:
    """Returns whether it is dead: here by the process table; elsewhere after `grace` seconds without a heartbeat.

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
        return ""  # not Linux: heartbeats alone


def _started(pid: int) -> str | None:
    """Returns the start time; None if there is no such process, or only a zombie."""
    try:
        # the second field is the program's name in brackets, which may contain anything
        state, *rest = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return None
    return None if state in ("Z", "X", "x") else rest[18]
