import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from dltips.net import weighted_layers
from dltips.tips import init
from dltips.tips.model import cnn, mlp
from dltips.train import seeds

Scheme = Callable[[nn.Module], None]
Std = Callable[[int, int], float]


def stream(seed: int) -> init.GeneratorFor:
    return lambda name: seeds.generator(seed, "init", name)


def scheme(name: str, seed: int = 0, **knobs: Any) -> Scheme:
    """An init scheme with its usual knobs, ready for a model."""
    usual: dict[str, dict[str, Any]] = {
        "default": {},
        "zeros": {},
        "small_random": {"std": 0.001, "distribution": "normal", "scale": 1.0},
        "calibrated": {"distribution": "normal", "scale": 1.0},
        "he": {"mode": "fan_in", "distribution": "normal", "scale": 1.0},
        "xavier": {"distribution": "normal", "scale": 1.0},
    }
    return lambda model: getattr(init, name)(model, stream(seed), **{**usual[name], **knobs})


FORMULAS: list[tuple[str, dict[str, Any], Std]] = [
    ("small_random", {}, lambda fan_in, fan_out: 0.001),
    ("small_random", {"std": 0.02}, lambda fan_in, fan_out: 0.02),
    ("calibrated", {}, lambda fan_in, fan_out: fan_in**-0.5),
    ("he", {}, lambda fan_in, fan_out: math.sqrt(2 / fan_in)),
    ("he", {"mode": "fan_out"}, lambda fan_in, fan_out: math.sqrt(2 / fan_out)),
    ("xavier", {}, lambda fan_in, fan_out: math.sqrt(2 / (fan_in + fan_out))),
    ("xavier", {"scale": 3.0}, lambda fan_in, fan_out: 3 * math.sqrt(2 / (fan_in + fan_out))),
]
LAYERS = [  # each with its fan_in and fan_out
    (lambda: nn.Linear(64, 512), 64, 512),
    (lambda: nn.Linear(784, 100), 784, 100),
    (lambda: nn.Conv1d(32, 128, 9), 32 * 9, 128 * 9),
    (lambda: nn.Conv2d(3, 512, 5), 3 * 25, 512 * 25),
    (lambda: nn.Conv2d(64, 96, 3), 64 * 9, 96 * 9),
    (lambda: nn.Conv2d(64, 96, 3, groups=4), 16 * 9, 96 * 9),
]


@pytest.mark.parametrize("distribution", ["normal", "uniform"])
@pytest.mark.parametrize(("name", "knobs", "std"), FORMULAS)
@pytest.mark.parametrize(("make", "fan_in", "fan_out"), LAYERS)
def test_weights_have_the_formulas_std_and_biases_are_zero(
    make: Callable[[], nn.Module],
    fan_in: int,
    fan_out: int,
    name: str,
    knobs: dict[str, Any],
    std: Std,
    distribution: str,
) -> None:
    layer = make()
    scheme(name, distribution=distribution, **knobs)(layer)
    weight, expected = layer.get_parameter("weight").detach(), std(fan_in, fan_out)
    # more than 13,000 weights: the std of a sample of them is off by less than 0.7 %, its mean by a hundredth
    assert float(weight.std()) == pytest.approx(expected, rel=0.025)
    assert abs(float(weight.mean())) < 0.04 * expected
    assert not layer.get_parameter("bias").any()
    largest = float(weight.abs().max()) / expected
    if distribution == "uniform":
        assert 0.999 * math.sqrt(3) < largest <= math.sqrt(3) * (1 + 1e-6)
    else:
        assert largest > 3  # a normal's tails


def test_zeros_are_zero() -> None:
    model = mlp((8,), 3, nn.ReLU, widths=(5, 4), norm="none")
    scheme("zeros")(model)
    assert not any(parameter.any() for parameter in model.parameters())


def test_under_zeros_the_units_of_a_layer_stay_identical() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs, targets = torch.randn(64, 8, generator=generator).double(), torch.randint(3, (64,), generator=generator)
    # sigmoid, whose output at 0 is not 0, so that the weights do move
    model = mlp((8,), 3, nn.Sigmoid, widths=(6,), norm="none").double()
    start = {"zeros": scheme("zeros"), "he": scheme("he")}
    spread = {}
    for name, fill in start.items():
        fill(model)
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        for _ in range(30):
            optimizer.zero_grad()
            functional.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
        hidden, head = (model.get_parameter(key).detach() for key in ("hidden1.layer.weight", "head.weight"))
        assert hidden.abs().max() > 1e-2
        assert head.abs().max() > 1e-2
        spread[name] = float((hidden - hidden[0]).abs().max() + (head - head[:, :1]).abs().max())
    assert spread["zeros"] < 1e-12  # a sum is rounded differently at different places of a matrix
    assert spread["he"] > 0.1


DEPTH, WIDTH = 20, 512
DEEP = nn.ModuleList(nn.Linear(WIDTH, WIDTH, bias=False, device="meta").to_empty(device="cpu") for _ in range(DEPTH))


@torch.no_grad()
def variances(fill: Callable[[int], Scheme], activation: Callable[[Tensor], Tensor], count: int) -> Tensor:
    """The variance of each layer's output before its activation, the mean over `count` seeds: (DEPTH,)."""
    total = torch.zeros(DEPTH, dtype=torch.float64)
    for seed in range(count):
        fill(seed)(DEEP)
        signal = torch.randn(64, WIDTH, generator=torch.Generator().manual_seed(seed))
        for index, layer in enumerate(DEEP):
            outputs = layer(signal)
            total[index] += float(outputs.double().var())
            signal = activation(outputs)
    return total / count


