"""Predicts the likeliest classes of new files with a run folder's net; the training data are not needed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from dltips.errors import ConfigError
from dltips.feed.splits import Split
from dltips.runs import checkpoint, folder
from dltips.tips.data.reading import read_samples
from dltips.use import trained_net

DEFAULT_TOP = 3  # the default number of classes


def predict(run: str, paths: Sequence[str], top: int | None, which: str, device_name: str) -> dict[str, Any]:
    """Returns the likeliest classes of each sample in the files, with their probabilities. Raises ConfigError."""
    files = [Path(path).expanduser() for path in paths]
    for file in files:
        if not file.exists():
            raise ConfigError(f"predict: {file} does not exist; give a file or a folder")
    path = folder.find(run)
    config, payload = trained_net.read(path, checkpoint.BEST if which == "best" else checkpoint.LAST)
    classes = [str(name) for name in payload["classes"]]
    if top is not None and not 1 <= top <= len(classes):
        raise ConfigError(f"--top: {top} is not from 1 to {len(classes)}, the number of the classes")
    reader = _reader(payload, path)
    net = trained_net.load(config, payload, device_name)
    parts = [read_samples(reader, net.input_shape, file) for file in files]
    names = [name for _, part_names in parts for name in part_names]
    if not names:
        raise ConfigError(f"predict: {', '.join(map(str, files))}: no samples are in there; give a file with some")
    samples = torch.cat([part for part, _ in parts])
    outputs, _ = net.outputs(Split(samples, torch.zeros(len(samples), dtype=torch.int64)))
    probabilities = outputs.cpu().double().softmax(1)
    not_finite = (~probabilities.isfinite().all(1)).nonzero().flatten().tolist()
    if not_finite:
        raise ConfigError(
            f"predict: {names[not_finite[0]]}: the net's outputs are not finite; look at the sample, and whether the"
            " run diverged"
        )
    values, indices = probabilities.topk(min(DEFAULT_TOP, len(classes)) if top is None else top)
    predictions = [
        {
            "name": name,
            "top": [
                {"class": classes[k], "probability": probability}
                for k, probability in zip(chosen, sample_probabilities, strict=True)
            ],
        }
        for name, chosen, sample_probabilities in zip(names, indices.tolist(), values.tolist(), strict=True)
    ]
    return {"run": str(path), "checkpoint": which, "epoch": payload["epoch"], "predictions": predictions}


def _reader(payload: Mapping[str, Any], path: Path) -> Mapping[str, Any]:
    """Returns how the run's data source reads new files, as its checkpoint says. Raises ConfigError."""
    try:
        reader = json.loads(payload["reader"])
    except (KeyError, TypeError, ValueError):
        reader = None
    if not isinstance(reader, dict) or not isinstance(reader.get("kind", ""), str):
        raise ConfigError(f"{path}: its checkpoint does not say how new files are read; train again with this dltips")
    return reader
