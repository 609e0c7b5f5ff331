"""Rules that adapt the rate of each parameter to its gradients."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dltips.catalog.cards import card
from dltips.catalog.registry import Fraction, NonNegative, Positive
from dltips.nets.flat import FlatModel
from dltips.tips.optimizer.base import Optimizer, buffers, descend, optimizer, two_below_one


@optimizer
@card(
    when="the safe first choice for a new net, above all for recurrent ones and for transformers; a tuned sgd often"
    " ends a little higher on images",
    formula="m = b1 m + (1 - b1) g, v = b2 v + (1 - b2) g^2, w -= rate * (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) +"
    " epsilon)",
    source="tip T; Kingma and Ba 2015, arXiv 1412.6980",
    recommends="rate 0.001, betas 0.9 and 0.999, epsilon 1e-8",
    costs="two more numbers per parameter",
)
def adam(net: FlatModel, *, lr: Positive, betas: tuple[Fraction, ...], epsilon: Positive) -> Optimizer:
    """Adaptive moments, bias-corrected: w -= rate * m / (sqrt(v) + epsilon) (Kingma and Ba 2015, arXiv 1412.6980)."""
    first, second = two_below_one("optimizer.betas", betas)
    mean, square = buffers(net, 2)
    count = torch.zeros((), dtype=torch.int64)

    def step(rate: float) -> None:
        count.add_(1)
        adapt(net.parameters, net.gradients, mean, square, int(count), rate, (first, second), epsilon)

    return Optimizer(lr, step, {"mean": mean, "square": square, "count": count})


def adapt(
    parameters: Tensor,
    gradients: Tensor,
    mean: Tensor,
    square: Tensor,
    steps: int,
    rate: float,
    betas: tuple[float, float],
    epsilon: float,
) -> None:
    """Applies Adam's step number `steps`, counted from 1, to flat tensors; changes all but the gradients in place."""
    first, second = betas
    mean.lerp_(gradients, 1 - first)
    square.mul_(second).addcmul_(gradients, gradients, value=1 - second)
    denominator = square.sqrt().div_(math.sqrt(1 - second**steps)).add_(epsilon)
    parameters.addcdiv_(mean, denominator, value=-rate / (1 - first**steps))


@optimizer
@card(
    when="where adam is at home and the weights should decay as well; norms and biases decay too: adam with"
    " regularization=weight_decay spares them",
    formula="w *= 1 - rate * weight_decay, then adam's step",
    source="Loshchilov and Hutter 2019, arXiv 1711.05101",
    costs="as adam, and one pass over the weights",
)
def adamw(
    net: FlatModel, *, lr: Positive, betas: tuple[Fraction, ...], epsilon: Positive, weight_decay: NonNegative
) -> Optimizer:
    """Adam with decoupled weight decay: w *= 1 - rate * decay before each step (Loshchilov and Hutter 2019)."""
    rule = adam(net, lr=lr, betas=betas, epsilon=epsilon)
    mask: list[Tensor] = []

    def step(rate: float) -> None:
        if not mask:
            mask.append(net.decay_mask(spare=False))
        net.parameters.addcmul_(net.parameters, mask[0], value=-rate * weight_decay)
        rule.step(rate)

    return Optimizer(lr, step, rule.state)


@optimizer
@card(
    when="instead of adam, where the first epochs are slow: the momentum looks one step ahead",
    formula="adam with the numerator mu(t+1) m / (1 - P(t+1)) + (1 - mu(t)) g / (1 - P(t)),"
    " mu(t) = b1 (1 - 0.96^(t momentum_decay) / 2), P(t) = mu(1) ... mu(t)",
    source="Dozat 2016, Incorporating Nesterov Momentum into Adam (ICLR workshop)",
    recommends="momentum_decay 0.004",
    costs="as adam, and one pass over the weights",
)
def nadam(
    net: FlatModel, *, lr: Positive, betas: tuple[Fraction, ...], epsilon: Positive, momentum_decay: NonNegative
) -> Optimizer:
    """Adam with Nesterov's momentum, which is warmed up from half its value (Dozat 2016)."""
    first, second = two_below_one("optimizer.betas", betas)
    mean, square = buffers(net, 2)
    count, product = torch.zeros((), dtype=torch.int64), torch.ones(())

    def momentum(steps: int) -> float:
        return first * (1 - math.pow(0.96, steps * momentum_decay) / 2)

    def step(rate: float) -> None:
        steps = int(count.add_(1))
        now, ahead = momentum(steps), momentum(steps + 1)
        done = float(product.mul_(now))
        mean.lerp_(net.gradients, 1 - first)
        square.mul_(second).addcmul_(net.gradients, net.gradients, value=1 - second)
        denominator = square.div(1 - second**steps).sqrt_().add_(epsilon)
        net.parameters.addcdiv_(net.gradients, denominator, value=-rate * (1 - now) / (1 - done))
        net.parameters.addcdiv_(mean, denominator, value=-rate * ahead / (1 - done * ahead))

    return Optimizer(lr, step, {"mean": mean, "square": square, "count": count, "product": product})


@optimizer
@card(
    when="recurrent nets and gradients whose size drifts; adam adds momentum and the correction of the first steps",
    formula="v = alpha v + (1 - alpha) g^2, w -= rate * g / (sqrt(v) + epsilon)",
    source="tip T; Hinton's Coursera lecture 6e, 2012",
    recommends="alpha 0.9, rate 0.001 in the lecture",
    costs="one more number per parameter, two with momentum",
)
def rmsprop(net: FlatModel, *, lr: Positive, alpha: Fraction, epsilon: Positive, momentum: Fraction) -> Optimizer:
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

    return Optimizer(lr, step, {"square": square, "velocity": velocity})


@optimizer
@card(
    when="sparse features, where rare ones should keep a large rate; in long trainings the rate dies away",
    formula="s = s + g^2, w -= rate * g / (sqrt(s) + epsilon)",
    source="tip T; Duchi et al. 2011, Adaptive Subgradient Methods (JMLR 12)",
    costs="one more number per parameter",
)
def adagrad(net: FlatModel, *, lr: Positive, epsilon: Positive) -> Optimizer:
    """w -= rate * g / (sqrt(sum of g^2) + epsilon): rates that only shrink (Duchi et al. 2011)."""
    (total,) = buffers(net, 1)

    def step(rate: float) -> None:
        total.addcmul_(net.gradients, net.gradients)
        net.parameters.addcdiv_(net.gradients, total.sqrt().add_(epsilon), value=-rate)

    return Optimizer(lr, step, {"total": total})
