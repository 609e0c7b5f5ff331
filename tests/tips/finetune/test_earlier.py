import copy
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC
from torch import Tensor, nn

from dltips.errors import ConfigError
from dltips.tips.finetune import Features, Phase, earlier
from dltips.tips.finetune.earlier import FeatureClassifier, earlier_stage_linear, earlier_stage_svm


class Known:
    """A subject whose features are given: stage -> how far apart its class means lie."""

    architecture = "resnet18"
    epochs = 5
    seed = 0

    def __init__(self, stages: Mapping[str, float], classes: int = 3, width: int = 6, train: int = 60) -> None:
        self.stages: Sequence[str] = [*stages, "head"]
        self.counts: Sequence[int] = [train // classes] * classes
        self.asked: list[Sequence[str]] = []
        targets = torch.arange(train + 200) % classes
        self.known = {}
        for index, (stage, apart) in enumerate(stages.items()):
            generator = torch.Generator().manual_seed(index)
            means = apart * torch.randn(classes, width, generator=generator)
            # off the origin and in units of its own, as activations are
            samples = 3 + 7 * (means[targets] + torch.randn(len(targets), width, generator=generator))
            self.known[stage] = Features(samples[:train], targets[:train], samples[train:], targets[train:])

    def features(self, stages: Sequence[str]) -> Mapping[str, Features]:
        self.asked.append(stages)
        return {stage: self.known[stage] for stage in stages}


def svm(subject: Known, **knobs: Any) -> Any:
    return earlier_stage_svm(subject, **{"stage": None, "kernel": "linear", "C": (0.1,), **knobs})


def linear(subject: Known, **knobs: Any) -> Any:
    return earlier_stage_linear(subject, **{"stage": None, "C": (0.1,), **knobs})


def standardized(features: Features) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    scaler = StandardScaler().fit(features.train.double().numpy())
    train, val = (scaler.transform(part.double().numpy()) for part in (features.train, features.val))
    return train, features.train_targets.numpy(), val


def values(plan: Any, inputs: Tensor) -> np.ndarray:
    assert plan.top is not None
    with torch.no_grad():
        result: np.ndarray = plan.top.module(inputs).double().numpy()
    return result


@pytest.mark.parametrize("C", [0.01, 1.0])
@pytest.mark.parametrize("train", [12, 60, 600])  # fewer samples than features, more, and many more
def test_the_linear_machine_s_values_are_scikit_learn_s(train: int, C: float) -> None:
    subject = Known({"layer1": 0.5}, width=20, train=train)
    features = subject.known["layer1"]
    samples, targets, others = standardized(features)
    # an intercept that costs nothing, as nearly as liblinear can
    theirs = LinearSVC(C=C, dual=False, intercept_scaling=100, max_iter=10_000, tol=1e-8).fit(samples, targets)
    mine = values(svm(subject, C=(C,)), features.val)
    np.testing.assert_allclose(mine, theirs.decision_function(others), atol=1e-2)


@pytest.mark.parametrize("C", [0.01, 1.0])
@pytest.mark.parametrize("train", [12, 60, 600])
def test_the_linear_machine_is_the_minimum_of_the_squared_hinge_loss(train: int, C: float) -> None:
    subject = Known({"layer1": 0.5}, width=20, train=train)
    features = subject.known["layer1"]
    machine = svm(subject, C=(C,)).top.module.machine
    samples, targets, _ = standardized(features)
    for index in range(3):
        signs = np.where(targets == index, 1.0, -1.0)
        weights, intercept = machine.vectors[index].double().numpy(), float(machine.intercepts[index])
        slack = np.maximum(0, 1 - signs * (samples @ weights + intercept))
        pull = 2 * C * (slack * signs)
        np.testing.assert_allclose(weights, samples.T @ pull, atol=2e-3 * (1 + np.abs(pull).sum()))
        assert pull.sum() == pytest.approx(0, abs=2e-3 * (1 + np.abs(pull).sum()))


def test_the_rbf_machine_s_values_are_scikit_learn_s_one_against_the_rest() -> None:
    subject = Known({"layer1": 0.5})
    features = subject.known["layer1"]
    samples, targets, others = standardized(features)
    theirs = OneVsRestClassifier(SVC(kernel="rbf", C=2.0, gamma="scale")).fit(samples, targets)
    mine = values(svm(subject, kernel="rbf", C=(2.0,)), features.val)
    np.testing.assert_allclose(mine, theirs.decision_function(others), atol=1e-4)


def test_the_softmax_of_the_logistic_values_is_scikit_learn_s_probability() -> None:
    for classes in (2, 3):
        subject = Known({"layer1": 0.5}, classes)
        features = subject.known["layer1"]
        samples, targets, others = standardized(features)
        theirs = LogisticRegression(C=0.1, max_iter=10_000).fit(samples, targets)
        probabilities = torch.from_numpy(values(linear(subject), features.val)).softmax(1)
        np.testing.assert_allclose(probabilities, theirs.predict_proba(others), atol=1e-5)


def test_of_two_classes_the_values_are_two_columns() -> None:
    subject = Known({"layer1": 0.5}, 2)
    features = subject.known["layer1"]
    samples, targets, others = standardized(features)
    theirs = LinearSVC(C=0.1, dual=False, intercept_scaling=100, max_iter=10_000, tol=1e-8).fit(samples, targets)
    decision = theirs.decision_function(others)
    np.testing.assert_allclose(values(svm(subject), features.val), np.stack([-decision, decision], 1), atol=3e-3)
    odds = LogisticRegression(C=0.1, max_iter=10_000).fit(samples, targets).decision_function(others)
    first, second = values(linear(subject), features.val).T
    np.testing.assert_allclose(second - first, odds, atol=1e-4)


@pytest.mark.parametrize("strategy", [svm, linear])
def test_the_stage_that_does_best_on_validation_wins(strategy: Any) -> None:
    subject = Known({"stem": 0.1, "layer1": 2.0, "layer2": 0.5})
    plan = strategy(subject)
    assert subject.asked == [["stem", "layer1", "layer2"]]  # never the head
    assert (plan.top.stage, plan.top.kernel) == ("layer1", "linear")
    assert plan.phases == (Phase(0, {"top": 1.0}),)
    assert plan.views == 1  # the stages before it are passed once, and an epoch is an epoch of the temperature
    assert plan.strategy == {svm: "earlier_stage_svm", linear: "earlier_stage_linear"}[strategy]


def test_the_c_that_does_best_on_validation_wins() -> None:
    subject = Known({"layer1": 0.3}, width=40)
    features = subject.known["layer1"]

    def right(C: float) -> int:
        chosen = values(svm(subject, C=(C,)), features.val).argmax(1)
        return int((chosen == features.val_targets.numpy()).sum())

    scores = {C: right(C) for C in (10.0, 1e-3, 1e-6, 1e-1)}
    best = max(scores.values())
    assert len(set(scores.values())) > 2  # else there is nothing to choose
    expected = min(C for C, score in scores.items() if score == best)
    plan = svm(subject, C=tuple(scores))
    np.testing.assert_array_equal(values(plan, features.val), values(svm(subject, C=(expected,)), features.val))
    assert plan.notes[-2] == (
        f"earlier_stage_svm: layer1 won with C = {expected:g}: {best} of 200 validation samples are right"
    )


def test_of_equals_the_earliest_stage_wins_with_the_smallest_c() -> None:
    subject = Known({"stem": 0.1, "layer1": 9.0, "layer2": 9.0})
    plan = svm(subject, C=(1.0, 0.1))
    assert plan.top.stage == "layer1"
    assert list(plan.notes) == [
        "stage   features    C  val/accuracy",
        plan.notes[1],  # the stem's figures are chance
        "layer1         6  0.1        1.0000",
        "layer2         6  0.1        1.0000",
        "earlier_stage_svm: layer1 won with C = 0.1: 200 of 200 validation samples are right (layer1, layer2 are"
        " equal: the earliest makes the shortest net)",
        "earlier_stage_svm: the best of 6 on the validation split, so its accuracy there is too good; a test split"
        " tells (dltips evaluate)",
    ]
    assert re.fullmatch(r"stem           6  (0\.1|  1)        0\.[2-5]\d\d\d", plan.notes[1])


def test_one_stage_with_one_c_is_no_choice_and_so_not_too_good() -> None:
    subject = Known({"stem": 0.1, "layer1": 9.0})
    plan = svm(subject, stage="layer1")
    assert subject.asked == [["layer1"]]
    assert list(plan.notes) == [
        "stage   features    C  val/accuracy",
        "layer1         6  0.1        1.0000",
        "earlier_stage_svm: layer1 won with C = 0.1: 200 of 200 validation samples are right",
    ]


@pytest.mark.parametrize("strategy", [svm, linear])
@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"stage": "layr2"}, r"finetune\.stage: 'layr2' .*resnet18; did you mean layer2\?"),
        ({"stage": "zzz"}, r"finetune\.stage: 'zzz' .*resnet18; .*: layer1, layer2"),
        ({"stage": "head"}, r"finetune\.stage: 'head' .*head of resnet18.*layer2"),
        ({"C": ()}, r"finetune\.C: \[\] .*; write '\[0\.01,0\.1,1\]'"),
    ],
)
def test_a_mistake_is_one_line(strategy: Any, knobs: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}$"):
        strategy(Known({"layer1": 1.0, "layer2": 1.0}), **knobs)


