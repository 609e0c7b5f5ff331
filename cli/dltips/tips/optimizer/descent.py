"""Rules that follow the gradient, its momentum, or the sign of it."""

from __future__ import annotations

import torch

from dltips.catalog.cards import card
from dltips.catalog.registry import Fraction, Positive
from dltips.nets.flat import FlatModel
from dltips.tips.optimizer.base import Optimizer, check_nesterov, descend, optimizer, two_below_one, zero_buffers


@optimizer
@card(
    when="images and batch-normalized nets, with a schedule; the rate wants tuning, more than adam's does",
    formula="v = momentum * v + g, w -= rate * v; nesterov: w -= rate * (g + momentum * v)",
    source="tips K and T; Sutskever et al. 2013, On the importance of initialization and momentum",
    recommends="a first rate of 0.1 (K), momentum 0.9",
    costs="one more number per parameter, none without momentum",
)
def sgd(net: FlatModel, *, lr: Positive, momentum: Fraction, nesterov: bool) -> Optimizer:
    """Stochastic gradient descent: v = momentum * v + g, w -= rate * v (nesterov: w -= rate * (g + momentum * v))."""
    check_nesterov(nesterov, momentum)
    if momentum == 0:
        return Optimizer(lr, lambda rate: descend(net, net.gradients, rate))
    velocity = torch.zeros_like(net.parameters)

    def step(rate: float) -> None:
        torch.add(net.gradients, velocity, alpha=momentum, out=velocity)
        descend(net, net.gradients.add(velocity, alpha=momentum) if nesterov else velocity, rate)

    return Optimizer(lr, step, {"velocity": velocity})


@optimizer
@card(
    when="large nets and large batches, where adam's second buffer costs memory; small batches make its signs noisy",
    formula="w -= rate * sign(b1 m + (1 - b1) g), then m = b2 m + (1 - b2) g",
    source="Chen et al. 2023, arXiv 2302.06675",
    recommends="a rate 3 to 10 times smaller than adamw's, a weight decay 3 to 10 times larger; betas 0.9 and 0.99",
    costs="one more number per parameter",
)
def lion(net: FlatModel, *, lr: Positive, betas: tuple[Fraction, ...]) -> Optimizer:
    """Follows the sign of the momentum: every weight moves by the whole rate (Chen et al. 2023, arXiv 2302.06675)."""
    first, second = two_below_one("optimizer.betas", betas)
    (mean,) = zero_buffers(net, 1)

    def step(rate: float) -> None:
        descend(net, mean.lerp(net.gradients, 1 - first).sign_(), rate)
        mean.lerp_(net.gradients, 1 - second)

    return Optimizer(lr, step, {"mean": mean})
