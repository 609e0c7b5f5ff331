"""The test split of a run: scores per class and the confusion matrix; each read is counted in the run's summary."""

from __future__ import annotations

from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.nn import functional

from dltips.config import Config, validate
from dltips.feed.batches import Feed
from dltips.feed.load import load
from dltips.feed.placement import place
from dltips.feed.splits import split
from dltips.metrics import class_scores
from dltips.registry import ConfigError
from dltips.tips.preprocessing import restore
from dltips.train import checkpoint, folder
from dltips.train import device as devices
from dltips.train.loop import predictions
from dltips.train.prepare import build_model


def evaluate(run: str, which: str, device_name: str) -> dict[str, Any]:
    """Loss, accuracy, per class and confusion matrix on the test split. Errors: ConfigError."""
    path = folder.find(run)
    summary = folder.read_summary(path)
    if summary is None:
        raise ConfigError(f"{path}: has no summary.json, so it is not finished; go on with dltips train resume={path}")
    config = validate(OmegaConf.create(folder.read_config(path)))
    payload = _read(path / (checkpoint.BEST if which == "best" else checkpoint.LAST))
    device = devices.choose(device_name)
    common = config.common["data"]()
    splits = split(load(config.tip("data"), common), common)
    if not len(splits.test):
        raise ConfigError(
            f"{path}: has no test split (data.test_fraction=0); the validation scores are in summary.json"
        )
    model, preprocess = load_net(config, payload)
    feed = Feed(place(splits.test, common.placement, device), len(splits.test), preprocess.to(device))
    model = model.to(device)
    # counted before anyone sees a number
    summary["test_reads"] = folder.test_reads(summary) + 1
    try:
        folder.write_json(path / folder.SUMMARY, summary)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror}), so the read would not be counted") from error
    autocast = devices.autocast(config.settings.precision, device)
    parts = list(predictions(model, feed, config.settings.batch_size, autocast))
    outputs, targets = torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])
    classes = [str(name) for name in payload["classes"]]
    return {
        "run": str(path),
        "checkpoint": which,
        "epoch": payload["epoch"],
        "samples": len(targets),
        "loss": float(functional.cross_entropy(outputs, targets)),
        **scores(outputs.argmax(1).cpu(), targets.cpu(), classes),
        "test_reads": summary["test_reads"],
    }


def _read(path: Any) -> dict[str, Any]:
    if not path.exists():
        raise ConfigError(f"{path}: is not there; the run has not got so far")
    try:
        return checkpoint.read(path)
    except checkpoint.Damaged as error:
        raise ConfigError(f"{error}; try --checkpoint {'last' if path.name == checkpoint.BEST else 'best'}") from error


def load_net(config: Config, payload: dict[str, Any]) -> tuple[nn.Module, nn.Module]:
    """The net and the fitted preprocessing from a checkpoint. Errors: ConfigError if it is another net's."""
    regularizations = [tip() for tip in config.tips["regularization"]]
    model = build_model(config, tuple(payload["input_shape"]), len(payload["classes"]), regularizations)
    preprocess = restore(payload["preprocessing"])
    try:
        model.load_state_dict(payload["model"])
    except (KeyError, TypeError, RuntimeError) as error:
        raise ConfigError(
            f"the checkpoint's net is another one than the config's: {str(error).splitlines()[0]}"
        ) from error
    return model, preprocess


def scores(predicted: Tensor, targets: Tensor, classes: list[str]) -> dict[str, Any]:
    """Accuracy, per-class precision, recall and F1, and the confusion matrix (rows: true class)."""
    count = len(classes)
    matrix = torch.bincount(targets * count + predicted, minlength=count * count).reshape(count, count)
    hits, actual, claimed = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
    per_class = []
    for index, name in enumerate(classes):
        hit, there, said = int(hits[index]), int(actual[index]), int(claimed[index])
        per_class.append(
            {
                "class": name,
                "samples": there,
                "precision": hit / said if said else None,
                "recall": hit / there if there else None,
                "f1": 2 * hit / (there + said) if there + said else None,
            }
        )
    balanced_accuracy, macro_f1 = class_scores(hits.tolist(), actual.tolist(), claimed.tolist())
    return {
        "accuracy": int(hits.sum()) / len(targets),
        "balanced_accuracy": balanced_accuracy,
        "macro_f1": macro_f1,
        "classes": classes,
        "per_class": per_class,
        "confusion": matrix.tolist(),
    }
