import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from dltips.errors import ConfigError
from dltips.nets.flat import weighted_layers
from dltips.tips import activation, init
from dltips.tips.model import mlp
from dltips.train import seeds

Scheme = Callable[[nn.Module], None]
Std = Callable[[int, int], float]


def stream(seed: int) -> init.GeneratorFor:
    return lambda name: seeds.generator(seed, "init", name)


USUAL: dict[str, dict[str, Any]] = {
    "default": {},
    "zeros": {},
    "constant": {"value": 0.01},
    "small_random": {"std": 0.001, "distribution": "normal"},
    "calibrated": {"distribution": "normal"},
    "he": {"mode": "fan_in", "distribution": "normal", "gain": "relu"},
    "xavier": {"distribution": "normal"},
    "xavier_fc_gaussian_conv": {"std": 0.01, "min_units": 200, "distribution": "normal"},
    "orthogonal": {"gain": 1.0},
    "lsuv": {"tolerance": 0.1, "max_iterations": 10},
    "delta_orthogonal": {"gain": 1.0},
    "dirac": {"rest": "default"},
}
RANDOM = sorted(set(USUAL) - {"zeros", "constant"})
NONE = torch.zeros(0)


def scheme(name: str, seed: int = 0, inputs: Tensor = NONE, **knobs: Any) -> Scheme:
    """An init scheme with its usual knobs, ready for a model."""
    return lambda model: getattr(init, name)(model, stream(seed), inputs, **{"scale": 1.0, **USUAL[name], **knobs})


def images() -> Tensor:
    return torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def small_cnn(activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Module:
    """Two convolutions, each with its activation, and a linear head."""
    stages = [nn.Conv2d(3, 4, 3, padding=1), activation(), nn.MaxPool2d(2), nn.Conv2d(4, 8, 3), activation()]
    return nn.Sequential(*stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))


def test_there_is_a_case_for_every_scheme() -> None:
    assert set(USUAL) == set(init.init.tips)