def test_data_of_one_class_and_a_net_without_a_body_are_refused() -> None:
    subject = Known({"layer1": 1.0})
    subject.known["layer1"].train_targets.fill_(1)
    with pytest.raises(
        ConfigError,
        match=r"^finetune=earlier_stage_svm: .*one class; .*two$",
    ):
        svm(subject)
    with pytest.raises(ConfigError, match=r"^finetune\.stage: resnet18 .*; write finetune=linear_probe$"):
        svm(Known({}))


@pytest.mark.parametrize(("strategy", "knobs"), [(svm, {}), (svm, {"kernel": "rbf"}), (linear, {})])
def test_a_class_without_a_sample_is_never_chosen(strategy: Any, knobs: dict[str, Any]) -> None:
    subject = Known({"layer1": 2.0}, 3)
    subject.counts = [20, 0, 20, 20]
    for targets in (subject.known["layer1"].train_targets, subject.known["layer1"].val_targets):
        targets[targets > 0] += 1  # 0, 2, 3
    plan = strategy(subject, **knobs)
    mine = values(plan, subject.known["layer1"].val)
    assert mine.shape == (200, 4)
    assert set(mine.argmax(1)) == {0, 2, 3}
    assert (mine.argmax(1) == subject.known["layer1"].val_targets.numpy()).mean() > 0.8


