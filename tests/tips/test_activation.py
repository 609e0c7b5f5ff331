import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from dltips.catalog.cards import card_of
from dltips.catalog.registry import knobs_of
from dltips.errors import ConfigError
from dltips.tips import activation

INPUTS = torch.tensor([-100.0, -3.0, -1.0, -1e-3, 0.0, 1e-3, 0.5, 2.0, 100.0], dtype=torch.float64)
CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    # each tip, torch's function, and the formula
    "sigmoid": (activation.sigmoid, torch.sigmoid, lambda x: 1 / (1 + torch.exp(-x))),
    "tanh": (activation.tanh, torch.tanh, lambda x: 1 - 2 / (torch.exp(2 * x) + 1)),
    "relu": (activation.relu, functional.relu, lambda x: torch.where(x > 0, x, torch.zeros_like(x))),
    "relu6": (activation.relu6, functional.relu6, lambda x: torch.where((x > 0) & (x < 6), x, 6.0 * (x >= 6))),
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
    "rrelu": (  # at test
        lambda: activation.rrelu(lower=0.1, upper=0.3).eval(),
        lambda x: functional.leaky_relu(x, 0.2),
        lambda x: torch.where(x > 0, x, 0.2 * x),
    ),
    "elu": (
        lambda: activation.elu(alpha=0.5),
        lambda x: functional.elu(x, 0.5),
        lambda x: torch.where(x > 0, x, 0.5 * (torch.exp(x) - 1)),
    ),
    "selu": (
        activation.selu,
        functional.selu,
        lambda x: 1.0507009873554805 * torch.where(x > 0, x, 1.6732632423543772 * (torch.exp(x) - 1)),
    ),
    "gelu": (
        lambda: activation.gelu(approximate="none"),
        functional.gelu,
        lambda x: x * (1 + torch.erf(x / math.sqrt(2))) / 2,
    ),
    "silu": (activation.silu, functional.silu, lambda x: x / (1 + torch.exp(-x))),
    "softplus": (
        lambda: activation.softplus(beta=2.0),
        lambda x: functional.softplus(x, 2.0),
        lambda x: torch.log(1 + torch.exp(2 * x)) / 2,
    ),
}


def test_there_is_a_case_for_every_activation() -> None:
    assert {*CASES, "maxout"} == set(activation.activation.tips)


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


def test_gelu_by_tanh_is_its_own_formula_and_close() -> None:
    found = activation.gelu(approximate="tanh")(INPUTS)
    inner = math.sqrt(2 / math.pi) * (INPUTS + 0.044715 * INPUTS**3)
    torch.testing.assert_close(found, INPUTS / 2 * (1 + torch.tanh(inner)))
    exact = activation.gelu(approximate="none")(INPUTS)
    assert 0 < float((found - exact).abs().max()) < 5e-4


def test_rrelu_draws_a_slope_for_each_value_in_training() -> None:
    layer = activation.rrelu(lower=0.1, upper=0.3)
    slopes = -layer(-torch.ones(10_000))
    assert 0.1 <= float(slopes.min()) < 0.101 and 0.299 < float(slopes.max()) <= 0.3
    assert float(slopes.mean()) == pytest.approx(0.2, abs=2e-3)
    assert len(slopes.unique()) > 9_000
    assert torch.equal(layer(torch.arange(5.0)), torch.arange(5.0))


def test_rrelu_s_bounds_have_an_order() -> None:
    with pytest.raises(ConfigError) as caught:
        activation.rrelu(lower=0.3, upper=0.1)
    assert str(caught.value) == "activation.lower: 0.3 is above activation.upper, 0.1; take less"


def test_selu_leads_to_mean_0_and_variance_1() -> None:
    signal = 1.5 * torch.randn(64, 512) + 0.5
    for _ in range(30):
        signal = activation.selu()(signal @ torch.randn(512, 512) / math.sqrt(512))
    assert abs(float(signal.mean())) < 0.1
    assert float(signal.var()) == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("shape", [(3, 6), (3, 6, 4), (3, 6, 4, 5)])
@pytest.mark.parametrize("pieces", [2, 3, 6])
def test_maxout_is_the_largest_of_neighbouring_channels(shape: tuple[int, ...], pieces: int) -> None:
    inputs = torch.randn(shape)
    outputs = activation.maxout(pieces=pieces)(inputs)
    assert outputs.shape == inputs.shape
    for channel in range(6):
        neighbours = [(channel + step) % 6 for step in range(pieces)]
        assert torch.equal(outputs[:, channel], inputs[:, neighbours].amax(1))


def test_a_layer_with_maxout_is_the_largest_of_linear_units_and_passes_its_gradient_to_that_one() -> None:
    layer, inputs = nn.Linear(4, 3), torch.randn(50, 4)
    units = layer(inputs).detach()
    outputs = activation.maxout(pieces=2)(layer(inputs))
    torch.testing.assert_close(outputs[:, 2], torch.maximum(units[:, 2], units[:, 0]))
    outputs[:, 0].sum().backward()
    assert layer.bias.grad is not None
    wins = float((units[:, 0] > units[:, 1]).sum())
    assert layer.bias.grad.tolist() == [wins, 50 - wins, 0]
    # convex in the inputs, as a maximum of linear functions is
    module = nn.Sequential(layer, activation.maxout(pieces=3))
    one, other = torch.randn(2, 100, 4)
    assert bool((module((one + other) / 2) <= (module(one) + module(other)) / 2 + 1e-6).all())


def test_maxout_says_when_a_layer_is_too_narrow() -> None:
    with pytest.raises(ConfigError) as caught:
        activation.maxout(pieces=4)(torch.randn(2, 3))
    assert str(caught.value) == (
        "activation.pieces: 4 pieces are more than the 3 outputs of a layer; take fewer, or widen the model"
    )


@pytest.mark.parametrize("name", sorted(activation.activation.tips))
def test_a_card_warns_of_activation_after_pool_unless_the_pool_commutes(name: str) -> None:
    make = CASES[name][0] if name in CASES else lambda: activation.maxout(pieces=2)
    layer, images = make().float(), torch.randn(8, 6, 6, 6)
    pool = nn.MaxPool2d(2)
    commutes = torch.allclose(layer.train()(pool(images)), pool(layer(images.clone())))
    card = card_of(activation.activation.tips[name])
    assert card is not None
    assert ("model.activation_after_pool=true" in card.avoid) == (not commutes)