FORMULAS: list[tuple[str, dict[str, Any], Std]] = [
    ("small_random", {}, lambda fan_in, fan_out: 0.001),
    ("small_random", {"std": 0.02}, lambda fan_in, fan_out: 0.02),
    ("calibrated", {}, lambda fan_in, fan_out: fan_in**-0.5),
    ("he", {}, lambda fan_in, fan_out: math.sqrt(2 / fan_in)),
    ("he", {"mode": "fan_out"}, lambda fan_in, fan_out: math.sqrt(2 / fan_out)),
    ("xavier", {}, lambda fan_in, fan_out: math.sqrt(2 / (fan_in + fan_out))),
    ("xavier", {"scale": 3.0}, lambda fan_in, fan_out: 3 * math.sqrt(2 / (fan_in + fan_out))),
    # a model without an activation is linear: gain 1
    ("he", {"gain": "activation"}, lambda fan_in, fan_out: fan_in**-0.5),
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


@pytest.mark.parametrize(
    ("name", "knobs", "factor"),
    [
        ("calibrated", {}, 1.0),
        ("xavier", {}, 1.0),  # the layers are square
        ("orthogonal", {"gain": 1.0}, 1.0),
        ("he", {}, 2.0),
        ("he", {"gain": "activation"}, 1.0),  # of no activation among linear layers
        ("calibrated", {"scale": 3.0}, 9.0),
        ("small_random", {"std": 0.02}, 512 * 0.02**2),
    ],
)
def test_the_variance_through_20_tanh_layers_is_what_theory_says(
    name: str, knobs: dict[str, Any], factor: float
) -> None:
    found = variances(lambda seed: scheme(name, seed, **knobs), torch.tanh, 3)
    nodes = torch.linspace(-10, 10, 4001, dtype=torch.float64)
    density = torch.exp(-nodes.square() / 2) * 0.005 / math.sqrt(2 * math.pi)
    expected, second_moment = [], 1.0
    for _ in range(DEPTH):
        expected.append(factor * second_moment)  # fan_in Var(w) E[x^2]
        second_moment = float((torch.tanh(expected[-1] ** 0.5 * nodes).square() * density).sum())
    assert found.tolist() == pytest.approx(expected, rel=0.1)


def test_the_signal_reaches_the_end_of_20_tanh_layers_unless_it_starts_small() -> None:
    alive = variances(lambda seed: scheme("xavier", seed), torch.tanh, 3)
    dead = variances(lambda seed: scheme("small_random", seed), torch.tanh, 3)
    assert float(alive[-1]) > 0.01
    # 512 * 0.001^2 of the variance is left at each layer
    assert float(dead[0]) == pytest.approx(512e-6, rel=0.1)
    assert float(dead[10] / dead[9]) == pytest.approx(512e-6, rel=0.2)
    assert float(dead[-1]) < 1e-60


@pytest.mark.parametrize("name", RANDOM)
def test_a_new_layer_moves_no_other_layers_draw(name: str) -> None:
    shallow = mlp((8,), 3, nn.ReLU, widths=(6, 6), norm="batch")
    deep = mlp((8,), 3, nn.ReLU, widths=(6, 6, 6), norm="batch")
    for model in (shallow, deep):
        scheme(name, inputs=torch.randn(32, 8, generator=torch.Generator().manual_seed(0)))(model)
    kept, drawn = shallow.state_dict(), deep.state_dict()
    assert set(kept) < set(drawn)
    if name == "lsuv":  # its draws are the same, but what the head divides by depends on what is in front
        kept, drawn = ({key: value for key, value in each.items() if key != "head.weight"} for each in (kept, drawn))
    for key, value in kept.items():
        assert torch.equal(drawn[key], value), key
    assert not torch.equal(drawn["hidden3.layer.weight"], drawn["hidden2.layer.weight"])


@pytest.mark.parametrize("name", RANDOM)
def test_the_seed_alone_decides(name: str) -> None:
    first, again, other = (small_cnn(nn.PReLU) for _ in range(3))
    before = torch.get_rng_state()
    for model, seed in ((first, 1), (again, 1), (other, 2)):
        scheme(name, seed, images())(model)
    assert torch.equal(torch.get_rng_state(), before)
    for (key, layer), (_, same), (_, different) in zip(*map(weighted_layers, (first, again, other)), strict=True):
        assert torch.equal(layer.get_parameter("weight"), same.get_parameter("weight")), key
        assert not torch.equal(layer.get_parameter("weight"), different.get_parameter("weight")), key


@pytest.mark.parametrize("name", RANDOM)
def test_the_memory_format_moves_no_draw(name: str) -> None:
    plain, channels_last = (small_cnn() for _ in range(2))
    channels_last = channels_last.to(memory_format=torch.channels_last)
    for model in (plain, channels_last):
        scheme(name, inputs=images())(model)
    assert channels_last.get_parameter("3.weight").is_contiguous(memory_format=torch.channels_last)
    for key, value in plain.state_dict().items():
        # a convolution sums in another order there, hence lsuv divides by another last bit
        torch.testing.assert_close(channels_last.state_dict()[key], value, rtol=1e-5 if name == "lsuv" else 0, atol=0)


@pytest.mark.parametrize("name", sorted(set(USUAL) - {"zeros"}))
def test_scale_multiplies_and_0_is_zeros(name: str) -> None:
    models = {scale: small_cnn() for scale in (0.0, 1.0, 4.0)}
    for scale, model in models.items():
        scheme(name, scale=scale, inputs=images())(model)
    for key, layer in weighted_layers(models[1.0]):
        assert layer.weight.any()
        torch.testing.assert_close(models[4.0].get_submodule(key).weight, 4 * layer.weight)
        assert not models[0.0].get_submodule(key).get_parameter("weight").any()


def test_a_scale_of_zeros_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^init\.scale: 2 .*; take another init scheme$"):
        scheme("zeros", scale=2.0)(nn.Linear(3, 2))


def test_norms_and_learned_slopes_keep_their_own_start() -> None:
    model = mlp((8,), 3, lambda: nn.PReLU(init=0.1), widths=(6,), norm="batch")
    scheme("he")(model)
    assert torch.equal(model.get_parameter("hidden1.norm.weight"), torch.ones(6))
    assert model.get_parameter("hidden1.activation.weight").item() == pytest.approx(0.1)


@pytest.mark.parametrize("name", sorted(set(USUAL) - {"default"}))
def test_biases_are_zero(name: str) -> None:
    model = nn.Sequential(small_cnn(), nn.Linear(4, 3))
    scheme(name, inputs=images())(model)
    biases = [value for key, value in model.named_parameters() if key.endswith("bias")]
    assert len(biases) == 4 and not any(bias.any() for bias in biases)


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


def test_constant_is_constant() -> None:
    model = small_cnn()
    scheme("constant", value=-0.25)(model)
    assert {value for _, layer in weighted_layers(model) for value in layer.weight.flatten().tolist()} == {-0.25}


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (activation.relu, math.sqrt(2)),
        (lambda: activation.leaky_relu(slope=0.2), math.sqrt(2 / 1.04)),
        (lambda: activation.prelu(start=0.25), math.sqrt(2 / (1 + 0.25**2))),
        (lambda: activation.rrelu(lower=0.1, upper=0.3), math.sqrt(2 / 1.04)),  # of the mean slope
        (activation.selu, 1.0),  # what its two constants were made for
        (lambda: activation.maxout(pieces=2), 1.0),  # by symmetry: E[max^2] + E[min^2] = 2
        (nn.Identity, 1.0),
    ],
)
def test_the_gain_makes_up_for_what_the_activation_takes(make: Callable[[], nn.Module], expected: float) -> None:
    assert init.gain_of(nn.Sequential(nn.Linear(3, 3), make())) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", ["tanh", "sigmoid", "gelu", "silu", "softplus", "elu", "maxout"])
