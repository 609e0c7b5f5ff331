"""Computes the contents of environment.json and summary.json, and formats the report at a run's end."""

from __future__ import annotations

import hashlib
import platform
import resource
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from dltips.config.plain import flat
from dltips.config.redaction import redact
from dltips.config.validation import Config
from dltips.metrics import users
from dltips.runs import checkpoint
from dltips.runs.code_version import code_hash, code_version, versions
from dltips.train.build import Run
from dltips.train.device import describe
from dltips.train.fit import Record, Result


def content_hash(config: Config, device: torch.device, data_hash: str, weights_hash: str | None) -> str:
    """Returns the hash of everything a run's result depends on: config, data, initial weights, code, device."""
    parts = [config.hash, data_hash, weights_hash or "", code_hash(), device.type]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]


def environment(run: Run) -> dict[str, Any]:
    return {
        "versions": versions(),
        "code_version": code_version(),
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "device": describe(run.training.device),
        "devices": run.config.settings.devices,
        "threads": run.threads.training,
        "feature_threads": run.threads.features,
        "data_hash": run.splits.hash,
        "config_hash": run.config.hash,
        "weights_hash": run.weights_hash,
    }


def summarize(
    run: Run,
    status: str,
    records: Sequence[Record],
    result: Result | None,
    error: str | None = None,
    *,
    test_reads: int = 0,
) -> dict[str, Any]:
    """Returns summary.json's content. `best` and `last` are those epochs' metrics, `error` the reason of a failure.

    `better` holds the direction of the user's own metrics, so that readers need not import them.
    """
    best = result.best.metrics if result is not None and result.best is not None else None
    last = {name: value for name, value in records[-1].items() if not name.startswith("layers/")} if records else None
    seconds = result.snapshot.seconds if result is not None else (records[-1]["seconds"] if records else 0.0)
    samples = sum(run.training.inputs.train.count for record in records if "samples_per_second" in record)
    training_seconds = sum(
        run.training.inputs.train.count / record["samples_per_second"]
        for record in records
        if record.get("samples_per_second")
    )
    device = run.training.device
    return {
        "status": status,
        "error": error,
        "name": redact(run.config.settings.name or "") or None,
        "metric": run.config.settings.metric,
        "better": users(),
        "best": best,
        "last": last,
        "stopped_early": bool(result and result.stopped_early),
        "diverged_at": _divergence(result),
        "parameters": run.size.parameters,
        "trained_parameters": _trained_parameters(run, records),
        "strategy": run.plan.strategy,
        "size_mb": run.size.size_mb,
        "flops_per_sample": run.size.flops_per_sample,
        "receptive_field": run.size.receptive_field,
        "seconds": round(seconds, 3),
        "feature_seconds": round(run.feature_seconds, 3),
        "samples_per_second": round(samples / training_seconds, 1) if training_seconds else None,
        "peak_memory_mb": round(peak_memory(device) / 1e6, 1),
        "seed": run.config.settings.seed,
        "config_hash": run.config.hash,
        "data_hash": run.splits.hash,
        "code_version": code_version(),
        "content_hash": content_hash(run.config, device, run.splits.hash, run.weights_hash),
        "test_reads": test_reads,
        "settings": flat(run.config.plain),
    }


def failed_early(config: Config, error: str) -> dict[str, Any]:
    """Returns summary.json's content for a run that could not be prepared."""
    return {
        "status": "failed",
        "error": error,
        "name": redact(config.settings.name or "") or None,
        "metric": config.settings.metric,
        "best": None,
        "last": None,
        "seconds": 0.0,
        "seed": config.settings.seed,
        "config_hash": config.hash,
        "code_version": code_version(),
        "settings": flat(config.plain),
    }


def _trained_parameters(run: Run, records: Sequence[Record]) -> int:
    names = run.freezing.trained(records[-1]["epoch"] if records else 0)
    module = run.training.net.module
    return sum(parameter.numel() for name, parameter in module.named_parameters() if names is None or name in names)


def parameters(count: int) -> str:
    return f"{count:,} parameter{'' if count == 1 else 's'}"


def _receptive_field(run: Run) -> str:
    """Returns the receptive field of the last feature map; "" for nets without one."""
    field, sides = run.size.receptive_field, run.input_shape[1:]
    if field is None:
        return ""
    return f", receptive field {_sides_text(field)} on {_sides_text(sides)} {'pixels' if len(sides) == 2 else 'values'}"


def _sides_text(sides: Sequence[int]) -> str:
    return "x".join(str(side) for side in sides)


def _divergence(result: Result | None) -> dict[str, Any] | None:
    if result is None or result.diverged_at is None:
        return None
    epoch, step, where = result.diverged_at
    return {"epoch": epoch, "step": step, "where": where}


def peak_memory(device: torch.device) -> float:
    """Returns the peak in bytes: of the device's allocator on a GPU, of the process elsewhere."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    # kilobytes on Linux, bytes on macOS
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * (1 if sys.platform == "darwin" else 1024)


def report(run: Run, path: Path, summary: Mapping[str, Any], records: Sequence[Record]) -> str:
    """Returns the report: the curves, the best score, the net, and the commands to type next."""
    lines = []
    if len(records) > 1:
        from dltips.plots.text_chart import chart

        width = min(120, shutil.get_terminal_size((100, 24)).columns)
        unicode = (sys.stdout.encoding or "").lower().startswith("utf")
        lines += ["", chart(records, width=width, unicode=unicode, color=sys.stdout.isatty()), ""]
    metric, best, last = summary["metric"], summary["best"], summary["last"]
    if best is not None and last is not None:
        lines.append(
            f"best      {metric} {best[metric]:.4f} at epoch {best['epoch']}"
            f" (last, epoch {last['epoch']}: {last[metric]:.4f})"
            if last.get(metric) is not None
            else f"best      {metric} {best[metric]:.4f} at epoch {best['epoch']}"
        )
    speed = f", {summary['samples_per_second']:,.0f} samples/s" if summary["samples_per_second"] else ""
    before = f" after {summary['feature_seconds']:.1f} s for features" if summary["feature_seconds"] >= 0.05 else ""
    lines += [
        f"net       {parameters(summary['parameters'])}, {summary['size_mb']:.3g} MB,"
        f" {summary['flops_per_sample']:,} FLOPs per sample{_receptive_field(run)}",
        f"time      {summary['seconds']:.1f} s of training{before}{speed},"
        f" {summary['peak_memory_mb']:,.0f} MB at the peak",
        f"folder    {path}",
    ]
    if (path / "curves.png").exists():
        lines.append(f"curves    {path / 'curves.png'}")
    if run.config.log.tensorboard:
        lines.append("board     dltips board")
    if (path / checkpoint.BEST).exists() and len(run.splits.test):
        lines.append(f"test      dltips evaluate {path}")
    if summary["status"] != "diverged":
        more = "" if summary["status"] == "interrupted" else " epochs=N"
        lines.append(f"resume    dltips train resume={path}{more}")
    return "\n".join(lines)
