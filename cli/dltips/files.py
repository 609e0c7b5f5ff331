"""Replaces files atomically, writes them durably, and locks them between processes."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`, which replaces it at the end; after an error nothing has changed."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_durably(path: Path, content: bytes | memoryview) -> None:
    """Writes a file, without replacing it, and waits until it is on the disk."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Waits until the folder's entries are on the disk, as after a rename."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def read_json(path: Path) -> dict[str, Any] | None:
    """Returns a JSON object; None if there is no readable one."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


class Locked(Exception):
    """Another process holds the lock."""


@contextlib.contextmanager
def locked(file: Path, wait: float = 0.0) -> Iterator[None]:
    """Holds the lock while the block runs; it also ends with the process. A file system without locks never refuses.

    The file stays when the lock is released: another process may be waiting for it. Raises Locked after `wait` seconds,
    also if this process already holds the lock; -1 waits without a limit.
    """
    from filelock import FileLock, Timeout  # late: 14 ms, and most commands lock nothing

    lock = FileLock(file, timeout=wait)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(lock)
        except Timeout as error:
            raise Locked(str(file)) from error
        except (NotImplementedError, PermissionError):  # no locks here, or a read-only folder
            pass
        yield
