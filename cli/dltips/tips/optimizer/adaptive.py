"""Rules that adapt the rate of each parameter to its gradients."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dltips.net import Net
from dltips.registry import Fraction, NonNegative, Positive
from dltips.tips.optimizer.base import Rule, buffers, descend, optimizer, two_below_one


@optimizer
def adam(net: Net, *, lr: Positive, betas: tuple[Fraction, ...], epsilon: Positive) -> Rule:
    """Adaptive moments, bias-corrected: w -= rate * m / (sqrt(v) + epsilon) (Kingma and Ba 2015, arXiv 1412.6980)."""
    first, second = two_below_one("optimizer.betas", betas)
    mean, square = buffers(net, 2)
    count = torch.zeros((), dtype=torch.int64)

    def step(rate: float) -> None:
        steps = int(count.add_(1))
        mean.lerp_(net.gradients, 1 - first)
        square.mul_(second).addcmul_(net.gradients, net.gradients, value=1 - second)
        denominator = square.sqrt().div_(math.sqrt(1 - second**steps)).add_(epsilon)
        net.parameters.addcdiv_(mean, denominator, value=-rate / (1 - first**steps))

    return Rule(lr, step, {"mean": mean, "square": square, "count": count})


@optimizer
def adamw(net: Net, *, lr: Positive, betas: tuple[Fraction, ...], epsilon: Positive, weight_decay: NonNegative) -> Rule:
    """Adam with decoupled weight decay: w *= 1 - rate * decay before each step (Loshchilov and Hutter 2019)."""
    rule = adam(net, lr=lr, betas=betas, epsilon=epsilon)
    mask: list[Tensor] = []

    def step(rate: float) -> None:
        if not mask:
            mask.append(net.decay_mask(spare=False))
        net.parameters.addcmul_(net.parameters, mask[0], value=-rate * weight_decay)
        rule.step(rate)

    return Rule(lr, step, rule.state)


@optimizer
def rmsprop(net: Net, *, lr: Positive, alpha: Fraction, epsilon: Positive, momentum: Fraction) -> Rule:
    """w -= rate * g / (sqrt(v) + epsilon), v a running mean of g^2 (Hinton's lecture 6e, 2012)."""
    square, velocity = buffers(net, 2)

    def step(rate: float) -> None:
        square.mul_(alpha).addcmul_(net.gradients, net.gradients, value=1 - alpha)
        denominator = square.sqrt().add_(epsilon)
        if momentum > 0:
            velocity.mul_(momentum).addcdiv_(net.gradients, denominator)
            descend(net, velocity, rate)
        else:
            net.parameters.addcdiv_(net.gradients, denominator, value=-rate)

    return Rule(lr, step, {"square": square, "velocity": velocity})


@optimizer
def adagrad(net: Net, *, lr: Positive, epsilon: Positive) -> Rule:
    """w -= rate * g / (sqrt(sum of g^2) + epsilon): rates that only shrink (Duchi et al. 2011)."""
    (total,) = buffers(net, 1)

    def step(rate: float) -> None:
        total.addcmul_(net.gradients, net.gradients)
        net.parameters.addcdiv_(net.gradients, total.sqrt().add_(epsilon), value=-rate)

    return Rule(lr, step, {"total": total})
