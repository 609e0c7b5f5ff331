import copy
from typing import Any

import pytest
import torch
from torch import nn

from dltips.errors import ConfigError
from dltips.tips import activation as activations
from dltips.tips.model import cnn

IMAGES = torch.randn(4, 3, 12, 8, generator=torch.Generator().manual_seed(0))
USUAL: dict[str, Any] = {
    "widths": (4, 6),
    "depth": 1,
    "kernel_size": 3,
    "norm": "batch",
    "groups": None,
    "pool": "max2",
    "activation_after_pool": False,
    "head": "global",
    "head_widths": (),
}


def small_cnn(activation: Any = nn.ReLU, **knobs: Any) -> nn.Sequential:
    model = cnn((3, 12, 8), 5, activation, **{**USUAL, **knobs})
    assert isinstance(model, nn.Sequential)
    return model


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("norm", ["none", "batch", "layer", "group", "lrn"])
@pytest.mark.parametrize(("widths", "depth", "kernel_size"), [((4,), 1, 1), ((4, 6), 1, 3), ((4, 6, 8), 2, 5)])
def test_cnn_has_its_shape_stages_and_parameters(
    widths: tuple[int, ...], depth: int, kernel_size: int, norm: str
) -> None:
    model = small_cnn(widths=widths, depth=depth, kernel_size=kernel_size, norm=norm)
    assert model(IMAGES).shape == (4, 5)
    stages = [f"stage{number}" for number in range(1, len(widths) + 1)]
    assert list(dict(model.named_children())) == [*stages, "pool", "flatten", "head"]
    expected, channels = 0, 3
    for width in widths:
        for _ in range(depth):
            expected += kernel_size**2 * channels * width + (1 if norm in ("none", "lrn") else 2) * width
            channels = width
    assert count(model) == expected + channels * 5 + 5


def test_the_names_of_the_parameters_say_where_they_are() -> None:
    names = [name for name, _ in small_cnn(widths=(4,), depth=2, head_widths=(7,)).named_parameters()]
    norms = [f"stage1.conv{index}.{part}" for index in (1, 2) for part in ("layer.weight", "norm.weight", "norm.bias")]
    assert names == [*norms, "hidden1.layer.weight", "hidden1.layer.bias", "head.weight", "head.bias"]


@pytest.mark.parametrize("kernel_size", [1, 3, 7])
@pytest.mark.parametrize("pool", ["none", "max2", "average2"])
def test_each_stage_of_a_cnn_halves_the_sides_whatever_the_kernel(kernel_size: int, pool: str) -> None:
    model = small_cnn(kernel_size=kernel_size, pool=pool)
    first, second = ((12, 8), (12, 8)) if pool == "none" else ((6, 4), (3, 2))
    assert model[0](IMAGES).shape == (4, 4, *first)
    assert model[1](model[0](IMAGES)).shape == (4, 6, *second)
    kinds = {type(layer) for layer in model.modules()}
    assert (nn.MaxPool2d in kinds, nn.AvgPool2d in kinds) == (pool == "max2", pool == "average2")


def test_every_hidden_layer_has_its_norm_and_then_an_activation_of_its_own() -> None:
    model = small_cnn(nn.PReLU, depth=2)
    blocks = [block for block in model.modules() if isinstance(block, nn.Sequential) and hasattr(block, "layer")]
    assert [list(dict(block.named_children())) for block in blocks] == [["layer", "norm", "activation"]] * 4
    assert len({id(block.get_submodule("activation")) for block in blocks}) == 4


MONOTONIC = {
    "sigmoid": activations.sigmoid,
    "tanh": activations.tanh,
    "relu": activations.relu,
    "leaky_relu": lambda: activations.leaky_relu(slope=0.1),
    "prelu": lambda: activations.prelu(start=0.25),
    "elu": nn.ELU,
    "softplus": nn.Softplus,
}


@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
@pytest.mark.parametrize("name", MONOTONIC)
def test_behind_a_max_pool_an_activation_that_never_falls_gives_the_same_bits(name: str, norm: str) -> None:
    before = small_cnn(MONOTONIC[name], depth=2, norm=norm)
    after = small_cnn(MONOTONIC[name], depth=2, norm=norm, activation_after_pool=True)
    stage = after.get_submodule("stage1")
    assert list(dict(stage.named_children())) == ["conv1", "conv2", "pool", "activation"]
    assert not hasattr(stage.get_submodule("conv2"), "activation")
    moved = {key.replace("conv2.activation", "activation"): value for key, value in before.state_dict().items()}
    after.load_state_dict(moved)
    assert torch.equal(before(IMAGES), after(IMAGES))


