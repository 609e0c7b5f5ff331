"""Optimizers: `(net, *, knobs) -> Rule`: short update rules on flat buffers, held to torch.optim in the tests.

Constructing any torch.optim.Optimizer imports torch._dynamo, about two seconds; only `torch` below does.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch as pytorch
from torch import Tensor

from dltips.net import Net
from dltips.registry import ConfigError, Fraction, NonNegative, Positive, family, suggest

optimizer = family("optimizer")


@dataclass
class Rule:
    """An optimizer at work: `step(learning_rate)` updates the net; `state` goes to the checkpoint."""

    learning_rate: float
    step: Callable[[float], None]
    state: dict[str, Tensor] = field(default_factory=dict)


@optimizer
def sgd(net: Net, *, lr: Positive, momentum: Fraction, nesterov: bool) -> Rule:
    """Stochastic gradient descent: v = momentum * v + g, w -= rate * v (nesterov: w -= rate * (g + momentum * v))."""
    if nesterov and momentum == 0:
        raise ConfigError("optimizer.nesterov: true needs a momentum; set optimizer.momentum=0.9")
    if momentum == 0:
        return Rule(lr, lambda rate: _descend(net, net.gradients, rate))
    velocity = pytorch.zeros_like(net.parameters)

    def step(rate: float) -> None:
        pytorch.add(net.gradients, velocity, alpha=momentum, out=velocity)
        _descend(net, net.gradients.add(velocity, alpha=momentum) if nesterov else velocity, rate)

    return Rule(lr, step, {"velocity": velocity})


def _descend(net: Net, direction: Tensor, rate: float) -> None:
    net.parameters.add_(direction, alpha=-rate)


@optimizer
def adam(net: Net, *, lr: Positive, betas: tuple[Fraction, ...], epsilon: Positive) -> Rule:
    """Adaptive moments, bias-corrected: w -= rate * m / (sqrt(v) + epsilon) (Kingma and Ba 2015, arXiv 1412.6980)."""
    first, second = _two("optimizer.betas", betas)
    mean, square = _buffers(net, 2)
    count = pytorch.zeros((), dtype=pytorch.int64)

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
    square, velocity = _buffers(net, 2)

    def step(rate: float) -> None:
        square.mul_(alpha).addcmul_(net.gradients, net.gradients, value=1 - alpha)
        denominator = square.sqrt().add_(epsilon)
        if momentum > 0:
            velocity.mul_(momentum).addcdiv_(net.gradients, denominator)
            _descend(net, velocity, rate)
        else:
            net.parameters.addcdiv_(net.gradients, denominator, value=-rate)

    return Rule(lr, step, {"square": square, "velocity": velocity})


@optimizer
def adagrad(net: Net, *, lr: Positive, epsilon: Positive) -> Rule:
    """w -= rate * g / (sqrt(sum of g^2) + epsilon): rates that only shrink (Duchi et al. 2011)."""
    (total,) = _buffers(net, 1)

    def step(rate: float) -> None:
        total.addcmul_(net.gradients, net.gradients)
        net.parameters.addcdiv_(net.gradients, total.sqrt().add_(epsilon), value=-rate)

    return Rule(lr, step, {"total": total})


@optimizer.named("torch")
def torch_class(net: Net, *, cls: str, lr: Positive, options: dict[str, Any]) -> Rule:
    """Any class of torch.optim, on the flat parameter as one tensor; what it takes besides lr goes in options."""
    known = {
        name: kind
        for name, kind in vars(pytorch.optim).items()
        if isinstance(kind, type) and issubclass(kind, pytorch.optim.Optimizer) and kind is not pytorch.optim.Optimizer
    }
    if cls not in known:
        raise ConfigError(f"optimizer.cls: {cls!r} is no class of torch.optim{suggest(cls, known)}")
    if cls in ("LBFGS", "SparseAdam", "Muon"):
        # a closure per step, sparse gradients, and matrices, in this order
        raise ConfigError(f"optimizer.cls: {cls} cannot work on one flat parameter; choose another class")
    parameter = pytorch.nn.Parameter(net.parameters)
    parameter.grad = net.gradients
    kept = net.parameters.clone()
    try:
        worker = known[cls]([parameter], lr=lr, **options)  # type: ignore[call-arg]
        initial = copy.deepcopy(worker.state[parameter])
        # torch.optim makes its state in the first step; one with no gradient and no rate gives it a fixed place
        worker.param_groups[0]["lr"] = 0.0
        worker.step()
    except Exception as error:  # each class complains in its own way, some only in the first step
        raise ConfigError(f"optimizer.options: {cls} refuses them: {' '.join(str(error).split())}") from error
    net.parameters.copy_(kept)
    state = {name: value for name, value in worker.state[parameter].items() if isinstance(value, Tensor)}
    count = pytorch.zeros((), dtype=pytorch.int64)

    def step(rate: float) -> None:
        worker.param_groups[0]["lr"] = rate
        first = count == 0
        if first:
            # not all of them start at zero (NAdam's product, Rprop's rates): the first step makes its own again
            worker.state[parameter] = copy.deepcopy(initial)
        worker.step()
        if first:
            for name, value in state.items():
                value.copy_(worker.state[parameter][name])
            worker.state[parameter].update(state)
        count.add_(1)

    return Rule(lr, step, {**state, "count": count})


def _buffers(net: Net, count: int) -> list[Tensor]:
    return [pytorch.zeros_like(net.parameters) for _ in range(count)]


def _two(key: str, values: tuple[float, ...]) -> tuple[float, float]:
    if len(values) != 2 or max(values) >= 1:
        raise ConfigError(f"{key}: {list(values)} is not two numbers below 1")
    return values[0], values[1]
