"""Adds noise to the targets or the gradient."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from dltips.catalog.cards import card
from dltips.catalog.registry import Fraction, NonNegative, Positive
from dltips.nets.flat import FlatModel
from dltips.tips.regularization.base import Criterion, Regularization, regularization

SALT = 0x6E6F697365  # separates this stream from others with the epoch's seed


@regularization.named("label_smoothing")
@card(
    when="many classes, labels that are not all right, and nets that grow too sure; not where probabilities are to rank"
    " what is not in any class",
    formula="cross-entropy against (1 - amount) * target + amount / K, with K classes",
    source="Szegedy et al. 2016, arXiv 1512.00567",
    recommends="amount 0.1",
    costs="nothing that could be measured; the training loss no longer goes to 0",
)
class LabelSmoothing(Regularization):
    """Trains towards 1 - amount for the right class, the rest spread over all (Szegedy et al. 2016)."""

    def __init__(self, *, amount: Fraction) -> None:
        super().__init__()
        self.amount = amount

    def criterion(self, criterion: Criterion) -> Criterion:
        return partial(criterion, label_smoothing=self.amount)


@regularization.named("gradient_noise")
@card(
    when="very deep or badly initialized nets that get stuck; elsewhere it mostly costs: its norm grows with the"
    " square root of the number of parameters",
    formula="g += N(0, eta / (1 + t)^gamma), t counting the steps",
    source="Neelakantan et al. 2015, arXiv 1511.06807",
    recommends="eta 0.01, 0.3 or 1.0, gamma 0.55",
    costs="one draw per parameter and step",
    avoid={
        "optimizer.reduction=sum": "the noise is for a mean gradient: a sum over the batch drowns it; write"
        " optimizer.reduction=mean",
        "optimizer=lion": "where gradients are small lion's signs become those of the noise; take another optimizer",
    },
)
class GradientNoise(Regularization):
    """Adds noise to the gradient that fades with the steps: N(0, eta / (1 + t)^gamma) (Neelakantan et al. 2015)."""

    def __init__(self, *, eta: Positive, gamma: NonNegative) -> None:
        super().__init__()
        self.eta = eta
        self.gamma = gamma
        self.mask: Tensor | None = None
        self.generator: torch.Generator | None = None

    def on_unfreeze(self) -> None:
        self.mask = None

    def on_gradient(self, net: FlatModel) -> None:
        if self.mask is None or self.generator is None:
            self.mask = net.decay_mask(spare=False)  # parameters without a gradient get no noise either
            self.generator = torch.Generator(net.gradients.device)
        if not self.state:
            # torch's global stream has the run's seed; it is not used, so that dropout's draws stay the same
            self.state["generator"] = self.generator.manual_seed(torch.initial_seed() ^ SALT).get_state()
            self.state["step"] = 0
        self.generator.set_state(self.state["generator"].cpu())
        noise = torch.empty_like(net.gradients).normal_(generator=self.generator)
        self.state["generator"] = self.generator.get_state()
        net.gradients.addcmul_(noise, self.mask, value=math.sqrt(self.eta / (1 + self.state["step"]) ** self.gamma))
        self.state["step"] += 1
