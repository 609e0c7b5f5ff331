"""SqueezeNet: few parameters by 1x1 convolutions."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from itertools import islice
from typing import Literal

from torch import nn

from dltips.catalog.cards import card
from dltips.catalog.registry import Positive, Size
from dltips.errors import ConfigError
from dltips.nets.blocks import Activation, Concat, Norm, convolution, model, require_images, scaled
from dltips.nets.key_maps import KeyMap

# (squeezed channels, channels of each of the two expansions) per fire module
FIRES = ((16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256))
# version -> fire modules per stage, and the stem's channels and the side of its filters at stride 2
VERSIONS = {1.0: ((3, 4, 1), 96, 7), 1.1: ((2, 2, 4), 64, 3)}


def _torchvision(version: float) -> Iterator[tuple[str, str]]:
    """Yields torchvision's names, which are numbers: all layers, pools and activations are counted."""
    yield r"^features\.0\.", "stem.layer."
    place = 3
    for number, fires in enumerate(VERSIONS[version][0], 1):
        for index in range(1, fires + 1):
            theirs, ours = rf"^features\.{place}", f"stage{number}.fire{index}"
            yield rf"{theirs}\.squeeze\.", f"{ours}.squeeze.layer."
            yield rf"{theirs}\.expand1x1\.", f"{ours}.expand.pointwise.layer."
            yield rf"{theirs}\.expand3x3\.", f"{ours}.expand.spatial.layer."
            place += 1
        place += 1
    yield r"^classifier\.1\.", "head."


@model
@KeyMap(
    name="torchvision",
    renames=tuple(_torchvision(1.0)),
    size=224,
    settings={"model.version": 1.0, "model.stem": "imagenet", "model.norm": "none", "activation": "relu"},
)
@KeyMap(
    name="torchvision",
    renames=tuple(_torchvision(1.1)),
    size=224,
    settings={"model.version": 1.1, "model.stem": "imagenet", "model.norm": "none", "activation": "relu"},
)
@card(
    when="where the net's size counts: on a phone, over a network; for accuracy alone take model=resnet",
    formula="fire module: 1x1 convolution to few channels, then 1x1 and 3x3 side by side; head: 1x1 convolution, mean"
    " over the places",
    source="tip B; Iandola et al. 2016, arXiv 1602.07360 (version 1.0), and its authors' version 1.1",
    recommends="1x1 convolutions in place of 3x3; half of the expansion's filters 3x3",
    costs="1.2 million parameters with 1000 classes; 0.7 GFLOPs per image at 224x224 with stem=imagenet, of"
    " version 1.0 1.6",
    avoid={"model.norm=none": "without a norm it is hard to train from scratch; take norm=batch"},
    try_with=("model.width=0.25",),
)
def squeezenet(
    input_shape: tuple[int, ...],
    num_classes: int,
    activation: Activation,
    *,
    version: float,
    stem: Literal["cifar", "imagenet"],
    width: Positive,
    norm: Norm,
    groups: Size | None,
) -> nn.Module:
    """SqueezeNet: fire modules of 1x1 and 3x3 convolutions, and no dense layer.

    Version 1.1 has a smaller stem than 1.0 and pools earlier. stem=imagenet halves the image twice before the first
    fire module, cifar, a 3x3 convolution, leaves it as it is. No activation behind the last convolution (the original
    has one): a class that it silences could not come back.
    """
    require_images("squeezenet", input_shape)
    if version not in VERSIONS:
        raise ConfigError(f"model.version: {version:g} is neither 1.0 nor 1.1; write model.version=1.1")
    counts, first, kernel_size = VERSIONS[version]
    side = min(input_shape[1:])
    least = 14 + kernel_size if stem == "imagenet" else 5  # 8 pixels after the first convolution
    if side < least:
        remedy = "write model.stem=cifar" if stem == "imagenet" and side >= 5 else f"write data.image_size={least}"
        raise ConfigError(f"model.stem: {stem} shrinks {side} pixels to nothing; {remedy}")
    channels = scaled(first, width)
    kernel_size, stride, padding = (kernel_size, 2, 0) if stem == "imagenet" else (3, 1, 1)
    entry = convolution(
        input_shape[0], channels, kernel_size, norm, groups, activation(), stride=stride, padding=padding
    )
    if stem == "imagenet":
        entry.add_module("pool", _pool())
    stages: OrderedDict[str, nn.Module] = OrderedDict(stem=entry)
    fires = iter(FIRES)
    for number, count in enumerate(counts, 1):
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        for index, (squeezed, expanded) in enumerate(islice(fires, count), 1):
            parts[f"fire{index}"] = _fire(
                channels, scaled(squeezed, width), scaled(expanded, width), norm, groups, activation
            )
            channels = 2 * scaled(expanded, width)
        if number < len(counts):
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
    """Returns the fire module: squeeze to few channels, expand by 1x1 and 3x3 convolutions side by side."""
    branches: OrderedDict[str, nn.Module] = OrderedDict(
        pointwise=convolution(squeezed, expanded, 1, norm, groups, activation()),
        spatial=convolution(squeezed, expanded, 3, norm, groups, activation()),
    )
    squeeze = convolution(channels, squeezed, 1, norm, groups, activation())
    return nn.Sequential(OrderedDict(squeeze=squeeze, expand=Concat(branches)))
