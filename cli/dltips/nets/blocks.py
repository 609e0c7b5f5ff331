"""The model family, and the blocks that its models share."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from dltips.catalog.registry import family
from dltips.errors import ConfigError

model = family("model")

Activation = Callable[[], nn.Module]
Norm = Literal["none", "batch", "layer", "group"]
Head = Literal["global", "dense"]

CHANNELS_PER_GROUP = 16  # default channels per group: 24.2 % error against 24.1 % with 32 groups (Wu and He 2018)


def block(layer: nn.Module, norm: nn.Module | None, activation: nn.Module | None) -> nn.Sequential:
    """Returns a weighted layer, its normalization and its activation, as one stage."""
    parts = OrderedDict([("layer", layer)])
    if norm is not None:
        parts["norm"] = norm
    if activation is not None:
        parts["activation"] = activation
    if isinstance(norm, nn.LocalResponseNorm):  # in AlexNet it follows the activation
        parts.move_to_end("norm")
    return nn.Sequential(parts)


def normalization(norm: str, channels: int, groups: int | None) -> nn.Module | None:
    """Returns the norm of (N, C, H, W) feature maps; None for norm=none. Raises ConfigError."""
    if groups is not None and norm != "group":
        raise ConfigError(f"model.groups: {groups} is for model.norm=group, not for {norm}; leave it out")
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    if norm == "layer":  # all channels and positions of a sample together
        return nn.GroupNorm(1, channels)
    if norm == "group":
        count = groups or max(1, channels // CHANNELS_PER_GROUP)
        if channels % count:
            raise ConfigError(
                f"model.groups: {count} groups do not divide {channels} channels; take a number that does"
            )
        return nn.GroupNorm(count, channels)
    if norm == "lrn":  # AlexNet's values; torch divides alpha by the size, the paper does not
        return nn.LocalResponseNorm(5, alpha=5 * 1e-4, beta=0.75, k=2.0)
    return None


def convolution(
    channels_in: int,
    channels_out: int,
    kernel_size: int,
    norm: str,
    groups: int | None,
    activation: nn.Module | None,
    *,
    stride: int = 1,
    padding: int | None = None,
) -> nn.Sequential:
    """Returns a convolution block; zero padding keeps the sides, unless another padding is given."""
    layer = nn.Conv2d(
        channels_in,
        channels_out,
        kernel_size,
        stride=stride,
        padding=kernel_size // 2 if padding is None else padding,
        bias=norm in ("none", "lrn"),  # a bias before a norm would be subtracted again
    )
    return block(layer, normalization(norm, channels_out, groups), activation)


def stage(
    channels: int,
    width: int,
    depth: int,
    kernel_size: int,
    activation: Activation,
    *,
    norm: str,
    groups: int | None,
    pool: nn.Module | None,
    activation_after_pool: bool = False,
) -> nn.Sequential:
    """Returns convolutions of one width as `conv1`, `conv2`, ..., and a pool; the last activation may follow it."""
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    for index in range(1, depth + 1):
        late = activation_after_pool and index == depth
        last_activation = None if late else activation()
        parts[f"conv{index}"] = convolution(channels, width, kernel_size, norm, groups, last_activation)
        channels = width
    if pool is not None:
        parts["pool"] = pool
    if activation_after_pool:
        parts["activation"] = activation()
    return nn.Sequential(parts)


def classifier(
    channels: int,
    sides: Sequence[int],
    num_classes: int,
    activation: Activation,
    head: Head,
    widths: Sequence[int],
) -> OrderedDict[str, nn.Module]:
    """Returns the last stages: average over positions or all positions, hidden dense layers, a linear layer."""
    stages: OrderedDict[str, nn.Module] = OrderedDict()
    if head == "global":
        stages["pool"] = nn.AdaptiveAvgPool2d(1)
    stages["flatten"] = nn.Flatten()
    features = channels if head == "global" else channels * math.prod(sides)
    for number, width in enumerate(widths, 1):
        stages[f"hidden{number}"] = block(nn.Linear(features, width), None, activation())
        features = width
    stages["head"] = nn.Linear(features, num_classes)
    return stages


class Residual(nn.Module):
    """activation(shortcut(x) + body(x)); while training, each sample's body is left out with probability `drop`.

    A body that stays is scaled by 1 / (1 - drop), so that its mean is that of the whole net (Huang et al. 2016, arXiv
    1603.09382).
    """

    def __init__(self, body: nn.Sequential, shortcut: nn.Module, activation: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.shortcut = shortcut
        self.activation = activation
        self.drop = 0.0

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.body(inputs)
        if self.drop > 0 and self.training:
            stays = outputs.new_empty((len(outputs), 1, 1, 1)).bernoulli_(1 - self.drop)
            # with drop=1 every body is left out: nothing to scale
            outputs = outputs * (stays / (1 - self.drop) if self.drop < 1 else stays)
        activated: Tensor = self.activation(outputs + self.shortcut(inputs))
        return activated


class PaddedShortcut(nn.Module):
    """The identity where a residual block shrinks its input: every `stride`-th pixel, new channels 0. No parameters."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.new = channels_out - channels_in
        self.stride = stride

    def forward(self, inputs: Tensor) -> Tensor:
        kept = inputs[:, :, :: self.stride, :: self.stride]
        return functional.pad(kept, (0, 0, 0, 0, self.new // 2, self.new - self.new // 2))

    def extra_repr(self) -> str:
        return f"{self.new} new channels, stride={self.stride}"


class Concat(nn.Module):
    """Named branches side by side on one input, their channels concatenated."""

    def __init__(self, branches: OrderedDict[str, nn.Module]) -> None:
        super().__init__()
        for name, branch in branches.items():
            self.add_module(name, branch)

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.cat([branch(inputs) for branch in self.children()], 1)


def require_images(name: str, input_shape: Sequence[int]) -> None:
    """Raises ConfigError if the samples are not images."""
    if len(input_shape) != 3:
        shape = tuple(input_shape)
        remedy = "model=audio_cnn" if len(shape) == 2 else "model=mlp"  # (1, T) is a waveform
        raise ConfigError(f"model: {name} takes images, but a sample's shape is {shape}; write {remedy}")


def scaled(channels: int, width: float) -> int:
    """Returns the number of channels times a multiplier, at least 1."""
    return max(1, round(channels * width))
