"""The run folder: made once, with a name that cannot collide; readers never see half a file."""

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

import yaml
from omegaconf import OmegaConf

from dltips import paths
from dltips.config.redaction import redact, redacted
from dltips.config.validation import completed
from dltips.errors import ConfigError
from dltips.runs import past_runs

METRICS, SUMMARY, CONFIG, ENVIRONMENT, LOG = (
    "metrics.jsonl",
    "summary.json",
    "config.yaml",
    "environment.json",
    "run.log",
)
UNFINISHED = ("interrupted", "failed")


def check_writable() -> None:
    """Before anything is loaded: can a run folder be made at all? Errors: ConfigError. Leaves nothing behind."""
    place = paths.OUTPUTS if paths.OUTPUTS.exists() else Path()
    try:
        handle, name = tempfile.mkstemp(dir=place, prefix=".dltips-")
        os.close(handle)
        os.unlink(name)
    except OSError as error:
        raise ConfigError(
            f"outputs: {paths.OUTPUTS.absolute()} cannot be written ({error.strerror}); go to a folder of your own"
        ) from error


def make(name: str | None, chosen: Path | None = None) -> Path:
    """A new run folder: the one that was chosen, or one under ./outputs with a name of its own. Errors: ConfigError."""
    folder = chosen or paths.OUTPUTS / unique_name(name)
    try:
        paths.OUTPUTS.mkdir(exist_ok=True)
        folder.mkdir(exist_ok=False)
    except OSError as error:
        raise ConfigError(f"outputs: {folder.absolute()} cannot be made ({error.strerror})") from error
    return folder


def unique_name(name: str | None, short_hash: str | None = None) -> str:
    """Time with microseconds, a short hash, a run's or a sweep's name."""
    label = "".join(char if char.isalnum() or char in "-_." else "-" for char in redact(name or "")).strip("-.")[:60]
    stamp = f"{datetime.now():%Y%m%d-%H%M%S-%f}-{short_hash or secrets.token_hex(3)}"
    return f"{stamp}-{label}" if label else stamp


def write_config(folder: Path, plain: Mapping[str, Any]) -> str:
    """config.yaml: interpolations stay as they were written, secrets are redacted. Its text."""
    text = yaml.dump(redacted(plain), Dumper=_Dumper, default_flow_style=False, allow_unicode=True, sort_keys=False)
    write_whole(folder / CONFIG, text)
    return text


# libyaml's, where PyYAML has it: OmegaConf.to_yaml writes the same text in 6 ms, this in 0.4
class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    """Quotes texts that OmegaConf would read as numbers, 1e3 for one, and others as yes or no: y and n."""


def _as_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    with contextlib.suppress(ValueError):
        float("0" if text in ("y", "n", "Y", "N") else text.replace("_", ""))
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="'")
    return dumper.represent_str(text)


_Dumper.add_representer(str, _as_text)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    write_whole(path, json.dumps(content, indent=2) + "\n")


def write_whole(path: Path, text: str) -> None:
    """All or nothing: a temporary file beside it, then a rename."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl; a torn last line, from a crash in mid-write, is left out."""
    records = []
    path = folder / METRICS
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []:
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            break
        epoch = record.get("epoch") if isinstance(record, dict) else None
        if type(epoch) is not int or not 0 <= epoch < 2**53:
            break
        records.append(record)
    return records


def cut_metrics(folder: Path, last_epoch: int) -> list[dict[str, Any]]:
    """Keep the lines up to an epoch: what came after the checkpoint is about to happen again."""
    kept = [record for record in read_metrics(folder) if record["epoch"] <= last_epoch]
    write_whole(folder / METRICS, "".join(json.dumps(record) + "\n" for record in kept))
    return kept


def read_summary(folder: Path) -> dict[str, Any] | None:
    try:
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return summary if isinstance(summary, dict) else None


def test_reads(summary: Mapping[str, Any]) -> int:
    """How often the test split was read."""
    reads = summary.get("test_reads")
    return reads if type(reads) is int else 0


def find(chosen: str) -> Path:
    """The folder that is named, of a grid or search that of its best run; `last` is the newest. Errors: ConfigError."""
    _check_named(chosen, "run")
    folder = past_runs.locate(chosen)
    return _with_config(folder, chosen)


def find_to_resume(chosen: str) -> Path:
    """The folder that is named; `last` is the newest unfinished run. Errors: ConfigError, also for a grid or search."""
    _check_named(chosen, "resume")
    if chosen == "last":
        found = [path.parent for name in (CONFIG, past_runs.SWEEP) for path in paths.OUTPUTS.glob(f"*/{name}")]
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
        raise ConfigError(f"{key}: '' is no run folder; give one of those under {paths.OUTPUTS}, or `last`")


def _refuse_sweep(folder: Path, command: str | None) -> None:
    if command is not None:
        raise ConfigError(f"resume: {folder} holds many runs, which their own command goes on with: {command}")


def _with_config(folder: Path, chosen: str) -> Path:
    if not (folder / CONFIG).is_file():
        why = "does not exist" if not folder.exists() else "is no run folder: it has no config.yaml"
        raise ConfigError(f"{chosen}: {why}; give one of the folders under {paths.OUTPUTS}")
    return folder


@contextlib.contextmanager
def alive(folder: Path) -> Iterator[None]:
    """Within, the run is being written, which `alone` tells others on this machine; it ends with the process, too."""
    with _locked(folder, shared=True):
        yield


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Within, nobody else on this machine goes on with the run. Errors: ConfigError if it is being written already."""
    with _locked(folder, shared=False) as got:
        if not got:
            raise ConfigError(f"resume: {folder} is being written by another process; wait for it, or stop it")
        yield


@contextlib.contextmanager
def _locked(folder: Path, *, shared: bool) -> Iterator[bool]:
    """Whether the lock was to be had, which it is where there are no locks."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield True
        return
    handle, got = os.open(folder, os.O_RDONLY), True
    try:
        try:
            fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            got = False
        except OSError:  # a file system without locks
            pass
        yield got
    finally:
        os.close(handle)


def read_config(folder: Path) -> dict[str, Any]:
    """A run's own config, as plain data; keys that are newer than the run at their defaults. Errors: ConfigError."""
    try:
        plain = OmegaConf.to_container(OmegaConf.load(folder / CONFIG), resolve=False)
    except Exception as error:  # yaml and OmegaConf raise several kinds
        raise ConfigError(f"{folder / CONFIG}: cannot be read ({' '.join(str(error).split())[:120]})") from error
    if not isinstance(plain, dict) or "seed" not in plain:
        raise ConfigError(f"{folder / CONFIG}: is not the config of a run; start a new run")
    return completed({str(key): value for key, value in plain.items()})
