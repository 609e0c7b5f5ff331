"""MobileNetV2: inverted residuals of depthwise convolutions."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from dltips.catalog.cards import card
from dltips.catalog.registry import Fraction, Positive, Size
from dltips.nets.blocks import Activation, Norm, Residual, block, convolution, model, normalization, require_images
from dltips.nets.key_maps import KeyMap

# (expansion, channels, blocks, stride of the first) per stage (Sandler et al. 2018, table 2)
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
FIRST, LAST = 32, 1280


def _torchvision() -> Iterator[tuple[str, str]]:
    """Yields torchvision's names, which are numbers: of the blocks over all stages, and of the layers in a block."""
    yield r"^features\.0\.0\.", "stem.layer."
    yield r"^features\.0\.1\.", "stem.norm."
    number = 1
    for stage, (expansion, _, blocks, _) in enumerate(STAGES, 1):
        hidden = ("depthwise",) if expansion == 1 else ("expand", "depthwise")
        for index in range(1, blocks + 1):
            theirs, ours = rf"^features\.{number}\.conv", f"stage{stage}.block{index}.body"
            for place, name in enumerate(hidden):
                yield rf"{theirs}\.{place}\.0\.", f"{ours}.{name}.layer."
                yield rf"{theirs}\.{place}\.1\.", f"{ours}.{name}.norm."
            yield rf"{theirs}\.{len(hidden)}\.", f"{ours}.project.layer."
            yield rf"{theirs}\.{len(hidden) + 1}\.", f"{ours}.project.norm."
            number += 1
    yield rf"^features\.{number}\.0\.", "last.layer."
    yield rf"^features\.{number}\.1\.", "last.norm."
    yield r"^classifier\.1\.", "head."


@model
@KeyMap(
    name="torchvision",
    renames=tuple(_torchvision()),
    size=224,
    settings={"model.stem": "imagenet", "model.norm": "batch", "activation": "relu6"},
)
@card(
    when="images, where parameters and multiplications count: a phone, or a pretrained net for a machine without a GPU",
    formula="x + project(depthwise(expand(x))): 1x1 to six times the channels, 3x3 on each channel by itself, 1x1 back"
    " without an activation",
    source="Sandler et al. 2018, arXiv 1801.04381",
    recommends="activation=relu6, stem=imagenet at 224x224 pixels",
    costs="3.5 million parameters with 1000 classes; 0.6 GFLOPs per image at 224x224 with stem=imagenet",
    avoid={"model.norm=none": "53 layers without a norm are hard to train from scratch; take norm=batch"},
    try_with=("model.width=0.125", "activation=relu6"),
)
def mobilenet_v2(
    input_shape: tuple[int, ...],
    num_classes: int,
    activation: Activation,
    *,
    stem: Literal["cifar", "imagenet"],
    width: Positive,
    norm: Norm,
    groups: Size | None,
    padding: Literal["symmetric", "same"],
    dropout: Fraction,
) -> nn.Module:
    """MobileNetV2: inverted residuals, narrow between the blocks and wide, but one channel at a time, inside them.

    stem=imagenet halves the image five times, cifar three times: the stem and the second stage keep its sides. The
    width multiplies all channels, rounded to multiples of 8; of the last convolution only where it is above 1.
    Pretrained nets have their authors' activation=relu6, and those that come from TensorFlow its padding, same.
    """
    require_images("mobilenet_v2", input_shape)
    channels = _multiple_of_8(FIRST * width)
    entry = _spatial(input_shape[0], channels, 2 if stem == "imagenet" else 1, 1, norm, padding)
    stages: OrderedDict[str, nn.Module] = OrderedDict(
        stem=block(entry, normalization(norm, channels, groups), activation())
    )
    for number, (expansion, base, count, stride) in enumerate(STAGES, 1):
        first = 1 if number == 2 and stem == "cifar" else stride
        blocks: OrderedDict[str, nn.Module] = OrderedDict()
        for index in range(1, count + 1):
            outer = _multiple_of_8(base * width)
            blocks[f"block{index}"] = _inverted(
                channels, expansion, outer, first if index == 1 else 1, norm, groups, padding, activation
            )
            channels = outer
        stages[f"stage{number}"] = nn.Sequential(blocks)
    last = _multiple_of_8(LAST * max(1.0, width))
    stages["last"] = convolution(channels, last, 1, norm, groups, activation())
    stages["pool"] = nn.AdaptiveAvgPool2d(1)
    stages["flatten"] = nn.Flatten()
    stages["dropout"] = nn.Dropout(dropout)
    stages["head"] = nn.Linear(last, num_classes)
    return nn.Sequential(stages)


def _inverted(
    channels: int,
    expansion: int,
    outer: int,
    stride: int,
    norm: str,
    groups: int | None,
    padding: str,
    activation: Activation,
) -> nn.Module:
    """Returns the block: expand, depthwise, project; the input is added if the shape stays."""
    inner = channels * expansion
    body: OrderedDict[str, nn.Module] = OrderedDict()
    if expansion > 1:
        body["expand"] = convolution(channels, inner, 1, norm, groups, activation())
    layer = _spatial(inner, inner, stride, inner, norm, padding)
    body["depthwise"] = block(layer, normalization(norm, inner, groups), activation())
    body["project"] = convolution(inner, outer, 1, norm, groups, None)
    if stride == 1 and channels == outer:
        return Residual(nn.Sequential(body), nn.Identity(), nn.Identity())
    return nn.Sequential(OrderedDict(body=nn.Sequential(body)))


class SameConv2d(nn.Conv2d):
    """A convolution to ceil(side / stride) pixels a side, an odd zero at the end: TensorFlow's padding SAME."""

    def forward(self, inputs: Tensor) -> Tensor:
        pads: list[int] = []
        for axis in (1, 0):  # the last one first
            side, stride = inputs.shape[2 + axis], self.stride[axis]
            zeros = max((-(-side // stride) - 1) * stride + self.kernel_size[axis] - side, 0)
            pads += [zeros // 2, zeros - zeros // 2]
        return super().forward(functional.pad(inputs, pads))


def _spatial(channels: int, outer: int, stride: int, apart: int, norm: str, padding: str) -> nn.Conv2d:
    """Returns a 3x3 convolution of so many groups of channels; at stride 1 both paddings are equal."""
    bias = norm == "none"  # a bias before a norm would be subtracted again
    if padding == "same" and stride > 1:
        return SameConv2d(channels, outer, 3, stride=stride, groups=apart, bias=bias)
    return nn.Conv2d(channels, outer, 3, stride=stride, padding=1, groups=apart, bias=bias)


def _multiple_of_8(channels: float) -> int:
    """Returns the nearest multiple, but at least 8 and not below nine tenths, as in the authors' code."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * channels else nearest + 8
