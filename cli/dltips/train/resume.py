"""Resumes a run: its own config, its newest complete checkpoint, its metrics up to that one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from dltips.catalog.registry import FAMILIES, STACKABLE
from dltips.config.overrides import typed_keys
from dltips.config.plain import leaves, to_plain
from dltips.config.redaction import redacted
from dltips.config.validation import RESUMABLE, Config, validate
from dltips.errors import ConfigError
from dltips.runs import checkpoint, folder
from dltips.runs.code_version import versions
from dltips.runs.file_names import ENVIRONMENT, SUMMARY, read_summary
from dltips.train.build import Run
from dltips.train.device import Threads
from dltips.train.fit import Record
from dltips.train.parallel.group import current_group
from dltips.train.resumed import Resumed
from dltips.train.snapshot import Snapshot


def restore(resumed: Resumed, run: Run) -> tuple[Snapshot | None, list[Record]]:
    """Returns the snapshot, and the metrics up to it. Raises ConfigError.

    Cuts later metrics and events, and removes summary.json.
    """
    if resumed.data_hash is not None and resumed.data_hash != run.splits.hash:
        raise ConfigError(f"resume: the data are not those of {resumed.path} any more; start a new run")
    snapshot = Snapshot.from_payload(resumed.payload, run.training) if resumed.payload is not None else None
    done = snapshot.epoch if snapshot is not None else 0
    finished = (read_summary(resumed.path) or {}).get("status") == "finished"
    if snapshot is not None and finished:
        snapshot.stopped = False  # a finished run that is extended goes on
    if done and run.config.settings.epochs < done + finished:
        raise ConfigError(f"resume: {resumed.path} has its {done} epochs; write epochs=N with more of them to go on")
    records = folder.cut_metrics(resumed.path, done)
    if any(resumed.path.glob("events.out.tfevents.*")):
        from dltips.runs.tensor_events import cut

        cut(resumed.path, done)
    (resumed.path / SUMMARY).unlink(missing_ok=True)
    return snapshot, records


def resumed_from(path: Path, composed: DictConfig, overrides: list[str]) -> Resumed:
    """Returns the run folder of `resume=`, with the permitted changes of the command line. Raises ConfigError."""
    stored = folder.read_config(path)
    typed = to_plain(composed)
    _refuse_differences(path, stored, typed, overrides)
    merged = OmegaConf.create(stored)
    for key in typed_keys(overrides):
        if key.split(".")[0] in RESUMABLE:
            # only typed keys: the rest of a section stays as in the run
            OmegaConf.update(merged, key, dict(leaves(typed)).get(key), force_add=True)
    merged["resume"] = None
    if current_group().size > 1:  # as many processes as were started
        merged["devices"] = current_group().size
    config = validate(merged)
    _refuse_longer_schedule(stored, config, path)
    try:
        return reopen(path, config)
    except checkpoint.Damaged as error:
        raise ConfigError(f"resume: no checkpoint of {path} can be read ({error}); start a new run") from error


def reopen(path: Path, config: Config) -> Resumed:
    """Returns what a folder's newest readable checkpoint and environment hold. Raises checkpoint.Damaged."""
    payload, problems = checkpoint.read_latest(path)
    recorded = _environment(path)
    test_reads = folder.test_reads(read_summary(path) or {})
    notes = [f"resume: {problem}; going on from the checkpoint before it" for problem in problems]
    if payload is None:
        notes.append(f"resume: {path} has no checkpoint yet; starting again")
    differ = [
        f"{name} {old} -> {versions()[name]}"
        for name, old in recorded["versions"].items()
        if name in versions() and versions()[name] != old
    ]
    if differ:
        notes.append(f"resume: other versions than the run began with ({', '.join(differ)}); the bits may differ")
    return Resumed(
        path,
        config,
        payload,
        recorded["threads"] if recorded["devices"] == config.settings.devices else None,
        recorded["data_hash"],
        recorded["weights_hash"],
        test_reads,
        notes,
    )


def _refuse_differences(path: Path, stored: dict[str, Any], typed: dict[str, Any], overrides: list[str]) -> None:
    """Raises ConfigError for a typed value that differs from the run's config."""
    keys = [key for key in typed_keys(overrides) if key.split(".")[0] not in RESUMABLE]
    heads = set(FAMILIES) | set(stored) if "recipe" in keys else {key.split(".")[0] for key in keys}
    was = dict(leaves({key: value for key, value in stored.items() if key in heads - set(RESUMABLE)}))
    now = dict(leaves(redacted({key: value for key, value in typed.items() if key in heads - set(RESUMABLE)})))
    if "recipe" not in keys:
        # only typed keys count: the rest of a section is in the run's own config
        now = {key: value for key, value in now.items() if any(_is_of(key, typed_key) for typed_key in keys)}
        was = {key: value for key, value in was.items() if any(_is_of(key, typed_key) for typed_key in keys)}
    for family in {*keys, *(STACKABLE if "recipe" in keys else ())} & set(STACKABLE):
        # their options are nested, and the order of augmentations counts
        was[family], now[family] = ",".join(stored.get(family, {})), ",".join(typed.get(family, {}))
    differ = [
        f"{key}={was.get(key)} (not {now.get(key)})" for key in sorted({*was, *now}) if was.get(key) != now.get(key)
    ]
    if differ:
        raise ConfigError(
            f"resume: {path} was run with {', '.join(differ)}; leave it as it was, or start a new run"
            f" (what may differ: {', '.join(key for key in RESUMABLE if key != 'resume')})"
        )


def _is_of(key: str, typed_key: str) -> bool:
    """Returns whether a typed key sets the value: the key itself, or its family's option."""
    return key == typed_key or (typed_key in FAMILIES and key == f"{typed_key}.name")


def _refuse_longer_schedule(stored: dict[str, Any], config: Config, path: Path) -> None:
    from dltips.tips.schedule import Schedule, Steps

    schedule: Schedule = config.tip("schedule")(Steps(1, 1))
    if schedule.needs_length and config.settings.epochs != stored.get("epochs"):
        name = config.tip("schedule").name
        raise ConfigError(
            f"epochs: {path} was planned for {stored.get('epochs')} epochs, and schedule={name} depends on it;"
            " leave epochs out, or start a new run"
        )


def _environment(path: Path) -> dict[str, Any]:
    """Returns the recorded versions, threads and hashes; empty if the file is damaged or missing."""
    try:
        recorded = json.loads((path / ENVIRONMENT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        recorded = None
    recorded = recorded if isinstance(recorded, dict) else {}
    versions_then = recorded.get("versions")
    counts = [recorded.get(name) for name in ("threads", "feature_threads")]
    known = [count for count in counts if type(count) is int and 0 < count <= 4096]
    return {
        "versions": versions_then if isinstance(versions_then, dict) else {},
        "threads": Threads(*known) if len(known) == 2 else None,
        "devices": recorded.get("devices", 1),
        "data_hash": recorded.get("data_hash"),
        "weights_hash": recorded.get("weights_hash"),
    }
