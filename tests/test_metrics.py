import json
import math
from pathlib import Path
from typing import Any

import numpy
import pytest
import sklearn.metrics
import torch
from torch import Tensor
from torch.nn import functional

from dltips import metrics
from dltips.errors import ConfigError
from dltips.feed.splits import split
from dltips.main import main
from dltips.metrics import PatienceCounter, is_better
from dltips.runs import checkpoint
from dltips.use import trained_net


def test_the_direction_is_that_of_the_table() -> None:
    assert {name: metrics.direction(name) for name in metrics.score_names()} == {
        "val/accuracy": "higher",
        "val/loss": "lower",
        "val/balanced_accuracy": "higher",
        "val/macro_f1": "higher",
        "train/accuracy": "higher",
        "train/loss": "lower",
        "train_val_gap": "lower",
    }
    assert metrics.better("layers/hidden1.layer/dead") == metrics.better("seconds") == "lower"
    assert metrics.better("epochs_to:val/accuracy:0.9") == "lower" and metrics.better("samples_per_second") == "higher"
    assert metrics.better("layers/hidden1.layer/variance") is None and metrics.better("val/nothing") is None


def counts(targets: Tensor, predicted: Tensor, classes: int) -> numpy.ndarray[Any, Any]:
    """(K, K), rows: the true class."""
    return numpy.asarray(sklearn.metrics.confusion_matrix(targets, predicted, labels=range(classes)))


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true", "ignore:A single label was found")
def test_the_scores_per_class_are_scikit_learn_s_also_where_classes_are_absent() -> None:
    absent = never_claimed = 0
    for _ in range(200):
        classes, samples = int(torch.randint(1, 12, ())), int(torch.randint(1, 40, ()))
        # a share of the classes alone occurs, and another share is claimed
        there, said = (torch.randperm(classes)[: int(torch.randint(1, classes + 1, ()))] for _ in range(2))
        targets, predicted = (some[torch.randint(len(some), (samples,))] for some in (there, said))
        predicted = torch.where(torch.rand(samples) < 0.5, targets, predicted)
        confusion = counts(targets, predicted, classes)
        found = metrics.of_confusion(confusion)
        assert found == {
            "accuracy": sklearn.metrics.accuracy_score(targets, predicted),
            "balanced_accuracy": pytest.approx(sklearn.metrics.balanced_accuracy_score(targets, predicted), rel=1e-14),
            "macro_f1": pytest.approx(sklearn.metrics.f1_score(targets, predicted, average="macro"), rel=1e-14),
        }
        actual, claimed = confusion.sum(1), confusion.sum(0)
        absent += bool(((actual == 0) & (claimed > 0)).any())
        never_claimed += bool(((actual > 0) & (claimed == 0)).any())
    assert absent > 20 and never_claimed > 20


def test_a_class_that_nobody_has_or_claims_changes_no_score() -> None:
    found = metrics.of_confusion(numpy.array([[3, 0, 1], [0, 0, 0], [1, 0, 1]]))
    assert found == metrics.of_confusion(numpy.array([[3, 1], [1, 1]]))
    assert (found["balanced_accuracy"], found["macro_f1"]) == (0.625, 0.625)


def test_the_gap_is_between_the_accuracies() -> None:
    assert metrics.of_record({"train/accuracy": 0.875, "val/accuracy": 0.75}) == {"train_val_gap": 0.125}


RECORDS = [
    {"epoch": 1, "seconds": 0.5, "val/accuracy": 0.25, "val/loss": 2.0},
    {"epoch": 2, "seconds": 0.75, "val/accuracy": 0.5, "val/loss": None},  # not finite
    {"epoch": 3, "seconds": 1.25, "val/accuracy": 0.75, "val/loss": 1.0},
    {"epoch": 4, "seconds": 1.5, "val/accuracy": 0.5, "val/loss": 1.5},
]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs_to:val/accuracy:0.5", 2),  # as good is enough
        ("epochs_to:val/accuracy:0.51", 3),
        ("epochs_to:val/accuracy:0.76", None),
        ("epochs_to:val/loss:1.9", 3),
        ("epochs_to:val/loss:1", 3),
        ("epochs_to:val/loss:0.5", None),
        ("epochs_to:val/macro_f1:0.5", None),
        ("seconds_to:val/accuracy:0.6", 1.25),
        ("seconds_to:val/loss:2", 0.5),
    ],
)
def test_a_goal_is_reached_by_the_first_epoch_that_is_as_good(name: str, value: float | None) -> None:
    goal = metrics.goal(name)
    assert goal is not None
    assert goal.reached(RECORDS, metrics.direction(goal.score)) == value


@pytest.mark.parametrize("name", ["epochs_to", "epochs_to:0.9", "epochs_to:val/loss:", "seconds_to:val/loss:nan"])
def test_a_goal_that_is_incomplete_is_refused_with_an_example(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^metric: '{name}' lacks a score or its value; write \w+_to:val/loss:0.1$"):
        metrics.goal(name)


def test_what_is_no_goal_is_none() -> None:
    assert metrics.goal("val/accuracy") is metrics.goal("seconds") is None


def test_what_a_run_logs_are_scikit_learn_s_scores_of_the_same_predictions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    quick = ["log.tensorboard=false", "log.pictures=none", "log.layers=false", "epochs=1", "data.subset=200"]
    assert main(["train", *quick, "optimizer.lr=0.01"]) == 0
    (path,) = Path("outputs").iterdir()
    (record,) = (json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines())
    config, payload = trained_net.read(path, checkpoint.LAST)
    model, preprocess = trained_net.load_net(config, payload)
    val = split(config.tip("data")(), config.common["data"]()).val.taken()
    with torch.no_grad():
        outputs = model.eval()(preprocess(val.inputs.float() / 255))
    targets, predicted = val.targets, outputs.argmax(1)
    assert record["val/accuracy"] == sklearn.metrics.accuracy_score(targets, predicted) < 0.95
    balanced = sklearn.metrics.balanced_accuracy_score(targets, predicted)
    f1 = sklearn.metrics.f1_score(targets, predicted, average="macro")
    assert (record["val/balanced_accuracy"], record["val/macro_f1"]) == pytest.approx((balanced, f1), rel=1e-14)
    assert record["train_val_gap"] == record["train/accuracy"] - record["val/accuracy"]
    assert json.loads((path / "summary.json").read_text())["best"]["train_val_gap"] == record["train_val_gap"]
    assert record["val/loss"] == pytest.approx(float(functional.cross_entropy(outputs, targets)), rel=1e-6)


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
    progress = PatienceCounter("val/loss", 0.0)
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
    progress = PatienceCounter("val/accuracy", 0.1)
    scores = [0.5, 0.55, 0.59, 0.61, 0.65]
    assert [progress.epochs_without({"val/accuracy": score}) for score in scores] == [0, 1, 2, 0, 1]


def test_an_epoch_of_nan_first_is_improved_on_by_any_number() -> None:
    progress = PatienceCounter("val/accuracy", 0.0)
    assert [progress.epochs_without({"val/accuracy": score}) for score in (math.nan, math.nan, 0.1)] == [1, 2, 0]
