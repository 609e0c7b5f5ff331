"""Evaluates a run on its test split: scores per class and the confusion matrix; counts each read in the summary."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from dltips.errors import ConfigError
from dltips.feed.load import RequiredInputs, load
from dltips.feed.splits import split
from dltips.files import write_json
from dltips.formatting import few
from dltips.metrics import of_confusion
from dltips.runs import checkpoint, folder
from dltips.runs.file_names import SUMMARY, read_summary
from dltips.use import trained_net


def evaluate(run: str, which: str, device_name: str) -> dict[str, Any]:
    """Returns loss, accuracy, scores per class and the confusion matrix of the test split. Raises ConfigError."""
    path = folder.find(run)
    summary = read_summary(path)
    if summary is None:
        raise ConfigError(f"{path}: has no summary.json, so it is not finished; go on with dltips train resume={path}")
    config, payload = trained_net.read(path, checkpoint.BEST if which == "best" else checkpoint.LAST)
    net = trained_net.load(config, payload, device_name)
    common = config.common["data"]()
    needed_inputs = None
    if config.tip("finetune").name != "none":  # the weights may decide the inputs' form
        needed_inputs = RequiredInputs(None, None, tuple(payload["input_shape"]))
    source = load(config.tip("data"), common, needed_inputs)
    classes = [str(name) for name in payload["classes"]]
    if list(source.classes) != classes:
        raise ConfigError(
            f"{path}: its net knows the classes {few(classes)}, but the data have {few(source.classes)} now; bring"
            " the data back as they were"
        )
    splits = split(source, common)
    if not len(splits.test):
        raise ConfigError(
            f"{path}: has no test split (data.test_fraction=0); the validation scores are in summary.json"
        )
    # counted before any score is shown
    summary["test_reads"] = folder.test_reads(summary) + 1
    try:
        write_json(path / SUMMARY, summary)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror}), so the read would not be counted") from error
    outputs, targets = net.outputs(splits.test)
    return {
        "run": str(path),
        "checkpoint": which,
        "epoch": payload["epoch"],
        "samples": len(targets),
        "loss": float(functional.cross_entropy(outputs, targets)),
        **scores(outputs.argmax(1).cpu(), targets.cpu(), classes),
        "test_reads": summary["test_reads"],
    }


def scores(predicted: Tensor, targets: Tensor, classes: list[str]) -> dict[str, Any]:
    """Returns every score of the metrics' table, per-class precision, recall and F1, and the confusion matrix.

    The rows of the matrix are the true classes. An undefined score is None.
    """
    count = len(classes)
    matrix = torch.bincount(targets * count + predicted, minlength=count * count).reshape(count, count)
    correct_counts, true_counts, predicted_counts = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
    per_class = []
    for index, name in enumerate(classes):
        correct, actual, claimed = int(correct_counts[index]), int(true_counts[index]), int(predicted_counts[index])
        per_class.append(
            {
                "class": name,
                "samples": actual,
                "precision": correct / claimed if claimed else None,
                "recall": correct / actual if actual else None,
                "f1": 2 * correct / (actual + claimed) if actual + claimed else None,
            }
        )
    values = of_confusion(matrix.numpy())
    return {
        **{name: value if math.isfinite(value) else None for name, value in values.items()},
        "classes": classes,
        "per_class": per_class,
        "confusion": matrix.tolist(),
    }
