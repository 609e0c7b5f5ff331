"""Models: `(input_shape, num_classes, activation, *, knobs) -> nn.Module`, whose children are its named stages."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Literal

from torch import nn

from dltips.registry import ConfigError, Size, family

model = family("model")

Activation = Callable[[], nn.Module]


def block(layer: nn.Module, norm: nn.Module | None, activation: nn.Module) -> nn.Sequential:
    """A weighted layer, its normalization and its activation, as one stage."""
    parts = OrderedDict([("layer", layer)])
    if norm is not None:
        parts["norm"] = norm
    parts["activation"] = activation
    return nn.Sequential(parts)


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


@model
def cnn(
    input_shape: tuple[int, ...],
    num_classes: int,
    activation: Activation,
    *,
    widths: tuple[Size, ...],
    depth: Size,
    kernel_size: Size,
    norm: Literal["none", "batch"],
    pool: Literal["max", "average"],
) -> nn.Module:
    """Convolutions with zero padding in stages, each halved by a 2x2 pool; global average pooling, a linear head."""
    if len(input_shape) != 3:
        raise ConfigError(f"model: cnn takes images, but a sample's shape is {input_shape}; write model=mlp")
    if kernel_size % 2 == 0:
        raise ConfigError(f"model.kernel_size: {kernel_size} is even; an odd size keeps the sides with zero padding")
    channels, side = input_shape[0], min(input_shape[1:])
    if side < 2 ** len(widths):
        raise ConfigError(f"model.widths: {len(widths)} stages halve {side} pixels to nothing; take fewer stages")
    stages: OrderedDict[str, nn.Module] = OrderedDict()
    pooling = nn.MaxPool2d if pool == "max" else nn.AvgPool2d
    for number, width in enumerate(widths, 1):
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        for index in range(1, depth + 1):
            convolution = nn.Conv2d(channels, width, kernel_size, padding=kernel_size // 2, bias=norm == "none")
            parts[f"conv{index}"] = block(convolution, nn.BatchNorm2d(width) if norm == "batch" else None, activation())
            channels = width
        parts["pool"] = pooling(2)
        stages[f"stage{number}"] = nn.Sequential(parts)
    stages["pool"] = nn.AdaptiveAvgPool2d(1)
    stages["flatten"] = nn.Flatten()
    stages["head"] = nn.Linear(channels, num_classes)
    return nn.Sequential(stages)
