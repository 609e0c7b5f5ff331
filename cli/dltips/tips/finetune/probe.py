"""Trains a linear classifier on top of a frozen net."""

from __future__ import annotations

from dltips.catalog.cards import card
from dltips.catalog.registry import Count
from dltips.tips.finetune.base import FinetunePlan, Phase, PretrainedNet, finetune


@finetune
@card(
    when="few data, similar to those the net was trained on; and first of all, since it takes seconds",
    formula="softmax(W f(x) + b): W and b train, f is the net before its head, in eval mode",
    source="tips K, S and T; Donahue et al. 2014, arXiv 1310.1531",
    recommends="a linear classifier on the top features",
    costs="one forward pass per sample and view before the first epoch; an epoch then takes milliseconds",
    avoid={
        "regularization=dropout": "it acts in stages that rest, where it is off; write regularization=weight_decay",
        "regularization=stochastic_depth": "it acts in stages that rest, where it is off; write"
        " regularization=weight_decay",
    },
    try_with=("finetune.source=RUN",),
)
def linear_probe(subject: PretrainedNet, *, views: Count) -> FinetunePlan:
    """Only the head trains, on features that are computed once and kept on the device. For few data like the net's own.

    With augmentation, `views` augmented copies of each sample are passed through the net, and each epoch takes one of
    them for each sample; 0 keeps nothing, and every step passes new draws through the whole net.
    """
    return FinetunePlan("linear_probe", (Phase(0, {subject.stages[-1]: 1.0}),), views)
