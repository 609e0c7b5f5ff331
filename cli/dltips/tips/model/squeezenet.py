"""SqueezeNet: few parameters by 1x1 convolutions."""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

from torch import nn

from dltips.card import card
from dltips.registry import ConfigError, Positive, Size
from dltips.tips.model.blocks import Activation, Concat, Norm, convolution, model, require_images, scaled

# (squeezed channels, channels of each of the two expansions) per fire module, in three stages: version 1.1
STAGES = (
    ((16, 64), (16, 64)),
    ((32, 128), (32, 128)),
    ((48, 192), (48, 192), (64, 256), (64, 256)),
)


@model
@card(
    when="where the net's size counts: on a phone, over a network; for accuracy alone take model=resnet",
    formula="fire module: 1x1 convolution to few channels, then 1x1 and 3x3 side by side; head: 1x1 convolution, mean"
    " over the places",
    source="tip B; Iandola et al. 2016, arXiv 1602.07360, version 1.1 of its authors",
    recommends="1x1 convolutions in place of 3x3; half of the expansion's filters 3x3",
    costs="1.2 million parameters with 1000 classes; 0.7 GFLOPs per image at 224x224 with stem=imagenet",
    avoid={"model.norm=none": "without a norm it is hard to train from scratch; take norm=batch"},
    try_with=("model.width=0.25",),
)
def squeezenet(
    input_shape: tuple[int, ...],
    num_classes: int,
    activation: Activation,
    *,
    stem: Literal["cifar", "imagenet"],
    width: Positive,
    norm: Norm,
    groups: Size | None,
) -> nn.Module:
    """SqueezeNet 1.1: fire modules of 1x1 and 3x3 convolutions, and no dense layer.

    stem=imagenet halves the image twice before the first fire module, cifar leaves it as it is. No activation behind
    the last convolution (the original has one): a class that it silences could not come back.
    """
    require_images("squeezenet", input_shape)
    side = min(input_shape[1:])
    least = 17 if stem == "imagenet" else 5
    if side < least:
        remedy = "write model.stem=cifar" if stem == "imagenet" and side >= 5 else f"write data.image_size={least}"
        raise ConfigError(f"model.stem: {stem} shrinks {side} pixels to nothing; {remedy}")
    channels = scaled(64, width)
    shrink, padding = (2, 0) if stem == "imagenet" else (1, 1)
    entry = convolution(input_shape[0], channels, 3, norm, groups, activation(), stride=shrink, padding=padding)
    if stem == "imagenet":
        entry.add_module("pool", _pool())
    stages: OrderedDict[str, nn.Module] = OrderedDict(stem=entry)
    for number, fires in enumerate(STAGES, 1):
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        for index, (squeezed, expanded) in enumerate(fires, 1):
            parts[f"fire{index}"] = _fire(
                channels, scaled(squeezed, width), scaled(expanded, width), norm, groups, activation
            )
            channels = 2 * scaled(expanded, width)
        if number < len(STAGES):
            parts["pool"] = _pool()
        stages[f"stage{number}"] = nn.Sequential(parts)
    stages["head"] = nn.Conv2d(channels, num_classes, 1)
    stages["pool"] = nn.AdaptiveAvgPool2d(1)
    stages["flatten"] = nn.Flatten()
    return nn.Sequential(stages)


def _pool() -> nn.Module:
    return nn.MaxPool2d(3, stride=2, ceil_mode=True)


def _fire(
    channels: int, squeezed: int, expanded: int, norm: str, groups: int | None, activation: Activation
) -> nn.Sequential:
    """Squeeze to few channels, expand by 1x1 and 3x3 convolutions side by side."""
    branches: OrderedDict[str, nn.Module] = OrderedDict(
        pointwise=convolution(squeezed, expanded, 1, norm, groups, activation()),
        spatial=convolution(squeezed, expanded, 3, norm, groups, activation()),
    )
    squeeze = convolution(channels, squeezed, 1, norm, groups, activation())
    return nn.Sequential(OrderedDict(squeeze=squeeze, expand=Concat(branches)))
