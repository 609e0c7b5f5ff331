"""The plans: which stages train, at which rate, from when."""

import re
from dataclasses import dataclass, field

import pytest

from dltips.errors import ConfigError
from dltips.tips.finetune import Features, Phase
from dltips.tips.finetune.layers import discriminative, full, gradual, most_layers, none, top_layers
from dltips.tips.finetune.probe import linear_probe


@dataclass
class Net:
    """A subject of five stages."""

    epochs: int = 12
    stages: list[str] = field(default_factory=lambda: ["stem", "stage1", "stage2", "stage3", "head"])
    architecture: str = "resnet"
    counts: tuple[int, ...] = (7, 7)
    seed: int = 0

    def features(self, stages: object) -> dict[str, Features]:
        raise AssertionError("what trains is not decided by features")


def test_none_trains_everything_without_a_plan() -> None:
    assert none(Net()).phases == ()


def test_full_trains_all_stages_and_the_head_at_the_full_rate() -> None:
    assert full(Net(), rate=0.1).phases == (
        Phase(0, {"stem": 0.1, "stage1": 0.1, "stage2": 0.1, "stage3": 0.1, "head": 1.0}),
    )


def test_linear_probe_trains_the_head_alone() -> None:
    plan = linear_probe(Net(), views=4)
    assert (plan.phases, plan.views, plan.top) == ((Phase(0, {"head": 1.0}),), 4, None)


@pytest.mark.parametrize("n", [1, 2, 4])
def test_top_layers_and_most_layers_meet(n: int) -> None:
    """n stages before the head train: as many as freeze_first leaves."""
    top, most = top_layers(Net(), n=n, rate=0.2), most_layers(Net(), freeze_first=4 - n or 4, rate=0.2)
    assert list(top.phases[0].rates) == Net().stages[4 - n :]
    assert set(top.phases[0].rates.values()) == {0.2, 1.0} and top.phases[0].rates["head"] == 1.0
    if n < 4:
        assert most.phases == top.phases
    else:
        assert list(most.phases[0].rates) == ["head"]


def test_discriminative_rates_are_geometric_from_head_to_stem() -> None:
    (phase,) = discriminative(Net(), decay=0.5).phases
    assert phase.rates == {"stem": 1 / 16, "stage1": 1 / 8, "stage2": 1 / 4, "stage3": 1 / 2, "head": 1.0}


def test_gradual_adds_a_stage_every_few_epochs_and_reaches_the_stem() -> None:
    plan = gradual(Net(), every=2, rate=0.1)
    assert [(phase.epoch, list(phase.rates)) for phase in plan.phases] == [
        (0, ["head"]),
        (2, ["stage3", "head"]),
        (4, ["stage2", "stage3", "head"]),
        (6, ["stage1", "stage2", "stage3", "head"]),
        (8, ["stem", "stage1", "stage2", "stage3", "head"]),
    ]
    assert all(phase.rates["head"] == 1.0 for phase in plan.phases) and not plan.notes


@pytest.mark.parametrize(("epochs", "last"), [(8, 4), (40, 20), (3, 4)])
def test_gradual_thaws_the_stem_at_half_of_the_run_unless_told_otherwise(epochs: int, last: int) -> None:
    assert gradual(Net(epochs), every=None, rate=0.1).phases[-1].epoch == last


def test_gradual_says_what_stays_frozen() -> None:
    (note,) = gradual(Net(5), every=2, rate=0.1).notes
    assert re.search(r"^finetune\.every: .*2 epochs per stage.* 5 epochs .*stem, stage1 frozen; 9 epochs", note)


def test_more_stages_than_there_are_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^finetune\.n: 5 .*4 stages.*resnet.*; write finetune\.n=4"):
        top_layers(Net(), n=5, rate=0.1)
    with pytest.raises(ConfigError, match=r"^finetune\.freeze_first: 5 .*4 stages.*; write finetune\.freeze_first=4"):
        most_layers(Net(), freeze_first=5, rate=0.1)
