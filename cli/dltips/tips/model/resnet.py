"""Residual nets, of CIFAR's and of ImageNet's layout."""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

from torch import nn

from dltips.catalog.cards import card
from dltips.catalog.registry import Positive, Size
from dltips.errors import ConfigError
from dltips.nets.blocks import (
    Activation,
    Norm,
    PaddedShortcut,
    Residual,
    classifier,
    convolution,
    model,
    require_images,
    scaled,
)
from dltips.nets.key_maps import KeyMap

# weighted layers -> blocks per stage, and whether these are bottlenecks (He et al. 2016, table 1)
IMAGENET = {
    18: ((2, 2, 2, 2), False),
    34: ((3, 4, 6, 3), False),
    50: ((3, 4, 6, 3), True),
    101: ((3, 4, 23, 3), True),
    152: ((3, 8, 36, 3), True),
}
EXPANSION = 4  # of a bottleneck's last convolution
# torchvision's names, which many others took over; their shortcuts and heads differ
RENAMES = (
    (r"^conv1\.", "stem.layer."),
    (r"^bn1\.", "stem.norm."),
    (r"^layer(\d+)\.(\d+)\.", lambda found: f"stage{found[1]}.block{int(found[2]) + 1}."),
    (r"^(stage\d+\.block\d+)\.conv(\d)\.", r"\1.body.conv\2.layer."),
    (r"^(stage\d+\.block\d+)\.bn(\d)\.", r"\1.body.conv\2.norm."),
    (r"\.(?:downsample|shortcut)\.0\.", ".shortcut.layer."),
    (r"\.(?:downsample|shortcut)\.1\.", ".shortcut.norm."),
    (r"^(?:fc|linear)\.", "head."),
)


@model
@KeyMap(
    name="torchvision",
    renames=RENAMES,
    size=224,
    settings={"model.stem": "imagenet", "model.shortcut": "projection", "model.norm": "batch", "activation": "relu"},
)
@KeyMap(
    name="akamaster",  # github.com/akamaster/pytorch_resnet_cifar10
    renames=RENAMES,
    size=32,
    settings={"model.stem": "cifar", "model.shortcut": "pad", "model.norm": "batch", "activation": "relu"},
)
@card(
    when="images, and nets of more than a dozen layers; the first choice where accuracy counts",
    formula="activation(x + F(x)), F two 3x3 convolutions with norm; from depth 50 on 1x1, 3x3, 1x1 with four times the"
    " channels",
    source="He et al. 2016, arXiv 1512.03385",
    recommends="shortcut=pad for CIFAR (20 to 110 layers), projection for ImageNet; 20 layers: 0.27 million parameters",
    costs="depth 20 on 32x32 pixels 82 MFLOPs per image; 18 with stem=imagenet on 224x224 3.6 GFLOPs",
    avoid={"model.norm=none": "the variance of the sum grows with every block; take norm=batch"},
    try_with=("model.depth=8",),
)
def resnet(
    input_shape: tuple[int, ...],
    num_classes: int,
    activation: Activation,
    *,
    depth: Size,
    stem: Literal["cifar", "imagenet"],
    width: Positive,
    shortcut: Literal["projection", "pad"],
    norm: Norm,
    groups: Size | None,
) -> nn.Module:
    """Residual net: depth 20, 32, 44, 56, 110 (6n+2) for small images; 18, 34, 50, 101, 152 for large ones.

    6n+2 layers have three stages of 16, 32 and 64 channels, the others four of 64 to 512. The stem is either a 3x3
    convolution, or 7x7 at stride 2 and a max pool. The shortcut of a block that shrinks its input is a 1x1 convolution
    or zeros in the new channels. The width multiplies all channels.
    """
    require_images("resnet", input_shape)
    if depth not in IMAGENET and (depth < 8 or (depth - 2) % 6):
        lower = max(8, depth - (depth - 2) % 6)
        raise ConfigError(
            f"model.depth: {depth} is neither 6n+2 (8, 14, 20, 32, 44, 56, 110) nor one of 18, 34, 50, 101, 152; write"
            f" model.depth={lower}"
        )
    counts, bottleneck = IMAGENET.get(depth, (((depth - 2) // 6,) * 3, False))
    first = scaled(64 if depth in IMAGENET else 16, width)
    kernel_size, stride = (3, 1) if stem == "cifar" else (7, 2)
    entry = convolution(input_shape[0], first, kernel_size, norm, groups, activation(), stride=stride)
    if stem == "imagenet":
        entry.add_module("pool", nn.MaxPool2d(3, stride=2, padding=1))
    stages: OrderedDict[str, nn.Module] = OrderedDict(stem=entry)
    channels = first
    for number, count in enumerate(counts, 1):
        blocks: OrderedDict[str, nn.Module] = OrderedDict()
        inner = scaled((64 if depth in IMAGENET else 16) * 2 ** (number - 1), width)
        outer = inner * EXPANSION if bottleneck else inner
        for index in range(1, count + 1):
            stride = 2 if index == 1 and number > 1 else 1
            body = _body(channels, inner, outer, stride, norm, groups, activation)
            blocks[f"block{index}"] = Residual(
                body, _shortcut(channels, outer, stride, shortcut, norm, groups), activation()
            )
            channels = outer
        stages[f"stage{number}"] = nn.Sequential(blocks)
    stages.update(classifier(channels, (), num_classes, activation, "global", ()))
    return nn.Sequential(stages)


def _body(
    channels: int, inner: int, outer: int, stride: int, norm: str, groups: int | None, activation: Activation
) -> nn.Sequential:
    """Returns two 3x3 convolutions, or a bottleneck; the last one's activation comes after the sum."""
    # (width, kernel size, stride); a bottleneck shrinks in its 3x3, as torchvision's does, where no pixel is skipped
    plan = [(inner, 3, stride), (outer, 3, 1)]
    if outer != inner:
        plan = [(inner, 1, 1), (inner, 3, stride), (outer, 1, 1)]
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    for index, (width, kernel_size, step) in enumerate(plan, 1):
        own = activation() if index < len(plan) else None
        parts[f"conv{index}"] = convolution(channels, width, kernel_size, norm, groups, own, stride=step)
        channels = width
    return nn.Sequential(parts)


def _shortcut(channels: int, outer: int, stride: int, kind: str, norm: str, groups: int | None) -> nn.Module:
    if channels == outer and stride == 1:
        return nn.Identity()
    if kind == "pad":
        return PaddedShortcut(channels, outer, stride)
    return convolution(channels, outer, 1, norm, groups, None, stride=stride)
