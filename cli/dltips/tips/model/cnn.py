"""Convolutional nets in the manner of VGG."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Literal

from torch import nn

from dltips.catalog.cards import card
from dltips.catalog.registry import Size
from dltips.errors import ConfigError
from dltips.nets.blocks import Activation, Head, classifier, model, require_images, stage

POOLS: dict[str, Callable[[int], nn.Module]] = {"max2": nn.MaxPool2d, "average2": nn.AvgPool2d}


@model
@card(
    when="images of any size, from thousands of samples on; for less than that a smaller net, or model=svm",
    formula="(convolution, norm, activation) x depth and a 2x2 pool per stage; mean over the places; linear",
    source="tips K and B; Simonyan and Zisserman 2015, arXiv 1409.1556; the global average pool: Lin et al. 2014,"
    " arXiv 1312.4400",
    recommends="small filters, 3x3, with zero padding and stride 1; 2x2 max pooling",
    costs="two FLOPs per weight and place: most of it in the first stages, most of the parameters in the last",
    avoid={
        "model.norm=lrn": "local response normalization takes time and brings no accuracy; take norm=batch",
        "model.kernel_size=7": "two 3x3 layers see 5x5 and three 7x7, with fewer parameters; take model.depth=3",
        "model.kernel_size=5": "two 3x3 layers see as much, with fewer parameters; take model.depth=2",
    },
)
def cnn(
    input_shape: tuple[int, ...],
    num_classes: int,
    activation: Activation,
    *,
    widths: tuple[Size, ...],
    depth: Size,
    kernel_size: Size,
    norm: Literal["none", "batch", "layer", "group", "lrn"],
    groups: Size | None,
    pool: Literal["none", "max2", "average2"],
    activation_after_pool: bool,
    head: Head,
    head_widths: tuple[Size, ...],
) -> nn.Module:
    """Convolutions with zero padding in stages, each halved by a 2x2 pool; global average pooling, a linear head.

    With activation_after_pool the last activation of a stage comes behind its pool: the same outputs with max pooling
    and an activation that never falls, for a quarter of its work. head=dense sees every place instead of their mean.
    """
    require_images("cnn", input_shape)
    if kernel_size % 2 == 0:
        raise ConfigError(f"model.kernel_size: {kernel_size} is even; an odd size keeps the sides with zero padding")
    channels, sides = input_shape[0], input_shape[1:]
    if pool != "none":
        if min(sides) < 2 ** len(widths):
            raise ConfigError(
                f"model.widths: {len(widths)} stages halve {min(sides)} pixels to nothing; take fewer stages"
            )
        sides = tuple(side // 2 ** len(widths) for side in sides)
    if activation_after_pool:
        _check_order(norm, pool)
    stages: OrderedDict[str, nn.Module] = OrderedDict()
    for number, width in enumerate(widths, 1):
        stages[f"stage{number}"] = stage(
            channels,
            width,
            depth,
            kernel_size,
            activation,
            norm=norm,
            groups=groups,
            pool=None if pool == "none" else POOLS[pool](2),
            activation_after_pool=activation_after_pool,
        )
        channels = width
    stages.update(classifier(channels, sides, num_classes, activation, head, head_widths))
    return nn.Sequential(stages)


def _check_order(norm: str, pool: str) -> None:
    """Raises ConfigError if an activation after the pool would change the outputs."""
    if pool != "max2":
        reason = "there is no pool" if pool == "none" else "the mean of activations is not the activation of the mean"
        raise ConfigError(
            f"model.activation_after_pool: true does not go with model.pool={pool}: {reason}; write model.pool=max2"
        )
    if norm == "lrn":
        raise ConfigError(
            "model.activation_after_pool: true does not go with model.norm=lrn, which stands between the activation and"
            " the pool; write model.norm=batch"
        )