def test_behind_a_max_pool_an_activation_that_falls_gives_another_net() -> None:
    before, after = small_cnn(nn.SiLU), small_cnn(nn.SiLU, activation_after_pool=True)
    after.load_state_dict(before.state_dict())
    assert not torch.allclose(before(IMAGES), after(IMAGES), atol=1e-3)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"pool": "average2"}, "model.pool=average2: the mean of activations is not the activation of the mean; write"),
        ({"pool": "none"}, "model.pool=none: there is no pool; write model.pool=max2"),
        ({"norm": "lrn"}, "model.norm=lrn, which stands between the activation and the pool; write model.norm=batch"),
    ],
)
def test_the_activation_does_not_change_places_where_that_makes_another_net(
    knobs: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigError, match=r"^model.activation_after_pool: true does not go with ") as caught:
        small_cnn(activation_after_pool=True, **knobs)
    assert message in str(caught.value)


@pytest.mark.parametrize(("head", "features"), [("global", 6), ("dense", 6 * 3 * 2)])
def test_the_head_sees_the_mean_over_all_places_or_every_place(head: str, features: int) -> None:
    model = small_cnn(head=head, head_widths=(7, 8))
    shapes = [tuple(weight.shape) for name, weight in model.named_parameters() if weight.dim() == 2]
    assert shapes == [(7, features), (8, 7), (5, 8)]
    plain = small_cnn(head=head).eval()
    maps = plain[1](plain[0](IMAGES))
    seen = maps.mean((2, 3)) if head == "global" else maps.flatten(1)
    assert torch.allclose(plain(IMAGES), plain.get_submodule("head")(seen), atol=1e-6)


@pytest.mark.parametrize(("sides", "places"), [((24, 40), 3 * 5), ((31, 17), 3 * 2), ((8, 8), 1)])
def test_behind_three_stages_a_dense_head_sees_every_place_that_their_pools_leave(
    sides: tuple[int, int], places: int
) -> None:
    model = cnn((3, *sides), 5, nn.ReLU, **USUAL | {"widths": (4, 6, 7), "head": "dense"})
    head = model.get_submodule("head")
    assert isinstance(head, nn.Linear) and head.in_features == 7 * places
    assert model(torch.randn(2, 3, *sides)).shape == (2, 5)


@pytest.mark.parametrize("norm", ["batch", "group", "lrn"])
def test_channels_last_computes_the_same_and_a_gradient_reaches_every_parameter(norm: str) -> None:
    model = small_cnn(norm=norm, head="dense", head_widths=(8,))
    other = copy.deepcopy(model).to(memory_format=torch.channels_last)
    outputs = model(IMAGES)
    assert torch.allclose(other(IMAGES.contiguous(memory_format=torch.channels_last)), outputs, atol=1e-5)
    nn.functional.cross_entropy(outputs, torch.tensor([0, 1, 2, 3])).backward()
    # the bias before a norm aside, which is not there, none is without effect
    assert all(weight.grad is not None and bool(weight.grad.any()) for weight in model.parameters())


def test_a_cnn_does_not_take_vectors() -> None:
    with pytest.raises(
        ConfigError, match=r"^model: cnn takes images, but a sample's shape is \(7,\); write model=mlp$"
    ):
        cnn((7,), 5, nn.ReLU, **USUAL)


@pytest.mark.parametrize("kernel_size", [2, 4])
def test_an_even_kernel_is_refused(kernel_size: int) -> None:
    with pytest.raises(ConfigError, match=rf"^model.kernel_size: {kernel_size} is even;"):
        small_cnn(kernel_size=kernel_size)


def test_more_stages_than_the_image_can_be_halved_are_refused() -> None:
    model = small_cnn(widths=(4, 4, 4)).eval()
    assert model(IMAGES).shape == (4, 5)
    with pytest.raises(ConfigError, match=r"^model.widths: 4 stages halve 8 pixels to nothing; take fewer stages$"):
        small_cnn(widths=(4, 4, 4, 4))
    assert small_cnn(widths=(4, 4, 4, 4), pool="none")(IMAGES).shape == (4, 5)
