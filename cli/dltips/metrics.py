"""The names of the scores that a run logs, and which way is better."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

Score = Literal["val/accuracy", "val/loss", "train/accuracy", "train/loss"]


def higher_is_better(metric: str) -> bool:
    return not metric.endswith("loss")


def is_better(metric: str, new: float, old: float, min_delta: float = 0.0) -> bool:
    """Whether a score improves on another by more than min_delta; NaN never does, and anything improves on NaN."""
    if math.isnan(new) or math.isnan(old):
        return math.isnan(old) and not math.isnan(new)
    return new > old + min_delta if higher_is_better(metric) else new < old - min_delta


class Progress:
    """How long a score has not improved; its memory is a plain mapping, to be saved with the checkpoint."""

    def __init__(self, metric: str, min_delta: float) -> None:
        self.metric = metric
        self.min_delta = min_delta
        self.state: dict[str, float] = {"best": math.nan, "waited": 0}

    def epochs_without(self, metrics: Mapping[str, float]) -> int:
        """Hear an epoch's metrics; the number of epochs since the best."""
        if is_better(self.metric, metrics[self.metric], self.state["best"], self.min_delta):
            self.state["best"], self.state["waited"] = metrics[self.metric], 0
        else:
            self.state["waited"] += 1
        return int(self.state["waited"])
