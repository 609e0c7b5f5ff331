import json
import math
from pathlib import Path
from typing import get_args

import pytest
import torch
from sklearn import metrics
from torch import Tensor
from torch.nn import functional

from dltips.feed.splits import split
from dltips.main import main
from dltips.metrics import PatienceCounter, Score, class_scores, higher_is_better, is_better
from dltips.runs import checkpoint
from dltips.use import inference


def test_losses_fall_and_the_other_scores_rise() -> None:
    assert {name: higher_is_better(name) for name in get_args(Score)} == {
        "val/accuracy": True,
        "val/balanced_accuracy": True,
        "val/macro_f1": True,
        "train/accuracy": True,
        "val/loss": False,
        "train/loss": False,
    }


def counts(targets: Tensor, predicted: Tensor, classes: int) -> tuple[list[int], list[int], list[int]]:
    """Right, truly there and said to be there, per class."""
    right = targets[targets == predicted]
    hits, actual, claimed = (torch.bincount(labels, minlength=classes) for labels in (right, targets, predicted))
    return hits.tolist(), actual.tolist(), claimed.tolist()


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true", "ignore:A single label was found")
def test_the_scores_per_class_are_scikit_learn_s_also_where_classes_are_absent() -> None:
    absent = never_claimed = 0
    for _ in range(200):
        classes, samples = int(torch.randint(1, 12, ())), int(torch.randint(1, 40, ()))
        # a share of the classes alone occurs, and another share is claimed
        there, said = (torch.randperm(classes)[: int(torch.randint(1, classes + 1, ()))] for _ in range(2))
        targets, predicted = (some[torch.randint(len(some), (samples,))] for some in (there, said))
        predicted = torch.where(torch.rand(samples) < 0.5, targets, predicted)
        hits, actual, claimed = counts(targets, predicted, classes)
        balanced_accuracy, macro_f1 = class_scores(hits, actual, claimed)
        assert balanced_accuracy == pytest.approx(metrics.balanced_accuracy_score(targets, predicted), rel=1e-14)
        assert macro_f1 == pytest.approx(metrics.f1_score(targets, predicted, average="macro"), rel=1e-14)
        absent += any(there == 0 and said > 0 for there, said in zip(actual, claimed, strict=True))
        never_claimed += any(there > 0 and said == 0 for there, said in zip(actual, claimed, strict=True))
    assert absent > 20 and never_claimed > 20


def test_a_class_that_nobody_has_or_claims_changes_no_score() -> None:
    assert class_scores([3, 0, 1], [4, 0, 2], [4, 0, 2]) == class_scores([3, 1], [4, 2], [4, 2]) == (0.625, 0.625)


def test_what_a_run_logs_are_scikit_learn_s_scores_of_the_same_predictions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    quick = ["log.tensorboard=false", "log.pictures=none", "log.layers=false", "epochs=1", "data.subset=200"]
    assert main(["train", *quick, "optimizer.lr=0.01"]) == 0
    (path,) = Path("outputs").iterdir()
    (record,) = (json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines())
    config, payload = inference.read(path, checkpoint.LAST)
    model, preprocess = inference.load_net(config, payload)
    val = split(config.tip("data")(), config.common["data"]()).val.taken()
    with torch.no_grad():
        outputs = model.eval()(preprocess(val.inputs.float() / 255))
    targets, predicted = val.targets, outputs.argmax(1)
    assert record["val/accuracy"] == metrics.accuracy_score(targets, predicted) < 0.95
    scores = metrics.balanced_accuracy_score(targets, predicted), metrics.f1_score(targets, predicted, average="macro")
    assert (record["val/balanced_accuracy"], record["val/macro_f1"]) == pytest.approx(scores, rel=1e-14)
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
