from itertools import pairwise
from typing import Any, Literal

import pytest
import torch
from torch import nn

from dltips.registry import ConfigError
from dltips.tips.model import cnn, mlp


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def small_cnn(**knobs: Any) -> nn.Sequential:
    usual = {"widths": (4, 6), "depth": 1, "kernel_size": 3, "norm": "batch", "pool": "max"}
    model = cnn((3, 12, 8), 5, nn.ReLU, **{**usual, **knobs})
    assert isinstance(model, nn.Sequential)
    return model


@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
@pytest.mark.parametrize("widths", [(), (7,), (7, 9, 11)])
def test_mlp_has_its_shape_stages_and_parameters(
    widths: tuple[int, ...], norm: Literal["none", "batch", "layer"]
) -> None:
    model = mlp((2, 3, 4), 5, nn.ReLU, widths=widths, norm=norm)
    assert model(torch.randn(6, 2, 3, 4)).shape == (6, 5)
    hidden = [f"hidden{number}" for number in range(1, len(widths) + 1)]
    assert list(dict(model.named_children())) == ["flatten", *hidden, "head"]
    sizes = [24, *widths]
    # a norm brings a scale and a shift per unit and takes the bias's place
    expected = sum(a * b + (1 if norm == "none" else 2) * b for a, b in pairwise(sizes))
    assert count(model) == expected + sizes[-1] * 5 + 5


@pytest.mark.parametrize("norm", ["none", "batch"])
@pytest.mark.parametrize(("widths", "depth", "kernel_size"), [((4,), 1, 1), ((4, 6), 1, 3), ((4, 6, 8), 2, 5)])
def test_cnn_has_its_shape_stages_and_parameters(
    widths: tuple[int, ...], depth: int, kernel_size: int, norm: str
) -> None:
    model = small_cnn(widths=widths, depth=depth, kernel_size=kernel_size, norm=norm)
    assert model(torch.randn(2, 3, 12, 8)).shape == (2, 5)
    stages = [f"stage{number}" for number in range(1, len(widths) + 1)]
    assert list(dict(model.named_children())) == [*stages, "pool", "flatten", "head"]
    expected, channels = 0, 3
    for width in widths:
        for _ in range(depth):
            expected += kernel_size**2 * channels * width + (1 if norm == "none" else 2) * width
            channels = width
    assert count(model) == expected + channels * 5 + 5


@pytest.mark.parametrize("kernel_size", [1, 3, 7])
@pytest.mark.parametrize("pool", ["max", "average"])
def test_each_stage_of_a_cnn_halves_the_sides_whatever_the_kernel(kernel_size: int, pool: str) -> None:
    model, signal = small_cnn(kernel_size=kernel_size, pool=pool), torch.randn(2, 3, 12, 8)
    assert model[0](signal).shape == (2, 4, 6, 4)
    assert model[1](model[0](signal)).shape == (2, 6, 3, 2)
    kinds = {type(layer) for layer in model.modules()}
    assert (nn.MaxPool2d in kinds, nn.AvgPool2d in kinds) == (pool == "max", pool == "average")


def test_every_hidden_layer_has_its_norm_and_then_an_activation_of_its_own() -> None:
    for model in (mlp((8,), 3, nn.PReLU, widths=(4, 4), norm="batch"), small_cnn(depth=2)):
        blocks = [block for block in model.modules() if isinstance(block, nn.Sequential) and hasattr(block, "layer")]
        assert [list(dict(block.named_children())) for block in blocks] == [["layer", "norm", "activation"]] * len(
            blocks
        )
        assert len({id(block.get_submodule("activation")) for block in blocks}) == len(blocks) >= 2


def test_the_head_is_linear_and_has_no_activation_behind_it() -> None:
    for model in (mlp((8,), 3, nn.ReLU, widths=(4,), norm="none"), small_cnn()):
        assert isinstance(list(model.children())[-1], nn.Linear)


def test_a_cnn_does_not_take_vectors() -> None:
    with pytest.raises(
        ConfigError, match=r"^model: cnn takes images, but a sample's shape is \(7,\); write model=mlp$"
    ):
        cnn((7,), 5, nn.ReLU, widths=(4,), depth=1, kernel_size=3, norm="batch", pool="max")


@pytest.mark.parametrize("kernel_size", [2, 4])
def test_an_even_kernel_is_refused(kernel_size: int) -> None:
    with pytest.raises(ConfigError, match=rf"^model.kernel_size: {kernel_size} is even;"):
        small_cnn(kernel_size=kernel_size)


def test_more_stages_than_the_image_can_be_halved_are_refused() -> None:
    model = small_cnn(widths=(4, 4, 4)).eval()
    assert model(torch.randn(1, 3, 12, 8)).shape == (1, 5)
    with pytest.raises(ConfigError, match=r"^model.widths: 4 stages halve 8 pixels to nothing; take fewer stages$"):
        small_cnn(widths=(4, 4, 4, 4))
