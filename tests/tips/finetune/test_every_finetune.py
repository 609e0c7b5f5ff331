"""Each strategy's plan is the one that its card states, for a net of four stages whose features are known."""

from collections.abc import Callable, Mapping, Sequence

import numpy
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from dltips.tips.finetune import Features, FinetunePlan
from dltips.tips.finetune.auto import auto
from dltips.tips.finetune.base import finetune
from dltips.tips.finetune.earlier import earlier_stage_linear, earlier_stage_svm
from dltips.tips.finetune.layers import discriminative, full, gradual, most_layers, none, top_layers
from dltips.tips.finetune.probe import linear_probe

CLASSES = 3


class Net:
    """`apart` says how far the classes lie apart in each stage's features."""

    architecture, epochs, seed = "resnet", 12, 0

    def __init__(self, per_class: int = 30, apart: tuple[float, ...] = (0.5, 3.0, 1.0)) -> None:
        self.stages: Sequence[str] = ["stem", "stage1", "stage2", "head"]
        self.counts: Sequence[int] = [per_class] * CLASSES
        count = per_class * CLASSES
        targets = torch.arange(count + 60) % CLASSES
        self.known: dict[str, Features] = {}
        for number, (stage, distance) in enumerate(zip(self.stages, apart, strict=False)):
            generator = torch.Generator().manual_seed(number)
            means = distance * torch.linalg.qr(torch.randn(5, 5, generator=generator))[0][:CLASSES]
            samples = 2 + 3 * (means[targets] + torch.randn(len(targets), 5, generator=generator))
            self.known[stage] = Features(samples[:count], targets[:count], samples[count:], targets[count:])

    def features(self, stages: Sequence[str]) -> Mapping[str, Features]:
        return {stage: self.known[stage] for stage in stages}


def rates(plan: FinetunePlan) -> list[tuple[int, dict[str, float]]]:
    return [(phase.epoch, dict(phase.rates)) for phase in plan.phases]


def none_has_no_phase() -> None:
    assert rates(none(Net())) == []


def all_stages() -> None:
    assert rates(full(Net(), rate=0.1)) == [(0, {"stem": 0.1, "stage1": 0.1, "stage2": 0.1, "head": 1.0})]


def the_head_alone() -> None:
    plan = linear_probe(Net(), views=3)
    assert (rates(plan), plan.views) == ([(0, {"head": 1.0})], 3)


def the_top() -> None:
    assert rates(top_layers(Net(), n=1, rate=0.1)) == [(0, {"stage2": 0.1, "head": 1.0})]


def all_but_the_first() -> None:
    plan = most_layers(Net(), freeze_first=1, rate=0.1)
    assert rates(plan) == [(0, {"stage1": 0.1, "stage2": 0.1, "head": 1.0})]


def one_more_every_few_epochs() -> None:
    plan = gradual(Net(), every=3, rate=0.1)
    assert [(phase.epoch, [*phase.rates]) for phase in plan.phases] == [
        (3 * count, [*Net().stages][3 - count :]) for count in range(4)
    ]


def geometric_rates() -> None:
    ((_, found),) = rates(discriminative(Net(), decay=0.5))
    assert found == {"stem": 0.125, "stage1": 0.25, "stage2": 0.5, "head": 1.0}


def standardized(features: Features) -> tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray]:
    scaler = StandardScaler().fit(features.train.double().numpy())
    return (
        scaler.transform(features.train.double().numpy()),
        features.train_targets.numpy(),
        scaler.transform(features.val.double().numpy()),
    )


def decisions(plan: FinetunePlan, features: Features) -> numpy.ndarray:
    assert plan.top is not None
    with torch.no_grad():
        values: numpy.ndarray = plan.top.module(features.val).double().numpy()
    return values


def machines_of_the_best_stage() -> None:
    """One per class against the rest: scikit-learn's values."""
    net = Net()
    plan = earlier_stage_svm(net, stage=None, kernel="rbf", C=(1.0,))
    assert plan.top is not None and plan.top.stage == "stage1"
    train, targets, val = standardized(net.known["stage1"])
    expected = [SVC(C=1.0).fit(train, targets == index).decision_function(val) for index in range(CLASSES)]
    numpy.testing.assert_allclose(decisions(plan, net.known["stage1"]), numpy.stack(expected, 1), atol=1e-4)


def regression_on_the_best_stage() -> None:
    net = Net()
    plan = earlier_stage_linear(net, stage=None, C=(1.0,))
    assert plan.top is not None and plan.top.stage == "stage1"
    train, targets, val = standardized(net.known["stage1"])
    theirs = LogisticRegression(C=1.0, max_iter=10_000).fit(train, targets)
    values = decisions(plan, net.known["stage1"])
    shares = numpy.exp(values - numpy.logaddexp.reduce(values, 1)[:, None])
    numpy.testing.assert_allclose(shares, theirs.predict_proba(val), atol=1e-3)


def one_of_four() -> None:
    """By the number of samples per class, and by whether the last stage knows the classes best."""
    similar, different = (0.5, 2.0, 4.0), (0.5, 4.0, 2.0)
    chosen = {
        (per_class, apart): auto(
            Net(per_class, apart), few=50, views=2, n=1, freeze_first=1, rate=0.1, kernel="linear", C=(0.1,)
        ).strategy
        for per_class in (20, 100)
        for apart in (similar, different)
    }
    assert chosen == {
        (20, similar): "linear_probe",
        (100, similar): "top_layers",
        (100, different): "most_layers",
        (20, different): "earlier_stage_svm",
    }


CASES: dict[str, Callable[[], None]] = {
    "none": none_has_no_phase,
    "full": all_stages,
    "linear_probe": the_head_alone,
    "top_layers": the_top,
    "most_layers": all_but_the_first,
    "gradual": one_more_every_few_epochs,
    "discriminative": geometric_rates,
    "earlier_stage_svm": machines_of_the_best_stage,
    "earlier_stage_linear": regression_on_the_best_stage,
    "auto": one_of_four,
}


@pytest.mark.parametrize("name", finetune.tips)
def test_the_plan_that_its_card_states(name: str) -> None:
    assert name in CASES, (
        f"finetune={name} has no case: write a function here that asserts which stages its plan trains, at which rate"
        f" and from when, and add it to CASES as {name!r}"
    )
    CASES[name]()
