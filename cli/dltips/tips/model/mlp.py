"""Fully connected nets."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Literal

from torch import nn

from dltips.registry import Size
from dltips.tips.model.blocks import Activation, block, model


@model
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