def test_the_gain_is_that_of_a_million_draws(name: str) -> None:
    knobs = {"gelu": {"approximate": "none"}, "softplus": {"beta": 2.0}, "elu": {"alpha": 0.5}, "maxout": {"pieces": 3}}
    layer = activation.activation.tips[name](**knobs.get(name, {}))
    draws = torch.randn(1_000_000, 3, generator=torch.Generator().manual_seed(0))
    assert init.gain_of(layer) == pytest.approx(float(layer(draws.clone()).square().mean()) ** -0.5, rel=4e-3)


def test_the_gain_is_of_the_activation_that_occurs_most() -> None:
    model = nn.Sequential(nn.Sigmoid(), nn.ReLU(), nn.Linear(2, 2), nn.ReLU(), nn.Softmax(1))
    assert init.gain_of(model) == pytest.approx(math.sqrt(2), rel=1e-6)


@pytest.mark.parametrize("name", ["tanh", "sigmoid", "selu"])
def test_the_gain_of_the_activation_leads_to_variance_1_after_20_layers(name: str) -> None:
    layer = activation.activation.tips[name]()

    def fill(seed: int) -> Scheme:
        return lambda model: scheme("he", seed, gain="activation")(nn.ModuleList([model, layer]))

    found = variances(fill, lambda outputs: layer(outputs.clone()), 4)
    assert float(found[0]) == pytest.approx(init.gain_of(layer) ** 2, rel=0.03)
    assert float(found[-1]) == pytest.approx(1, rel=0.1)  # where E[f(z)^2] * gain^2 = 1 holds, and stays


def test_xavier_is_for_large_fully_connected_layers_alone() -> None:
    layers = nn.ModuleDict(
        {"large": nn.Linear(300, 200), "small": nn.Linear(300, 199), "convolution": nn.Conv2d(30, 200, 3)}
    )
    scheme("xavier_fc_gaussian_conv", std=0.01, scale=2.0, distribution="uniform")(layers)
    weights = {name: layer.get_parameter("weight").detach() for name, layer in layers.items()}
    assert float(weights["large"].std()) == pytest.approx(2 * math.sqrt(2 / 500), rel=0.02)
    assert float(weights["large"].abs().max()) <= 2 * math.sqrt(6 / 500)
    for name in ("small", "convolution"):
        assert float(weights[name].std()) == pytest.approx(0.02, rel=0.02)
        assert float(weights[name].abs().max()) > 0.02 * 3.5  # a normal's tails


ORTHOGONAL = [
    lambda: nn.Linear(30, 20),
    lambda: nn.Linear(20, 30),
    lambda: nn.Conv1d(4, 6, 5),
    *(make for make, *_ in LAYERS),
]


@pytest.mark.parametrize("make", ORTHOGONAL)
@pytest.mark.parametrize(("gain", "factor"), [(1.0, 1.0), (0.5, 0.5), ("relu", math.sqrt(2)), ("activation", 1.0)])
def test_orthogonal_rows_or_columns(make: Callable[[], nn.Module], gain: float | str, factor: float) -> None:
    layer = make()
    scheme("orthogonal", gain=gain)(layer)
    weight = layer.get_parameter("weight").detach().double().flatten(1)
    for part in weight.chunk(getattr(layer, "groups", 1)):
        short = part if len(part) <= part.shape[1] else part.T
        torch.testing.assert_close(short @ short.T, factor**2 * torch.eye(len(short)).double(), rtol=0, atol=2e-5)


def test_orthogonal_is_torchs() -> None:
    layer = nn.Linear(30, 20)
    scheme("orthogonal", gain="relu")(nn.ModuleDict({"layer": layer}))
    theirs = nn.init.orthogonal_(torch.empty(20, 30), math.sqrt(2), generator=stream(0)("layer.weight"))
    torch.testing.assert_close(layer.weight.detach(), theirs)


