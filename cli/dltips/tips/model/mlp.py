"""Fully connected nets."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Literal

from torch import nn

from dltips.catalog.cards import card
from dltips.catalog.registry import Size
from dltips.nets.blocks import Activation, block, model


@model
@card(
    when="vectors, tables and small images; larger images want convolutions (model=cnn)",
    formula="h = activation(norm(W x + b)) per width, outputs W h + b",
    source="Rumelhart et al. 1986; the norms: Ioffe and Szegedy 2015, arXiv 1502.03167; Ba et al. 2016, arXiv"
    " 1607.06450",
    recommends="batch normalization before the activation",
    costs="inputs times the first width in parameters: for an image of 224x224 pixels and 128 units 19 million",
)
def mlp(
    input_shape: tuple[int, ...],
    num_classes: int,
    activation: Activation,
    *,
    widths: tuple[Size, ...],
    norm: Literal["none", "batch", "layer"],
) -> nn.Module:
    """Fully connected: flatten, one hidden layer per width, a linear head. For vectors and small images."""
    stages: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    features = math.prod(input_shape)
    norms: dict[str, Callable[[int], nn.Module | None]] = {
        "none": lambda _: None,
        "batch": nn.BatchNorm1d,
        "layer": nn.LayerNorm,
    }
    for number, width in enumerate(widths, 1):
        # a bias before a norm would be subtracted again
        linear = nn.Linear(features, width, bias=norm == "none")
        stages[f"hidden{number}"] = block(linear, norms[norm](width), activation())
        features = width
    stages["head"] = nn.Linear(features, num_classes)
    return nn.Sequential(stages)