@pytest.mark.parametrize(("strategy", "knobs"), [(svm, {}), (svm, {"kernel": "rbf"}), (linear, {})])
def test_a_fresh_classifier_takes_the_state_of_a_fitted_one(strategy: Any, knobs: dict[str, Any]) -> None:
    subject = Known({"layer1": 0.5})
    plan = strategy(subject, **knobs)
    inputs = subject.known["layer1"].val
    with torch.no_grad():
        plan.top.module.machine.temperature.fill_(1.5)
    for source, fresh in (
        (plan.top.module, FeatureClassifier(6, 3, plan.top.kernel)),
        (nn.Sequential(copy.deepcopy(plan.top.module)), nn.Sequential(FeatureClassifier(6, 3, plan.top.kernel))),
    ):
        fresh.load_state_dict(source.state_dict())
        assert torch.equal(fresh(inputs), plan.top.module(inputs))
    with pytest.raises(RuntimeError, match="size mismatch for shift"):
        FeatureClassifier(7, 3, plan.top.kernel).load_state_dict(plan.top.module.state_dict())


@pytest.mark.parametrize(("strategy", "knobs"), [(svm, {}), (svm, {"kernel": "rbf"}), (linear, {})])
def test_only_the_temperature_trains(strategy: Any, knobs: dict[str, Any]) -> None:
    subject = Known({"layer1": 1.0})
    module = strategy(subject, **knobs).top.module
    assert [name for name, _ in module.named_parameters()] == ["machine.temperature"]
    features = subject.known["layer1"]
    before = module(features.val)
    nn.functional.cross_entropy(before, features.val_targets).backward()
    assert module.machine.temperature.grad is not None and module.machine.temperature.grad.item() != 0
    with torch.no_grad():
        module.machine.temperature.fill_(2.0)
    assert torch.equal(module(features.val), 2 * before)


def test_a_feature_that_never_varies_changes_nothing() -> None:
    subject = Known({"layer1": 0.5})
    features = subject.known["layer1"]
    before = values(linear(subject), features.val)
    wider = [torch.cat([part, torch.full((len(part), 1), 0.1)], 1) for part in (features.train, features.val)]
    subject.known["layer1"] = Features(wider[0], features.train_targets, wider[1], features.val_targets)
    np.testing.assert_allclose(values(linear(subject), wider[1]), before, atol=1e-5)


@pytest.mark.parametrize(("strategy", "knobs"), [(svm, {}), (svm, {"kernel": "rbf"}), (linear, {})])
@pytest.mark.parametrize("train", [60, 600])
def test_nothing_is_left_to_chance(strategy: Any, knobs: dict[str, Any], train: int) -> None:
    first, again = Known({"layer1": 0.3}, train=train), Known({"layer1": 0.3}, train=train)
    again.seed = 1
    inputs = first.known["layer1"].val
    assert np.array_equal(values(strategy(first, **knobs), inputs), values(strategy(again, **knobs), inputs))


@pytest.mark.parametrize("strategy", [svm, linear])
def test_no_convergence_is_a_note_of_ours_and_no_warning(strategy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(earlier, "MAX_STEPS", 1)
    subject = Known({"layer1": 0.3, "layer2": 0.3}, train=600)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plan = strategy(subject, C=(1.0, 10.0))
    assert plan.notes[-1] == (
        f"{plan.strategy}: no convergence after 1 steps for layer1 with C = 1, layer1 with C = 10, layer2 with C = 1,"
        " layer2 with C = 10; smaller values of finetune.C converge sooner"
    )


def test_lower_precision_around_it_does_not_blur_the_values() -> None:
    subject = Known({"layer1": 0.5})
    module, inputs = svm(subject, kernel="rbf").top.module, subject.known["layer1"].val
    expected = module(inputs)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(module(inputs), expected)
