"""VGG: the deep nets of 3x3 convolutions."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Literal, TypeVar

from torch import nn

from dltips.catalog.cards import card
from dltips.catalog.registry import Positive, Size
from dltips.errors import ConfigError
from dltips.nets.blocks import Activation, Head, Norm, classifier, model, require_images, scaled, stage
from dltips.nets.key_maps import KeyMap

Function = TypeVar("Function", bound=Callable[..., nn.Module])

WIDTHS = (64, 128, 256, 512, 512)
# weighted layers, the head's three among them -> convolutions per stage
DEPTHS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
REDUCTION = 2 ** len(WIDTHS)


def _torchvision(function: Function) -> Function:
    """Registers a key map for each depth and norm; returns the function unchanged."""
    for depth in DEPTHS:
        for norm in ("none", "batch"):
            settings = {"model.depth": depth, "model.norm": norm, "activation": "relu"}
            KeyMap(name="torchvision", renames=tuple(_renames(depth, norm)), size=224, settings=settings)(function)
    return function


def _renames(depth: int, norm: str) -> Iterator[tuple[str, str]]:
    """Yields torchvision's names, which are numbers: all layers, pools and activations are counted."""
    place = 0
    for number, convolutions in enumerate(DEPTHS[depth], 1):
        for index in range(1, convolutions + 1):
            yield rf"^features\.{place}\.", f"stage{number}.conv{index}.layer."
            if norm == "batch":
                yield rf"^features\.{place + 1}\.", f"stage{number}.conv{index}.norm."
            place += 3 if norm == "batch" else 2
        place += 1
    yield r"^classifier\.0\.", "hidden1.layer."
    yield r"^classifier\.3\.", "hidden2.layer."
    yield r"^classifier\.6\.", "head."


@model
@_torchvision
@card(
    when="a deep plain net, as a base to compare with: a resnet of the same accuracy is smaller and quicker",
    formula="five stages of 3x3 convolutions, 64 to 512 channels, a 2x2 max pool behind each",
    source="tips K and B; Simonyan and Zisserman 2015, arXiv 1409.1556, configurations A, B, D and E",
    recommends="16 or 19 layers, head=dense head_widths=[4096,4096] at 224x224",
    costs="9 to 20 million parameters in the convolutions, 124 million in the original head at 224x224",
    avoid={
        "init=small_random": "the signal of 11 or more layers dies of a plain Gaussian; take init=he",
        "init=calibrated": "with ReLU each layer halves the variance, and the signal dies in a deep net; take init=he",
    },
    try_with=("data.image_size=32", "model.width=0.0625"),
)
def vgg(
    input_shape: tuple[int, ...],
    num_classes: int,
    activation: Activation,
    *,
    depth: Literal[11, 13, 16, 19],
    width: Positive,
    norm: Norm,
    groups: Size | None,
    head: Head,
    head_widths: tuple[Size, ...],
) -> nn.Module:
    """VGG of 11 to 19 layers: 3x3 convolutions in five stages, each halved by a 2x2 max pool.

    The width multiplies the channels of every stage. Images of at least 32x32 pixels.
    """
    require_images("vgg", input_shape)
    channels, sides = input_shape[0], input_shape[1:]
    if min(sides) < REDUCTION:
        raise ConfigError(
            f"model: the five pools of vgg halve {min(sides)} pixels to nothing; write data.image_size={REDUCTION}, or"
            " take model=cnn"
        )
    stages: OrderedDict[str, nn.Module] = OrderedDict()
    for number, (base, convolutions) in enumerate(zip(WIDTHS, DEPTHS[depth], strict=True), 1):
        channels_out = scaled(base, width)
        stages[f"stage{number}"] = stage(
            channels, channels_out, convolutions, 3, activation, norm=norm, groups=groups, pool=nn.MaxPool2d(2)
        )
        channels = channels_out
    sides = tuple(side // REDUCTION for side in sides)
    stages.update(classifier(channels, sides, num_classes, activation, head, head_widths))
    return nn.Sequential(stages)
