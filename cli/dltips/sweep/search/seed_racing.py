"""Stops a trial's remaining seeds if it is clearly worse than the best trial on the shared seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence

LEVEL = 0.05


def is_clearly_worse(scores: Sequence[float], best: Sequence[float], *, higher: bool) -> bool:
    """Returns whether a one-sided paired t-test at 0.05 rejects the trial, from two shared seeds on.

    The rule of t-Race (Birattari 2004; irace's testType="t-test", Lopez-Ibanez et al. 2016), without a correction for
    testing after every seed. Two differences that are equal to the last digit, as happens with accuracies on few
    samples, do not estimate a spread: a third one is awaited.
    """
    count = min(len(scores), len(best))
    gaps = [(theirs - ours) * (1 if higher else -1) for ours, theirs in zip(scores[:count], best[:count], strict=True)]
    if count < 2 or not all(math.isfinite(gap) for gap in gaps):
        return False
    mean = sum(gaps) / count
    spread = math.sqrt(sum((gap - mean) ** 2 for gap in gaps) / (count - 1))
    if spread <= 1e-12 * max(1.0, abs(mean)):
        return mean > 0 and count > 2
    from scipy.special import stdtr

    return bool(stdtr(count - 1, -mean / (spread / math.sqrt(count))) < LEVEL)
