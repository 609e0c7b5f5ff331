"""The scores that a run logs: their names, what they are, and which way is better."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

Score = Literal["val/accuracy", "val/loss", "val/balanced_accuracy", "val/macro_f1", "train/accuracy", "train/loss"]


def class_scores(hits: Sequence[int], actual: Sequence[int], claimed: Sequence[int]) -> tuple[float, float]:
    """(balanced accuracy, macro F1) from the counts per class: right, truly there, said to be there.

    Balanced accuracy is the mean recall over the classes that are there; macro F1 the mean of 2 hits / (actual +
    claimed) over those that are there or were said to be; as in scikit-learn.
    """
    recalls = [hit / there for hit, there in zip(hits, actual, strict=True) if there]
    f1 = [2 * hit / (there + said) for hit, there, said in zip(hits, actual, claimed, strict=True) if there + said]
    return sum(recalls) / len(recalls), sum(f1) / len(f1)


def higher_is_better(metric: str) -> bool:
    return not metric.endswith("loss")


def is_better(metric: str, new: float, old: float, min_delta: float = 0.0) -> bool:
    """Whether a score improves on another by more than min_delta; NaN never does, and anything improves on NaN."""
    if math.isnan(new) or math.isnan(old):
        return math.isnan(old) and not math.isnan(new)
    return new > old + min_delta if higher_is_better(metric) else new < old - min_delta


class PatienceCounter:
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