def test_he_keeps_the_variance_through_20_relu_layers() -> None:
    found = variances(lambda seed: scheme("he", seed), functional.relu, 50)
    assert float(found.max() / found.min()) < 2
    assert 1 < float(found[0]) < 4  # the first layer's inputs are no ReLU's outputs: variance 2


def test_calibrated_halves_the_variance_at_each_relu_layer() -> None:
    found = variances(lambda seed: scheme("calibrated", seed), functional.relu, 20)
    assert (found[-1] / found[0]) ** (1 / (DEPTH - 1)) == pytest.approx(0.5, rel=0.03)
    assert all(0.4 < ratio < 0.6 for ratio in found[1:] / found[:-1])


@pytest.mark.parametrize("name", ["calibrated", "xavier"])
def test_calibrated_and_xavier_keep_the_variance_of_linear_layers(name: str) -> None:
    found = variances(lambda seed: scheme(name, seed), lambda outputs: outputs, 10)
    assert 0.5 < float(found.min()) <= float(found.max()) < 2


def test_the_signal_reaches_the_end_of_20_tanh_layers_unless_it_starts_small() -> None:
    alive = variances(lambda seed: scheme("xavier", seed), torch.tanh, 3)
    dead = variances(lambda seed: scheme("small_random", seed), torch.tanh, 3)
    assert float(alive[-1]) > 0.01
    # 512 * 0.001^2 of the variance is left at each layer
    assert float(dead[0]) == pytest.approx(512e-6, rel=0.1)
    assert float(dead[10] / dead[9]) == pytest.approx(512e-6, rel=0.2)
    assert float(dead[-1]) < 1e-60


@pytest.mark.parametrize("name", ["default", "small_random", "calibrated", "he", "xavier"])
def test_a_new_layer_moves_no_other_layers_draw(name: str) -> None:
    shallow = mlp((8,), 3, nn.ReLU, widths=(6, 6), norm="batch")
    deep = mlp((8,), 3, nn.ReLU, widths=(6, 6, 6), norm="batch")
    for model in (shallow, deep):
        scheme(name)(model)
    kept, drawn = shallow.state_dict(), deep.state_dict()
    assert set(kept) < set(drawn)
    for key, value in kept.items():
        assert torch.equal(drawn[key], value), key
    assert not torch.equal(drawn["hidden3.layer.weight"], drawn["hidden2.layer.weight"])


@pytest.mark.parametrize("name", ["default", "small_random", "calibrated", "he", "xavier"])
def test_the_seed_alone_decides(name: str) -> None:
    first, again, other = (
        cnn((3, 8, 8), 4, nn.PReLU, widths=(4, 8), depth=1, kernel_size=3, norm="none", pool="max") for _ in range(3)
    )
    before = torch.get_rng_state()
    for model, seed in ((first, 1), (again, 1), (other, 2)):
        scheme(name, seed)(model)
    assert torch.equal(torch.get_rng_state(), before)
    for (key, layer), (_, same), (_, different) in zip(*map(weighted_layers, (first, again, other)), strict=True):
        assert torch.equal(layer.get_parameter("weight"), same.get_parameter("weight")), key
        assert not torch.equal(layer.get_parameter("weight"), different.get_parameter("weight")), key


@pytest.mark.parametrize("name", ["default", "small_random", "calibrated", "he", "xavier"])
def test_the_memory_format_moves_no_draw(name: str) -> None:
    plain, channels_last = (
        cnn((3, 8, 8), 4, nn.ReLU, widths=(4, 8), depth=1, kernel_size=3, norm="none", pool="max") for _ in range(2)
    )
    channels_last = channels_last.to(memory_format=torch.channels_last)
    for model in (plain, channels_last):
        scheme(name)(model)
    assert channels_last.get_parameter("stage2.conv1.layer.weight").is_contiguous(memory_format=torch.channels_last)
    for key, value in plain.state_dict().items():
        assert torch.equal(channels_last.state_dict()[key], value), key


@pytest.mark.parametrize("name", ["small_random", "calibrated", "he", "xavier"])
def test_scale_multiplies_and_0_is_zeros(name: str) -> None:
    layers = {scale: nn.Linear(30, 20) for scale in (0.0, 1.0, 4.0)}
    for scale, layer in layers.items():
        scheme(name, scale=scale)(layer)
    torch.testing.assert_close(layers[4.0].weight, 4 * layers[1.0].weight)
    assert not layers[0.0].weight.any()


def test_norms_and_learned_slopes_keep_their_own_start() -> None:
    model = mlp((8,), 3, lambda: nn.PReLU(init=0.1), widths=(6,), norm="batch")
    scheme("he")(model)
    assert torch.equal(model.get_parameter("hidden1.norm.weight"), torch.ones(6))
    assert model.get_parameter("hidden1.activation.weight").item() == pytest.approx(0.1)


@pytest.mark.parametrize(("make", "fan_in", "fan_out"), LAYERS)
def test_default_is_pytorchs_own(make: Callable[[], nn.Module], fan_in: int, fan_out: int) -> None:
    layer = make()
    scheme("default")(layer)
    for name in ("weight", "bias"):
        largest = float(layer.get_parameter(name).detach().abs().max())
        assert 0.9 * fan_in**-0.5 < largest <= fan_in**-0.5
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeds.derive(0, "init", ""))
        theirs = make()
    for key, value in theirs.state_dict().items():
        assert torch.equal(layer.state_dict()[key], value)
