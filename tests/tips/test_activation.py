from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from dltips.registry import knobs_of
from dltips.tips import activation

INPUTS = torch.tensor([-100.0, -3.0, -1.0, -1e-3, 0.0, 1e-3, 0.5, 2.0, 100.0], dtype=torch.float64)
CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    # each tip, torch's function, and the formula
    "sigmoid": (activation.sigmoid, torch.sigmoid, lambda x: 1 / (1 + torch.exp(-x))),
    "tanh": (activation.tanh, torch.tanh, lambda x: 1 - 2 / (torch.exp(2 * x) + 1)),
    "relu": (activation.relu, functional.relu, lambda x: torch.where(x > 0, x, torch.zeros_like(x))),
    "leaky_relu": (
        lambda: activation.leaky_relu(slope=0.2),
        lambda x: functional.leaky_relu(x, 0.2),
        lambda x: torch.where(x > 0, x, 0.2 * x),
    ),
    "prelu": (
        lambda: activation.prelu(start=0.1).double(),
        lambda x: functional.prelu(x, torch.tensor([0.1], dtype=torch.float32).double()),
        lambda x: torch.where(x > 0, x, 0.1 * x),
    ),
}


def test_there_is_a_case_for_every_activation() -> None:
    assert set(CASES) == set(activation.activation.tips)


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_torchs_and_the_formulas(name: str) -> None:
    make, theirs, formula = CASES[name]
    leaves = [INPUTS.clone().requires_grad_() for _ in range(2)]
    # times one: an activation may work in place, which a leaf does not allow
    outputs, expected = make()(leaves[0] * 1), theirs(leaves[1])
    torch.testing.assert_close(outputs, expected)
    torch.testing.assert_close(outputs, formula(INPUTS), rtol=1e-6, atol=1e-8)
    for result in (outputs, expected):
        result.sum().backward()
    torch.testing.assert_close(leaves[0].grad, leaves[1].grad)


@pytest.mark.parametrize("name", CASES)
def test_each_call_makes_a_new_module(name: str) -> None:
    make = CASES[name][0]
    assert make() is not make()


def test_only_prelu_learns_and_its_slope_moves() -> None:
    learning = {name for name, (make, _, _) in CASES.items() if list(make().parameters())}
    assert learning == {"prelu"}
    layer = activation.prelu(start=0.25)
    (slope,) = layer.parameters()
    assert slope.tolist() == [0.25]
    layer(torch.tensor([-2.0, 3.0])).sum().backward()
    assert slope.grad is not None
    assert slope.grad.tolist() == [-2.0]


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "prelu"])
def test_slopes_below_zero(name: str) -> None:
    # what a dead unit is: no gradient below zero, which a slope prevents
    inputs = torch.tensor([-1.0], requires_grad=True)
    tip = activation.activation.tips[name]
    tip(**dict.fromkeys(knobs_of(tip), 0.3))(inputs * 1).backward()
    assert inputs.grad is not None
    assert inputs.grad.item() == pytest.approx(0.0 if name == "relu" else 0.3)
