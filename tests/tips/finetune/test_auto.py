import re
from typing import Any

import pytest
import torch
from torch import Tensor

from dltips.errors import ConfigError
from dltips.tips.finetune import Features, FinetunePlan, Phase
from dltips.tips.finetune import auto as module
from dltips.tips.finetune.auto import auto

KNOBS: dict[str, Any] = {
    "few": 50,
    "views": 3,
    "n": 1,
    "freeze_first": 1,
    "rate": 0.2,
    "kernel": "linear",
    "C": (0.1,),
}
CLASSES, WIDTH = 3, 6


class Known:
    """A subject whose stages' features are blobs: stage -> how far apart the class means lie."""

    architecture = "resnet18"
    epochs = 5
    seed = 0

    def __init__(self, per_class: int, **apart: float) -> None:
        self.stages = [*apart, "head"]
        self.counts = [per_class] * CLASSES
        self.passes = 0
        count = per_class * CLASSES
        targets = torch.arange(count + 300) % CLASSES
        self.known = {}
        for index, (stage, distance) in enumerate(apart.items()):
            generator = torch.Generator().manual_seed(index)
            means = distance * torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=generator))[0][:CLASSES]
            samples = 3 + means[targets] + torch.randn(len(targets), WIDTH, generator=generator)
            self.known[stage] = Features(samples[:count], targets[:count], samples[count:], targets[count:])

    def features(self, stages: Any) -> dict[str, Features]:
        self.passes += 1
        return {stage: self.known[stage] for stage in stages}


def choose(subject: Known, **knobs: Any) -> FinetunePlan:
    return auto(subject, **KNOBS | knobs)


def masked(note: str) -> str:
    """Measured figures as #, so that the words can be held exactly."""
    return re.sub(r"\d+\.\d+", "#", note).replace(", -#", ", #")  # an evidence is a density: of either sign


SIMILAR = {"stem": 0.5, "layer1": 2.0, "layer2": 4.0}  # the last stage knows the classes best
DIFFERENT = {"stem": 0.5, "layer1": 4.0, "layer2": 2.0}


@pytest.mark.parametrize(
    ("per_class", "apart", "strategy"),
    [
        (20, SIMILAR, "linear_probe"),
        (100, SIMILAR, "top_layers"),
        (100, DIFFERENT, "most_layers"),
        (20, DIFFERENT, "earlier_stage_svm"),
    ],
)
def test_the_matrix(per_class: int, apart: dict[str, float], strategy: str) -> None:
    subject = Known(per_class, **apart)
    plan = choose(subject)
    assert plan.strategy == strategy
    assert subject.passes == 1  # over the data
    amount = "few" if per_class == 20 else "many"
    likeness, sign = ("similar", "+") if apart is SIMILAR else ("different", "-")
    assert [masked(note) for note in plan.notes[:4]] == [
        f"auto: size: {per_class} training samples per class (median), {'' if amount == 'few' else 'not '}less than"
        f" finetune.few=50: {amount}",
        f"auto: similarity, LogME: the last stage, layer2, #, the best before it, layer1, #: {sign}# nats, {likeness}",
        f"auto: similarity, nearest centroid: layer2 #, the best before it, layer1, #: {likeness} too",
        f"auto: {amount} and {likeness}: finetune={strategy}",
    ]


def test_each_strategy_has_its_knobs() -> None:
    assert choose(Known(20, **SIMILAR)).views == 3
    assert choose(Known(20, **SIMILAR)).phases == (Phase(0, {"head": 1.0}),)
    assert choose(Known(100, **SIMILAR)).phases == (Phase(0, {"layer2": 0.2, "head": 1.0}),)
    assert choose(Known(100, **DIFFERENT)).phases == (Phase(0, {"layer1": 0.2, "layer2": 0.2, "head": 1.0}),)
    plan = choose(Known(20, **DIFFERENT), kernel="rbf")
    assert plan.phases == (Phase(0, {"top": 1.0}),)
    assert plan.top is not None and (plan.top.stage, plan.top.kernel) == ("layer1", "rbf")
    assert plan.notes[4].startswith("stage ")  # the winner's table comes after the reasons


