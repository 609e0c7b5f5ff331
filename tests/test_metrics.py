import math
from typing import get_args

import pytest

from dltips.config import Metric
from dltips.metrics import Progress, Score, higher_is_better, is_better


def test_losses_fall_and_accuracies_rise() -> None:
    assert {name: higher_is_better(name) for name in get_args(Score)} == {
        "val/accuracy": True,
        "train/accuracy": True,
        "val/loss": False,
        "train/loss": False,
    }


def test_what_decides_a_run_is_one_of_the_scores() -> None:
    assert set(get_args(Metric)) == set(get_args(Score))


@pytest.mark.parametrize(
    ("new", "old", "min_delta", "better"),
    [
        (0.6, 0.5, 0.0, True),
        (0.5, 0.5, 0.0, False),
        (0.4, 0.5, 0.0, False),
        (0.75, 0.5, 0.25, False),  # by more than min_delta
        (0.76, 0.5, 0.25, True),
        (math.nan, 0.5, 0.0, False),
        (0.1, math.nan, 0.0, True),
        (math.nan, math.nan, 0.0, False),
        (math.inf, 0.5, 0.0, True),
    ],
)
def test_better_is_higher_for_accuracy_and_lower_for_loss(
    new: float, old: float, min_delta: float, better: bool
) -> None:
    assert is_better("val/accuracy", new, old, min_delta) == better
    assert is_better("val/loss", -new, -old, min_delta) == better


def test_progress_counts_the_epochs_since_the_best() -> None:
    progress = Progress("val/loss", 0.0)
    scores = [3.0, 2.0, 2.0, 2.5, 1.0, math.nan, 1.5]
    assert [progress.epochs_without({"val/loss": score, "val/accuracy": 0.0}) for score in scores] == [
        0,
        0,
        1,
        2,
        0,
        1,
        2,
    ]
    assert progress.state == {"best": 1.0, "waited": 2}


def test_small_gains_do_not_add_up_to_an_improvement_by_being_forgotten() -> None:
    # the best is what last improved by min_delta: a slow climb arrives there in the end
    progress = Progress("val/accuracy", 0.1)
    scores = [0.5, 0.55, 0.59, 0.61, 0.65]
    assert [progress.epochs_without({"val/accuracy": score}) for score in scores] == [0, 1, 2, 0, 1]


def test_an_epoch_of_nan_first_is_improved_on_by_any_number() -> None:
    progress = Progress("val/accuracy", 0.0)
    assert [progress.epochs_without({"val/accuracy": score}) for score in (math.nan, math.nan, 0.1)] == [1, 2, 0]
