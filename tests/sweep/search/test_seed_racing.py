"""When a trial's further seeds are not worth running."""

import pytest
from scipy import stats

from dltips.sweep.search.seed_racing import is_clearly_worse


def test_it_is_the_one_sided_paired_t_test() -> None:
    best = [0.98, 0.97, 0.99, 0.975]
    for scores in ([0.95, 0.965, 0.94, 0.96], [0.975, 0.972, 0.98, 0.97], [0.99, 0.96, 0.995, 0.98]):
        p = stats.ttest_rel(scores, best, alternative="less").pvalue
        assert is_clearly_worse(scores, best, higher=True) == (p < 0.05)
        losses = [-score for score in scores]
        assert is_clearly_worse(losses, [-score for score in best], higher=False) == (p < 0.05)


def test_one_seed_decides_nothing() -> None:
    assert not is_clearly_worse([0.1], [0.9, 0.9, 0.9], higher=True)


def test_what_is_better_is_never_stopped() -> None:
    assert not is_clearly_worse([0.91, 0.92, 0.93], [0.1, 0.11, 0.12], higher=True)


def test_two_equal_gaps_wait_for_a_third() -> None:
    assert not is_clearly_worse([0.90, 0.91], [0.91, 0.92], higher=True)
    assert is_clearly_worse([0.90, 0.91, 0.92], [0.91, 0.92, 0.93], higher=True)
    assert not is_clearly_worse([0.9, 0.9, 0.9], [0.9, 0.9, 0.9], higher=True)


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_a_score_that_is_no_number_decides_nothing(broken: float) -> None:
    assert not is_clearly_worse([broken, 0.1, 0.1], [0.9, 0.9, 0.9], higher=True)