def test_the_median_decides_whether_the_data_are_few() -> None:
    subject = Known(20, **SIMILAR)
    for counts, few, amount in (
        ([10, 50, 900], 50, "50 training samples per class (median), not less than finetune.few=50: many"),
        ([10, 50, 900], 51, "50 training samples per class (median), less than finetune.few=51: few"),
        ([10, 11], 50, "10.5 training samples per class (median), less than finetune.few=50: few"),
    ):
        subject.counts = counts
        plan = choose(subject, few=few)
        assert plan.notes[0] == f"auto: size: {amount}"
        assert plan.strategy == ("top_layers" if amount.endswith("many") else "linear_probe")


def of(**stages: tuple[Tensor, Tensor]) -> Known:
    """A subject of two classes, whose stages have these (2 n, F) training and (2 m, F) validation features."""
    subject = Known(20, **dict.fromkeys(stages, 0.0))
    for stage, (train, val) in stages.items():
        classes = [torch.arange(len(part)) % 2 for part in (train, val)]
        subject.known[stage] = Features(train, classes[0], val, classes[1])
    subject.counts = [len(next(iter(stages.values()))[0]) // 2] * 2
    return subject


def told(count: int, apart: float, seed: int) -> Tensor:
    """(count, 1) of noise around -apart and +apart."""
    noise = torch.randn(count, 1, generator=torch.Generator().manual_seed(seed))
    return noise + apart * (2.0 * (torch.arange(count) % 2)[:, None] - 1)


@pytest.mark.parametrize("similar", [True, False])
def test_where_the_evidence_is_not_strong_the_nearest_centroid_decides(similar: bool) -> None:
    same = told(8, 0.5, 0)
    good, bad = told(200, 3.0, 1), told(200, 0.0, 1)
    plan = choose(of(layer1=(same, bad if similar else good), layer2=(same, good if similar else bad)))
    assert plan.strategy == ("linear_probe" if similar else "earlier_stage_svm")
    likeness = "similar" if similar else "different"
    assert masked(plan.notes[1]).endswith(": +# nats, too close to tell, at less than 3 nats")
    assert masked(plan.notes[2]) == (
        f"auto: similarity, nearest centroid: layer2 #, the best before it, layer1, #: {likeness}, which decides"
    )


@pytest.mark.parametrize("similar", [True, False])
def test_strong_evidence_decides_against_the_nearest_centroid(similar: bool) -> None:
    better, worse = (told(60, 2.0, 0), told(200, 0.0, 1)), (told(60, 0.2, 0), told(200, 3.0, 1))
    plan = choose(of(layer1=worse if similar else better, layer2=better if similar else worse), few=1000)
    assert plan.strategy == ("linear_probe" if similar else "earlier_stage_svm")
    other = "different" if similar else "similar"
    assert masked(plan.notes[2]) == (
        f"auto: similarity, nearest centroid: layer2 #, the best before it, layer1, #: {other}, but LogME, which weighs"
        " all directions of the features, decides"
    )


def test_two_stages_that_are_alike_count_as_similar() -> None:
    same = told(60, 1.0, 0), told(200, 1.0, 1)
    assert choose(of(layer1=same, layer2=same)).strategy == "linear_probe"


def test_a_net_of_one_stage_leaves_nothing_to_compare() -> None:
    plan = choose(Known(20, layer1=1.0))
    assert plan.strategy == "linear_probe"
    assert list(plan.notes) == [
        "auto: size: 20 training samples per class (median), less than finetune.few=50: few",
        "auto: similarity: layer1 is the only stage before the head: nothing to compare, taken as similar",
        "auto: few and similar: finetune=linear_probe",
    ]


def test_a_net_of_a_head_alone_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^finetune=auto: resnet18 .*; write finetune=full$"):
        choose(Known(20))


def test_of_very_many_samples_the_estimate_takes_a_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def spy(features: Tensor, targets: Tensor) -> float:
        seen.append((len(features), len(targets)))
        return -0.5

    monkeypatch.setattr(module, "MOST_SAMPLES", 100)
    monkeypatch.setattr(module, "logme", spy)
    choose(Known(100, **SIMILAR))
    assert seen == [(100, 100)] * 3
