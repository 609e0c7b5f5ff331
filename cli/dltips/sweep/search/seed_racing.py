"""When the seeds of a trial need not all be run: it is clearly worse than the best trial on the seeds they share."""

from __future__ import annotations

import math
from collections.abc import Sequence

LEVEL = 0.05


def is_clearly_worse(scores: Sequence[float], best: Sequence[float], *, higher: bool) -> bool:
    """A one-sided paired t-test at 0.05 over the shared seeds, from two of them on, after every seed.

    The rule of t-Race (Birattari 2004; irace's testType="t-test", Lopez-Ibanez et al. 2016), without a correction for
    looking several times. Two differences that are equal to the last digit, which accuracies on few samples are by
    chance, say nothing about their spread: they wait for a third.
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
