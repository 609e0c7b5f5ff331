"""Makes run folders, each once, under a unique name; locks, reads and cuts them; finds the one to resume."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import tempfile
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from dltips import paths
from dltips.config.redaction import redact, redacted
from dltips.config.validation import completed
from dltips.errors import ConfigError, OutputError
from dltips.files import Locked, locked, write_text
from dltips.runs import past_runs
from dltips.runs.file_names import CONFIG, LOCK, METRICS, SWEEP, read_metrics, read_summary

UNFINISHED = ("interrupted", "failed")


def check_writable() -> None:
    """Checks, before anything is loaded, that a run folder can be made. Raises ConfigError. Leaves nothing behind."""
    folder = paths.OUTPUTS if paths.OUTPUTS.exists() else Path()
    try:
        handle, name = tempfile.mkstemp(dir=folder, prefix=".dltips-")
        os.close(handle)
        os.unlink(name)
    except OSError as error:
        raise OutputError(
            f"outputs: {paths.OUTPUTS.absolute()} cannot be written ({error.strerror}); go to a folder of your own"
        ) from error


def make(name: str | None, chosen: Path | None = None) -> Path:
    """Makes a new run folder: the chosen one, or one under ./outputs with a unique name. Raises ConfigError."""
    folder = chosen or paths.OUTPUTS / unique_name(name)
    try:
        paths.OUTPUTS.mkdir(exist_ok=True)
        folder.mkdir(exist_ok=False)
    except OSError as error:
        raise OutputError(f"outputs: {folder.absolute()} cannot be made ({error.strerror})") from error
    return folder


def unique_name(name: str | None, short_hash: str | None = None) -> str:
    """Returns a name of the time with microseconds, a short hash, and the run's or sweep's name."""
    label = "".join(char if char.isalnum() or char in "-_." else "-" for char in redact(name or "")).strip("-.")[:60]
    stamp = f"{datetime.now():%Y%m%d-%H%M%S-%f}-{short_hash or secrets.token_hex(3)}"
    return f"{stamp}-{label}" if label else stamp


def write_config(folder: Path, plain: Mapping[str, Any]) -> str:
    """Writes config.yaml, interpolations unresolved, secrets redacted; returns its text."""
    text = OmegaConf.to_yaml(OmegaConf.create(redacted(plain)))
    write_text(folder / CONFIG, text)
    return text


def cut_metrics(folder: Path, last_epoch: int) -> list[dict[str, Any]]:
    """Keeps the lines up to an epoch: the ones after the checkpoint will be written again."""
    kept = [record for record in read_metrics(folder) if record["epoch"] <= last_epoch]
    write_text(folder / METRICS, "".join(json.dumps(record) + "\n" for record in kept))
    return kept


def test_reads(summary: Mapping[str, Any]) -> int:
    """Returns how often the test split was read."""
    reads = summary.get("test_reads")
    return reads if type(reads) is int else 0


def find(chosen: str) -> Path:
    """Returns the named folder, of a grid or search its best run's; `last` is the newest. Raises ConfigError."""
    _check_named(chosen, "run")
    folder = past_runs.locate(chosen)
    return _with_config(folder, chosen)


def find_to_resume(chosen: str) -> Path:
    """Returns the named folder; `last` is the newest unfinished run. Raises ConfigError, also for a grid or search."""
    _check_named(chosen, "resume")
    if chosen == "last":
        found = [path.parent for name in (CONFIG, SWEEP) for path in paths.OUTPUTS.glob(f"*/{name}")]
        for folder in sorted(found, reverse=True):
            if past_runs.is_sweep(folder):
                _refuse_sweep(folder, past_runs.cut_off(folder))
            elif (read_summary(folder) or {"status": "failed"})["status"] in UNFINISHED:
                return folder
        raise ConfigError(f"resume: last finds no unfinished run under {paths.OUTPUTS.absolute()}")
    folder = Path(chosen).expanduser()
    if past_runs.is_sweep(folder):
        _refuse_sweep(folder, past_runs.command_of(folder))
    return _with_config(folder, chosen)


def _check_named(chosen: str, key: str) -> None:
    if not chosen.strip():
        raise ConfigError(f"{key}: '' is not a run folder; give one of those under {paths.OUTPUTS}, or `last`")


def _refuse_sweep(folder: Path, command: str | None) -> None:
    if command is not None:
        raise ConfigError(f"resume: {folder} holds many runs, which their own command goes on with: {command}")


def _with_config(folder: Path, chosen: str) -> Path:
    if not (folder / CONFIG).is_file():
        why = "does not exist" if not folder.exists() else "is not a run folder: it has no config.yaml"
        raise ConfigError(f"{chosen}: {why}; give one of the folders under {paths.OUTPUTS}")
    return folder


@contextlib.contextmanager
def writing(folder: Path, wait: float = 0.0) -> Iterator[None]:
    """Locks the run for writing during the block. Raises ConfigError if another process here holds the lock."""
    try:
        with locked(folder / LOCK, wait):
            yield
    except Locked as error:
        raise ConfigError(f"resume: {folder} is being written by another process; wait for it, or stop it") from error


def read_config(folder: Path) -> dict[str, Any]:
    """Returns a run's own config as plain data; keys newer than the run at their defaults. Raises ConfigError."""
    try:
        plain = OmegaConf.to_container(OmegaConf.load(folder / CONFIG), resolve=False)
    except Exception as error:  # yaml and OmegaConf raise several types
        raise ConfigError(f"{folder / CONFIG}: cannot be read ({' '.join(str(error).split())[:120]})") from error
    if not isinstance(plain, dict) or "seed" not in plain:
        raise ConfigError(f"{folder / CONFIG}: is not the config of a run; start a new run")
    return completed({str(key): value for key, value in plain.items()})