@torch.no_grad()
def test_orthogonal_keeps_every_length_through_20_linear_layers() -> None:
    scheme("orthogonal")(DEEP)
    signal = torch.randn(8, WIDTH)
    outputs = signal
    for layer in DEEP:
        outputs = layer(outputs)
    torch.testing.assert_close(outputs.norm(dim=1), signal.norm(dim=1), rtol=1e-4, atol=0)


ACTIVATIONS = [nn.ReLU, nn.Tanh, nn.Sigmoid, lambda: nn.ReLU(inplace=True)]


@pytest.mark.parametrize("make", ACTIVATIONS)
@pytest.mark.parametrize("norm", [nn.BatchNorm2d, lambda channels: nn.Identity()])
@torch.no_grad()
def test_lsuv_gives_every_layers_output_unit_variance(
    make: Callable[[], nn.Module], norm: Callable[[int], nn.Module]
) -> None:
    stages = [layer for width in (3, 4, 4, 4) for layer in (nn.Conv2d(width, 4, 3, padding=1), norm(4), make())]
    model = nn.Sequential(*stages, nn.AvgPool2d(2), nn.Flatten(), nn.Linear(64, 4))
    inputs = 5 * images() + 3
    scheme("lsuv", inputs=inputs, tolerance=0.01)(model)
    found: dict[str, float] = {}
    for name, layer in weighted_layers(model):
        layer.register_forward_hook(lambda _, __, output, name=name: found.update({name: float(output.var())}))
    model.train()(inputs)
    assert len(found) == 5
    assert all(value == pytest.approx(1, abs=0.02) for value in found.values()), found


@torch.no_grad()
def test_lsuv_divides_an_orthonormal_start() -> None:
    layer, start = nn.Linear(30, 20), nn.Linear(30, 20)
    inputs = torch.randn(50, 30, generator=torch.Generator().manual_seed(0)) * torch.arange(30)
    scheme("lsuv", inputs=inputs)(layer)
    scheme("orthogonal")(start)
    ratio = layer.weight / start.weight
    torch.testing.assert_close(ratio, ratio[0, 0].expand_as(ratio))
    assert float(ratio[0, 0]) == pytest.approx(1 / float(start(inputs).std(correction=0)), rel=1e-5)


@torch.no_grad()
def test_lsuv_leaves_a_layer_within_the_tolerance_alone() -> None:
    layers = {tolerance: nn.Linear(30, 30) for tolerance in (0.5, 0.001)}
    inputs = 1.1 * torch.randn(500, 30, generator=torch.Generator().manual_seed(0))
    for tolerance, layer in layers.items():
        scheme("lsuv", inputs=inputs, tolerance=tolerance)(layer)
    assert float(layers[0.5](inputs).var()) == pytest.approx(1.21, rel=0.02)  # orthonormal as it was drawn
    assert float(layers[0.001](inputs).var()) == pytest.approx(1, rel=0.002)


@torch.no_grad()
def test_lsuv_sets_a_layer_that_runs_twice_by_its_first_run() -> None:
    shared = nn.Linear(8, 8)
    inputs = 7 * torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    scheme("lsuv", inputs=inputs, tolerance=1e-3)(nn.Sequential(shared, nn.Tanh(), shared))
    assert float(shared(inputs).var(correction=0)) == pytest.approx(1, rel=1e-3)


def test_lsuv_leaves_no_trace_but_the_weights() -> None:
    model = nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.RReLU(), nn.Linear(6, 3))
    model[2].eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = torch.get_rng_state()
    scheme("lsuv", inputs=torch.randn(32, 8))(model)
    state_after_inputs = torch.get_rng_state()
    assert [module.training for module in model] == [True, True, False, True, True]
    assert model[1].track_running_stats
    assert not any(module._forward_hooks for module in model)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]) != (key.endswith("weight") and key[0] in "04") or "bias" in key, key
    torch.set_rng_state(state)
    torch.randn(32, 8)
    assert torch.equal(torch.get_rng_state(), state_after_inputs)


