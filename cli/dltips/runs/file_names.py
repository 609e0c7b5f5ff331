"""The names of the files in a run's and a sweep's folder, and their readers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dltips.files import read_json

CONFIG = "config.yaml"  # the first file of a run
METRICS = "metrics.jsonl"
SUMMARY = "summary.json"  # the last file of a run
ENVIRONMENT = "environment.json"
LOG = "run.log"
CURVES = "curves.png"
LOCK = ".lock"
SWEEP = "sweep.json"  # in the folder of a grid or a search


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Returns the lines of metrics.jsonl up to the first torn one, as after a crash."""
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


def read_summary(folder: Path) -> dict[str, Any] | None:
    """Returns summary.json; None if the run has not ended, or the file cannot be read."""
    return read_json(folder / SUMMARY)
