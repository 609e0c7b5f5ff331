from itertools import pairwise
from typing import Literal

import pytest
import torch
from torch import nn

from dltips.tips.model import mlp


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
    assert sum(parameter.numel() for parameter in model.parameters()) == expected + sizes[-1] * 5 + 5


def test_every_hidden_layer_has_its_norm_and_then_an_activation_of_its_own() -> None:
    model = mlp((8,), 3, nn.PReLU, widths=(4, 4), norm="batch")
    blocks = [model.get_submodule("hidden1"), model.get_submodule("hidden2")]
    assert [list(dict(block.named_children())) for block in blocks] == [["layer", "norm", "activation"]] * 2
    assert len({id(block.get_submodule("activation")) for block in blocks}) == 2


def test_the_head_is_linear_and_has_no_activation_behind_it() -> None:
    assert isinstance(list(mlp((8,), 3, nn.ReLU, widths=(4,), norm="none").children())[-1], nn.Linear)
