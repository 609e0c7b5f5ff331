"""A sweep's folder under outputs: found again by what it holds, one process at a time, described by sweep.json."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dltips import paths
from dltips.config.redaction import redact, redacted
from dltips.errors import ConfigError, OutputError
from dltips.files import Locked, locked, write_json
from dltips.runs import folder
from dltips.runs.layout import LOCK, SUMMARY, read_summary

SWEEP = "sweep.json"
FORMAT = 1
PATIENCE = 5.0  # seconds that another command has to end in


def read(place: Path) -> dict[str, Any] | None:
    """sweep.json; None where there is none that can be read."""
    try:
        content = json.loads((place / SWEEP).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def find(identity: str) -> Path | None:
    """The folder of the sweep that holds just these trials, if it was begun before."""
    for file in sorted(paths.OUTPUTS.glob(f"*/{SWEEP}"), reverse=True):
        if (read(file.parent) or {}).get("identity") == identity:
            return file.parent
    return None


def make(identity: str, name: str | None) -> Path:
    """Errors: ConfigError."""
    return folder.make(None, paths.OUTPUTS / folder.unique_name(name, identity[:6]))


def write(place: Path, content: Mapping[str, Any]) -> None:
    """Errors: ConfigError."""
    try:
        write_json(place / SWEEP, {"format": FORMAT, **redacted(content)})
    except OSError as error:
        raise OutputError(f"outputs: {place} cannot be written ({error.strerror})") from error


def command() -> str:
    """As it was typed, for a person to type again."""
    return redact(shlex.join(["dltips", *sys.argv[1:]]))


@contextlib.contextmanager
def alone(place: Path) -> Iterator[None]:
    """Within, no other command of this machine runs this sweep's trials. Raises ConfigError if one does already."""
    try:
        with locked(place / LOCK, PATIENCE):
            yield
    except Locked as error:
        raise ConfigError(
            f"{place}: is being run by another process; wait for it, or stop it: the same command then goes on"
        ) from error


def finished_elsewhere() -> dict[str, Path]:
    """Every finished run under outputs by its content hash, in a sweep or by itself."""
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
    """The entries of sweep.json: (number, folder, varied)."""
    return [{"number": number, "folder": path, "varied": dict(varied)} for number, path, varied in trials]