def test_lsuv_says_where_there_is_no_signal() -> None:
    model = mlp((8,), 3, nn.ReLU, widths=(6,), norm="none")
    with pytest.raises(ConfigError, match=r"^init: lsuv .*hidden1\.layer is 0 .*; take another init scheme$"):
        scheme("lsuv", inputs=torch.zeros(16, 8))(model)
    assert not any(module._forward_hooks for module in model.modules()) and model.training


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
@torch.no_grad()
def test_delta_orthogonal_keeps_the_length_of_any_image(kernel_size: int) -> None:
    layers = nn.Sequential(
        *(
            nn.Conv2d(inputs, outputs, kernel_size, padding=kernel_size // 2, padding_mode="circular")
            for inputs, outputs in ((3, 8), (8, 8), (8, 20))
        )
    )
    scheme("delta_orthogonal")(layers)
    signal = images()
    torch.testing.assert_close(layers(signal).norm(dim=1), signal.norm(dim=1))  # at every pixel
    scheme("delta_orthogonal", gain="relu")(layers)
    torch.testing.assert_close(layers(signal).norm(), signal.norm() * 2**1.5)


def test_delta_orthogonal_projects_where_outputs_are_fewer() -> None:
    convolution, linear, grouped = nn.Conv2d(8, 3, 3), nn.Linear(8, 3), nn.Conv1d(8, 8, 3, groups=2)
    for layer in (convolution, linear, grouped):
        scheme("delta_orthogonal")(layer)
    for matrix in (
        convolution.weight[:, :, 1, 1],
        linear.weight,
        *grouped.weight[:, :, 1].chunk(2),
    ):
        torch.testing.assert_close(matrix @ matrix.T, torch.eye(len(matrix)), rtol=0, atol=1e-6)
    assert int((convolution.weight != 0).sum()) == 3 * 8


@pytest.mark.parametrize(("rest", "std"), [("default", math.sqrt(1 / 3)), ("he", math.sqrt(2))])
@torch.no_grad()
def test_dirac_hands_the_first_channels_on(rest: str, std: float) -> None:
    layer, narrow, head = nn.Conv2d(16, 600, 3, padding=1), nn.Conv2d(16, 4, 3, padding=1), nn.Linear(200, 300)
    for each in (layer, narrow, head):
        scheme("dirac", rest=rest)(each)
    signal = torch.randn(2, 16, 5, 5)
    assert torch.equal(layer(signal)[:, :16], signal)
    assert torch.equal(narrow(signal), signal[:, :4])
    assert float(layer.weight[16:].std()) == pytest.approx(std * (16 * 9) ** -0.5, rel=0.01)
    assert float(head.weight.std()) == pytest.approx(std * 200**-0.5, rel=0.01)


@torch.no_grad()
def test_dirac_hands_on_the_channels_of_each_group() -> None:
    layer = nn.Conv2d(8, 16, 3, padding=1, groups=4)
    scheme("dirac")(layer)
    signal = torch.randn(2, 8, 5, 5)
    assert torch.equal(layer(signal).unflatten(1, (4, 4))[:, :, :2], signal.unflatten(1, (4, 2)))


@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
def test_recurrent_layers_are_set_gate_by_gate(kind: type[nn.RNNBase], gates: int) -> None:
    layer = kind(100, 80, num_layers=2, bidirectional=True)
    scheme("xavier")(layer)
    for key, parameter in layer.named_parameters():
        if key.startswith("bias"):
            assert not parameter.any()
            continue
        fan_in = parameter.shape[1]
        for gate in parameter.detach().chunk(gates):
            assert gate.shape == (80, fan_in)
            assert float(gate.std()) == pytest.approx(math.sqrt(2 / (fan_in + 80)), rel=0.04)
    scheme("orthogonal")(layer)
    drawn = [gate for key in ("weight_hh_l0", "weight_hh_l1_reverse") for gate in getattr(layer, key).chunk(gates)]
    for gate in drawn:
        torch.testing.assert_close(gate @ gate.T, torch.eye(80), rtol=0, atol=1e-5)
    assert not any(torch.equal(one, other) for i, one in enumerate(drawn) for other in drawn[:i])


def test_the_projection_of_an_lstm_is_one_matrix() -> None:
    layer = nn.LSTM(5, 8, proj_size=3)
    names = {weight.name: len(weight.matrices) for weight in init.weights_of(nn.ModuleDict({"lstm": layer}))}
    assert names == {"lstm.weight_ih_l0": 4, "lstm.weight_hh_l0": 4, "lstm.weight_hr_l0": 1}


@pytest.mark.parametrize("name", sorted(USUAL))
def test_a_recurrent_model_takes_every_scheme(name: str) -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.head = nn.LSTM(6, 5, batch_first=True), nn.Linear(5, 3)

        def forward(self, inputs: Tensor) -> Tensor:
            outputs: Tensor = self.head(self.lstm(inputs)[0][:, -1])
            return outputs

    model = Recurrent()
    before = model.lstm.weight_hh_l0.clone()
    scheme(name, inputs=torch.randn(16, 4, 6))(model)
    assert not torch.equal(model.lstm.weight_hh_l0, before)
    assert model.lstm.bias_ih_l0.any() == (name == "default")
