"""The formulas against scipy.stats, which is too slow to import at run time, and against worked examples."""

import math

import numpy
import pytest
import scipy.stats

from dltips.insight import statistics

DRAWS = numpy.random.default_rng(0)


@pytest.mark.parametrize("n", [2, 3, 5, 30])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_the_interval_is_students(n: int, level: float) -> None:
    values = DRAWS.normal(0.9, 0.01, n)
    found = statistics.spread(list(values), level)
    low, high = scipy.stats.t.interval(level, n - 1, loc=values.mean(), scale=scipy.stats.sem(values))
    assert (found.n, found.mean, found.deviation) == pytest.approx((n, values.mean(), values.std(ddof=1)))
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-9)


def test_the_interval_covers_the_true_mean_as_often_as_it_says() -> None:
    covered = 0
    for values in DRAWS.normal(0.5, 0.1, (2000, 4)):
        found = statistics.spread(list(values))
        assert found.low is not None and found.high is not None
        covered += found.low <= 0.5 <= found.high
    # 0.95 of 2000, within four standard deviations
    assert covered / 2000 == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / 2000))


def test_one_value_has_no_deviation_and_no_interval() -> None:
    assert statistics.spread([0.7]) == statistics.Spread(1, 0.7, None, None, None)


@pytest.mark.parametrize("n", [2, 3, 5, 30])
def test_the_paired_test_is_students(n: int) -> None:
    first = DRAWS.normal(0.9, 0.05, n)
    second = first + DRAWS.normal(0.01, 0.02, n)
    found = statistics.paired(list(first), list(second))
    assert found.p == pytest.approx(scipy.stats.ttest_rel(first, second).pvalue, rel=1e-9)
    assert (found.n, found.mean) == pytest.approx((n, (first - second).mean()))


def test_pairing_takes_out_what_the_seeds_have_in_common() -> None:
    seeds = [0.5, 0.6, 0.7, 0.8, 0.9]
    better = [value + gain for value, gain in zip(seeds, [0.010, 0.012, 0.009, 0.011, 0.010], strict=True)]
    found = statistics.paired(better, seeds)
    assert found.p is not None and found.p < 1e-4
    assert scipy.stats.ttest_ind(better, seeds).pvalue > 0.9


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ([0.9], [0.8]),  # one seed
        ([0.9, 0.8], [0.9, 0.8]),  # the same
        ([350 / 360, 347 / 360, 341 / 360], [349 / 360, 346 / 360, 340 / 360]),  # one sample of 360, in every seed
        ([0.0, 0.0], [0.0, 0.0]),
    ],
)
def test_differences_that_do_not_vary_have_no_p(first: list[float], second: list[float]) -> None:
    found = statistics.paired(first, second)
    assert found.p is None
    assert found.mean == pytest.approx(numpy.mean(numpy.subtract(first, second)))


def test_holm_by_a_worked_example() -> None:
    # sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1 is 0.02, 0.03, 0.06, 0.04; the last may not be below the third
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_counts_tests_alone_and_stops_at_one() -> None:
    assert statistics.holm([None, 0.7, None, 0.6]) == [None, 1.0, None, 1.0]
    assert statistics.holm([0.04]) == [0.04]
    assert statistics.holm([]) == []


def test_holm_keeps_the_order_and_lies_between_p_and_bonferroni() -> None:
    p = list(DRAWS.uniform(0, 0.2, 12))
    adjusted = statistics.holm(p)
    assert all(one <= new <= min(1, 12 * one) for one, new in zip(p, adjusted, strict=True) if new is not None)
    order = numpy.argsort(p)
    assert list(numpy.array(adjusted)[order]) == sorted(adjusted, key=float)
