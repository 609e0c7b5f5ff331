"""Manages a sweep's folder under outputs: found by its trials, locked, described by sweep.json."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dltips import paths
from dltips.config.redaction import redact, redacted
from dltips.errors import ConfigError, OutputError
from dltips.files import Locked, locked, read_json, write_json
from dltips.runs import folder
from dltips.runs.file_names import LOCK, SUMMARY, SWEEP, read_summary

FORMAT = 1
LOCK_WAIT = 5.0  # seconds to wait for the end of another command


def read(place: Path) -> dict[str, Any] | None:
    """Returns sweep.json; None if it cannot be read."""
    return read_json(place / SWEEP)


def find(identity: str) -> Path | None:
    """Returns the folder of an earlier sweep with exactly these trials."""
    for file in sorted(paths.OUTPUTS.glob(f"*/{SWEEP}"), reverse=True):
        if (read(file.parent) or {}).get("identity") == identity:
            return file.parent
    return None


def make(identity: str, name: str | None) -> Path:
    """Makes the folder. Raises ConfigError."""
    return folder.make(None, paths.OUTPUTS / folder.unique_name(name, identity[:6]))


def write(place: Path, content: Mapping[str, Any]) -> None:
    """Writes sweep.json. Raises ConfigError."""
    try:
        write_json(place / SWEEP, {"format": FORMAT, **redacted(content)})
    except OSError as error:
        raise OutputError(f"outputs: {place} cannot be written ({error.strerror})") from error


def command() -> str:
    """Returns the command as it was typed."""
    return redact(shlex.join(["dltips", *sys.argv[1:]]))


@contextlib.contextmanager
def alone(place: Path) -> Iterator[None]:
    """Locks the sweep against other commands of this machine during the block. Raises ConfigError if it is locked."""
    try:
        with locked(place / LOCK, LOCK_WAIT):
            yield
    except Locked as error:
        raise ConfigError(
            f"{place}: is being run by another process; wait for it, or stop it: the same command then goes on"
        ) from error


def finished_elsewhere() -> dict[str, Path]:
    """Returns every finished run under outputs by its content hash, in a sweep or on its own."""
    found: dict[str, Path] = {}
    for pattern in (f"*/{SUMMARY}", f"*/*/{SUMMARY}"):
        for file in sorted(paths.OUTPUTS.glob(pattern)):
            summary = read_summary(file.parent) or {}
            if summary.get("status") == "finished" and isinstance(summary.get("content_hash"), str):
                found.setdefault(summary["content_hash"], file.parent)
    return found


def relative(path: Path, place: Path) -> str:
    return os.path.relpath(path, place)


def as_listed(trials: Sequence[tuple[int, str, Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Returns the entries of sweep.json: (number, folder, varied)."""
    return [{"number": number, "folder": path, "varied": dict(varied)} for number, path, varied in trials]
