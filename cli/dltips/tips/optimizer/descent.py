"""Rules that follow the gradient, its momentum, or what is left of it."""

from __future__ import annotations

import torch

from dltips.net import Net
from dltips.registry import ConfigError, Fraction, Positive
from dltips.tips.optimizer.base import Rule, descend, optimizer


@optimizer
def sgd(net: Net, *, lr: Positive, momentum: Fraction, nesterov: bool) -> Rule:
    """Stochastic gradient descent: v = momentum * v + g, w -= rate * v (nesterov: w -= rate * (g + momentum * v))."""
    if nesterov and momentum == 0:
        raise ConfigError("optimizer.nesterov: true needs a momentum; set optimizer.momentum=0.9")
    if momentum == 0:
        return Rule(lr, lambda rate: descend(net, net.gradients, rate))
    velocity = torch.zeros_like(net.parameters)

    def step(rate: float) -> None:
        torch.add(net.gradients, velocity, alpha=momentum, out=velocity)
        descend(net, net.gradients.add(velocity, alpha=momentum) if nesterov else velocity, rate)

    return Rule(lr, step, {"velocity": velocity})
