"""Computes a comparison's statistics: t intervals, paired t-tests, Holm's adjustment. Values are one per seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

LEVEL = 0.95


@dataclass(frozen=True)
class Spread:
    """The mean of n values, the standard deviation (divisor n - 1) and the interval; None where n = 1."""

    n: int
    mean: float
    deviation: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Difference:
    """The difference of two groups over their n common seeds: the mean of first - second, and the paired t-test's p."""

    n: int
    mean: float
    p: float | None


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def deviation(values: Sequence[float]) -> float:
    """Returns the sample standard deviation, sqrt(sum((x - mean)^2) / (n - 1)); n must be at least 2."""
    middle = mean(values)
    return math.sqrt(math.fsum((value - middle) ** 2 for value in values) / (len(values) - 1))


def spread(values: Sequence[float], level: float = LEVEL) -> Spread:
    """Returns mean, deviation and Student's interval: mean +- t(n - 1, (1 + level) / 2) * deviation / sqrt(n).

    Student 1908, The Probable Error of a Mean. It holds for values that are about normal over the seeds.
    """
    n = len(values)
    if n < 2:
        return Spread(n, mean(values), None, None, None)
    half = quantile(n - 1, (1 + level) / 2) * deviation(values) / math.sqrt(n)
    return Spread(n, mean(values), deviation(values), mean(values) - half, mean(values) + half)


def paired(first: Sequence[float], second: Sequence[float]) -> Difference:
    """Student's t-test on the differences d = first - second, which must be of the same seeds in the same order.

    t = mean(d) * sqrt(n) / deviation(d), two-sided with n - 1 degrees of freedom. p is None if it means nothing: for
    n = 1, and if all differences are equal (two seeds in which one sample was turned would else give p = 0).
    """
    differences = [one - other for one, other in zip(first, second, strict=True)]
    n = len(differences)
    if n < 2:
        return Difference(n, mean(differences), None)
    # differences of equal fractions are equal up to rounding, 1e-16 of the values
    scale = max(abs(value) for value in (*first, *second))
    if max(differences) - min(differences) <= 1e-12 * scale:
        return Difference(n, mean(differences), None)
    t = mean(differences) * math.sqrt(n) / deviation(differences)
    return Difference(n, mean(differences), two_sided(n - 1, t))


def holm(probabilities: Sequence[float | None]) -> list[float | None]:
    """Returns each p adjusted for m tests: sorted by p, the i-th becomes max over j <= i of (m - j + 1) p_j.

    At most 1 (Holm 1979, A Simple Sequentially Rejective Multiple Test Procedure). None is not a test and stays None.
    """
    tests = sorted((p, index) for index, p in enumerate(probabilities) if p is not None)
    adjusted: list[float | None] = [None] * len(probabilities)
    largest = 0.0
    for done, (p, index) in enumerate(tests):
        largest = max(largest, min(1.0, (len(tests) - done) * p))
        adjusted[index] = largest
    return adjusted


def quantile(freedom: int, probability: float) -> float:
    """Returns a quantile of Student's t distribution."""
    from scipy.special import stdtrit  # scipy.stats would take 1.5 s longer to import

    return float(stdtrit(freedom, probability))


def two_sided(freedom: int, t: float) -> float:
    """Returns P(|T| >= |t|) for Student's t distribution."""
    from scipy.special import stdtr

    return min(1.0, 2 * float(stdtr(freedom, -abs(t))))
