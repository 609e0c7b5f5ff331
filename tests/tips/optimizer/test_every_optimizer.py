"""Each optimizer computes the formula of its card, written out here a second time: three steps, float64."""

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

from dltips.nets.flat import FlatModel
from dltips.tips import optimizer
from dltips.tips.optimizer import Optimizer

RATE = 0.02
Make = Callable[[FlatModel], Optimizer]
Formula = Callable[[Tensor, Sequence[Tensor]], Tensor]  # weights (P,) and the gradients of each step -> weights


def sgd(w: Tensor, gradients: Sequence[Tensor]) -> Tensor:
    v = torch.zeros_like(w)
    for g in gradients:
        v = 0.9 * v + g
        w = w - RATE * v
    return w


def adam(w: Tensor, gradients: Sequence[Tensor], decay: float = 0.0) -> Tensor:
    m, v = torch.zeros_like(w), torch.zeros_like(w)
    for t, g in enumerate(gradients, 1):
        w = (1 - RATE * decay) * w
        m, v = 0.8 * m + 0.2 * g, 0.95 * v + 0.05 * g**2
        w = w - RATE * (m / (1 - 0.8**t)) / ((v / (1 - 0.95**t)).sqrt() + 1e-3)
    return w


def nadam(w: Tensor, gradients: Sequence[Tensor]) -> Tensor:
    m, v, product = torch.zeros_like(w), torch.zeros_like(w), 1.0
    for t, g in enumerate(gradients, 1):
        now, ahead = (0.8 * (1 - 0.96 ** (step * 0.1) / 2) for step in (t, t + 1))
        product *= now
        m, v = 0.8 * m + 0.2 * g, 0.95 * v + 0.05 * g**2
        numerator = ahead * m / (1 - product * ahead) + (1 - now) * g / (1 - product)
        w = w - RATE * numerator / ((v / (1 - 0.95**t)).sqrt() + 1e-3)
    return w


def lion(w: Tensor, gradients: Sequence[Tensor]) -> Tensor:
    m = torch.zeros_like(w)
    for g in gradients:
        w = w - RATE * torch.sign(0.8 * m + 0.2 * g)
        m = 0.95 * m + 0.05 * g
    return w


def rmsprop(w: Tensor, gradients: Sequence[Tensor]) -> Tensor:
    v = torch.zeros_like(w)
    for g in gradients:
        v = 0.9 * v + 0.1 * g**2
        w = w - RATE * g / (v.sqrt() + 1e-3)
    return w


def adagrad(w: Tensor, gradients: Sequence[Tensor]) -> Tensor:
    total = torch.zeros_like(w)
    for g in gradients:
        total = total + g**2
        w = w - RATE * g / (total.sqrt() + 1e-3)
    return w


def muon(w: Tensor, gradients: Sequence[Tensor]) -> Tensor:
    """Of a net whose only hidden matrix is (12, 5): the orthogonal part by Newton and Schulz; adam for the others."""
    hidden = slice(0, 60)
    v = torch.zeros(12, 5, dtype=w.dtype)
    weight = w[hidden].view(12, 5)
    for g in gradients:
        v = 0.9 * v + g[hidden].view(12, 5)
        x = (g[hidden].view(12, 5) + 0.9 * v).T  # nesterov
        x = x / x.norm()
        for _ in range(5):
            a = x @ x.T
            x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
        weight = weight - RATE * math.sqrt(12 / 5) * x.T
    rest = adam(w, gradients)
    return torch.cat([weight.flatten(), rest[60:]])


CASES: dict[str, tuple[Make, Formula]] = {
    "sgd": (lambda net: optimizer.sgd(net, lr=RATE, momentum=0.9, nesterov=False), sgd),
    "adam": (lambda net: optimizer.adam(net, lr=RATE, betas=(0.8, 0.95), epsilon=1e-3), adam),
    "adamw": (
        lambda net: optimizer.adamw(net, lr=RATE, betas=(0.8, 0.95), epsilon=1e-3, weight_decay=0.3),
        lambda w, gradients: adam(w, gradients, decay=0.3),
    ),
    "nadam": (lambda net: optimizer.nadam(net, lr=RATE, betas=(0.8, 0.95), epsilon=1e-3, momentum_decay=0.1), nadam),
    "lion": (lambda net: optimizer.lion(net, lr=RATE, betas=(0.8, 0.95)), lion),
    "rmsprop": (lambda net: optimizer.rmsprop(net, lr=RATE, alpha=0.9, epsilon=1e-3, momentum=0.0), rmsprop),
    "adagrad": (lambda net: optimizer.adagrad(net, lr=RATE, epsilon=1e-3), adagrad),
    "muon": (
        lambda net: optimizer.muon(
            net, lr=RATE, momentum=0.9, nesterov=True, steps=5, rest_lr=RATE, betas=(0.8, 0.95), epsilon=1e-3
        ),
        muon,
    ),
    "torch": (
        lambda net: optimizer.torch_class(net, cls="SGD", lr=RATE, options={"momentum": 0.9}),
        sgd,
    ),
}


@pytest.mark.parametrize("name", optimizer.optimizer.tips)
def test_three_steps_are_the_formula_s(name: str) -> None:
    assert name in CASES, (
        f"optimizer={name} has no case: write its card's formula as a function here, and add it to CASES as"
        f" {name!r}: (how it is made, the formula)"
    )
    make, formula = CASES[name]
    model = nn.Sequential(nn.Linear(5, 12), nn.Tanh(), nn.Linear(12, 3)).double()
    net = FlatModel(model)
    model(torch.randn(4, 5, dtype=torch.float64)).sum().backward()
    net.detect_unused()
    present = torch.cat([torch.arange(each.start, each.stop) for each in net.segments])  # not the gaps
    start = net.parameters[present].clone()
    rule = make(net)
    gradients = [torch.randn(len(present), dtype=torch.float64) for _ in range(3)]
    for gradient in gradients:
        net.gradients.zero_()[present] = gradient
        rule.step(RATE)
    torch.testing.assert_close(net.parameters[present], formula(start, gradients), rtol=1e-7, atol=1e-9)
    net.assert_views()
