"""Convolutional nets in the manner of VGG."""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

from torch import nn

from dltips.registry import ConfigError, Size
from dltips.tips.model.blocks import Activation, block, model


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
