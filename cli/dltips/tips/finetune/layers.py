"""Strategies by stages: which ones train, at which rate, from which epoch."""

from __future__ import annotations

from typing import Annotated

from dltips.catalog.cards import card
from dltips.catalog.registry import Bounds, Positive, Size
from dltips.errors import ConfigError
from dltips.tips.finetune.base import FinetunePlan, Phase, PretrainedNet, finetune

Decay = Annotated[float, Bounds(above=0, most=1)]


@finetune
@card(
    when="enough data to learn all weights from them; as the control for the others",
    formula="every parameter trains, from the init scheme's weights",
    source="the control",
    costs="nothing",
)
def none(net: PretrainedNet) -> FinetunePlan:
    """No fine-tuning: every parameter trains, from the init scheme's weights."""
    return FinetunePlan("none", ())


@finetune
@card(
    when="many data; with few of them the net forgets more than it learns, and fewer stages do better",
    formula="every stage trains: the head at optimizer.lr, the others at rate times it",
    source="tip T; Yosinski et al. 2014, arXiv 1411.1792",
    recommends="a small rate for what is trained already",
    costs="a step of training from scratch",
    avoid={
        "optimizer.lr=0.1": "a rate for training from scratch: it shakes the pretrained weights apart; write"
        " optimizer.lr=0.01"
    },
    try_with=("finetune.source=RUN", "optimizer.lr=0.01"),
)
def full(net: PretrainedNet, *, rate: Positive) -> FinetunePlan:
    """All stages train, the pretrained ones at `rate` times the head's learning rate."""
    return FinetunePlan("full", (_phase(net, len(net.stages), rate),))


@finetune
@card(
    when="many data, similar to those the net was trained on",
    formula="the head trains at optimizer.lr, the n stages before it at rate times it, the others rest",
    source="tips K, S and T; Yosinski et al. 2014, arXiv 1411.1792",
    recommends="a few top layers, a small learning rate",
    costs="forward through all stages, backward through the top ones alone",
    try_with=("finetune.source=RUN", "finetune.n=1"),
)
def top_layers(net: PretrainedNet, *, n: Size, rate: Positive) -> FinetunePlan:
    """The last n stages and the head train, at a small rate; others are frozen. For many data like the net's own."""
    body = len(net.stages) - 1
    if n > body:
        raise ConfigError(
            f"finetune.n: {n} is more than the {body} stages that {net.architecture} has before its head; write"
            f" finetune.n={body}, or finetune=full"
        )
    return FinetunePlan("top_layers", (_phase(net, n + 1, rate),))


@finetune
@card(
    when="many data, different from those the net was trained on",
    formula="the first freeze_first stages rest; the others train at rate times optimizer.lr, the head at optimizer.lr",
    source="tips K and S; that the first layers are general: tip T, Yosinski et al. 2014, arXiv 1411.1792",
    recommends="a large number of layers, a small learning rate; the first layers left alone",
    costs="nearly a step of training from scratch",
    avoid={
        "optimizer.lr=0.1": "a rate for training from scratch: it shakes the pretrained weights apart; write"
        " optimizer.lr=0.01"
    },
    try_with=("finetune.source=RUN", "optimizer.lr=0.01"),
)
def most_layers(net: PretrainedNet, *, freeze_first: Size, rate: Positive) -> FinetunePlan:
    """All but the first freeze_first stages train, at a small rate. For many data unlike the net's own."""
    body = len(net.stages) - 1
    if freeze_first > body:
        raise ConfigError(
            f"finetune.freeze_first: {freeze_first} is more than the {body} stages that {net.architecture} has"
            f" before its head; write finetune.freeze_first={body}, or finetune=linear_probe"
        )
    return FinetunePlan("most_layers", (_phase(net, len(net.stages) - freeze_first, rate),))


@finetune
@card(
    when="data enough for many stages, but too few to let them loose at once: the head settles before the rest moves",
    formula="the head trains from epoch 0; every `every` epochs one more stage joins it, from head to stem, at rate"
    " times optimizer.lr",
    source="Howard and Ruder 2018, arXiv 1801.06146, section 3.3",
    recommends="one stage per epoch",
    costs="less than full: frozen stages have no backward pass; the optimizer's state begins anew in each phase",
    avoid={
        "schedule=one_cycle": "the rate has fallen when the first stages are unfrozen; take schedule=constant",
        "schedule=cosine": "the rate has fallen when the first stages are unfrozen; take schedule=constant",
    },
    try_with=("finetune.source=RUN", "finetune.every=1"),
)
def gradual(net: PretrainedNet, *, every: Size | None, rate: Positive) -> FinetunePlan:
    """Stage by stage is unfrozen, from head to stem, one every few epochs; by default the stem at half of the run."""
    body = len(net.stages) - 1
    step = every or max(1, net.epochs // (2 * max(1, body)))
    phases = tuple(_phase(net, count + 1, rate, epoch=count * step) for count in range(body + 1))
    left_frozen = [net.stages[body - count] for count in range(1, body + 1) if count * step >= net.epochs > 0]
    notes = []
    if left_frozen:
        notes.append(
            f"finetune.every: at {step} epoch{'s' if step > 1 else ''} per stage {net.epochs} epochs leave"
            f" {', '.join(reversed(left_frozen))} frozen; {body * step + 1} epochs unfreeze all"
        )
    return FinetunePlan("gradual", phases, notes=notes)


@finetune
@card(
    when="many data, and stages of which the first are general, the last ones not",
    formula="learning rate of a stage = optimizer.lr * decay ** (number of stages between it and the head)",
    source="Howard and Ruder 2018, arXiv 1801.06146, section 3.2",
    recommends="decay = 1 / 2.6",
    costs="a step of training from scratch, and two more passes over the weights",
    try_with=("finetune.source=RUN", "optimizer.lr=0.01"),
)
def discriminative(net: PretrainedNet, *, decay: Decay) -> FinetunePlan:
    """All stages train, at rates that fall geometrically from the head to the stem."""
    last = len(net.stages) - 1
    rates = {stage: decay ** (last - index) for index, stage in enumerate(net.stages)}
    return FinetunePlan("discriminative", (Phase(0, rates),))


def _phase(net: PretrainedNet, count: int, rate: float, *, epoch: int = 0) -> Phase:
    """Returns the phase that trains the last `count` stages: the head at the full rate, the others at a share."""
    *body, head = net.stages[-count:]
    return Phase(epoch, dict.fromkeys(body, rate) | {head: 1.0})
