"""Penalties and bounds on the weights."""

from __future__ import annotations

import torch
from torch import Tensor

from dltips.net import Net
from dltips.registry import NonNegative, Positive
from dltips.tips.regularization.base import Regularization, regularization


@regularization.named("l1")
class L1(Regularization):
    """Adds strength * sum |w| over the weights to the objective, by its gradient: many weights end near 0."""

    def __init__(self, *, strength: NonNegative) -> None:
        super().__init__()
        self.strength = strength
        self.mask: Tensor | None = None

    def on_gradient(self, net: Net) -> None:
        if self.mask is None:
            self.mask = net.decay_mask(spare=True).mul_(self.strength)
        net.gradients.addcmul_(net.parameters.sign(), self.mask)


@regularization.named("l2")
class L2(Regularization):
    """Adds strength / 2 * sum w^2 over the weights to the objective, by its gradient: prefers diffuse weights."""

    def __init__(self, *, strength: NonNegative) -> None:
        super().__init__()
        self.strength = strength
        self.mask: Tensor | None = None

    def on_gradient(self, net: Net) -> None:
        if self.mask is None:
            self.mask = net.decay_mask(spare=True).mul_(self.strength)
        net.gradients.addcmul_(net.parameters, self.mask)


@regularization.named("weight_decay")
class WeightDecay(Regularization):
    """Decoupled decay: w *= 1 - rate * strength at each step, whatever the optimizer (Loshchilov and Hutter 2019)."""

    def __init__(self, *, strength: NonNegative, spare: bool) -> None:
        super().__init__()
        self.strength = strength
        self.spare = spare
        self.mask: Tensor | None = None

    def on_gradient(self, net: Net) -> None:
        if self.mask is None:
            self.mask = net.decay_mask(spare=self.spare).mul_(self.strength)
            if net.rate_factors is not None:
                self.mask.mul_(net.rate_factors)
        net.parameters.addcmul_(net.parameters, self.mask, value=-net.learning_rate)


@regularization.named("max_norm")
class MaxNorm(Regularization):
    """Each unit's incoming weights are scaled back to norm `limit` after each step (Srebro and Shraibman 2005)."""

    def __init__(self, *, limit: Positive) -> None:
        super().__init__()
        self.limit = limit
        self.views: list[Tensor] | None = None

    def after_step(self, net: Net) -> None:
        if self.views is None:
            self.views = [view for segment, view in net.views(net.parameters) if segment.is_weight]
        for weight in self.views:
            norms = torch.linalg.vector_norm(weight, dim=list(range(1, weight.dim())), keepdim=True)
            weight.mul_((self.limit / norms.clamp(min=1e-12)).clamp(max=1.0))
