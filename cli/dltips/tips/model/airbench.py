"""The net of the CIFAR-10 speed records."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional

from dltips.catalog.cards import card
from dltips.catalog.registry import Fraction, Positive, Size
from dltips.errors import ConfigError
from dltips.nets.blocks import Activation, model, require_images

WHITENED = 2  # side of the patches that the first layer whitens


class Whitening(nn.Module):
    """A 2x2 convolution with fixed filters: the principal components of patches, whitened, and their negatives.

    (N, C, H, W) -> (N, 8 C, H - 1, W - 1); its bias is trained. `init_from_data` sets the filters.
    """

    weight: Tensor
    kernel_size, stride = WHITENED, 1

    def __init__(self, channels: int, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon
        width = 2 * channels * WHITENED**2
        self.register_buffer("weight", torch.zeros(width, channels, WHITENED, WHITENED))
        self.bias = nn.Parameter(torch.zeros(width))

    def init_from_data(self, images: Tensor) -> None:
        """Sets the filters from the patches of preprocessed images: rows of V^T / sqrt(lambda + epsilon)."""
        patches = functional.unfold(images, WHITENED).transpose(1, 2).flatten(0, 1).double()  # (P, 4 C)
        values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
        filters = (vectors / (values + self.epsilon).sqrt()).T.reshape(-1, *self.weight.shape[1:])
        self.weight.copy_(torch.cat([filters, -filters]))

    def forward(self, images: Tensor) -> Tensor:
        return functional.conv2d(images, self.weight, self.bias)


class ShiftingNorm(nn.BatchNorm2d):
    """Batch normalization whose scale stays 1: only its shift is trained."""

    def __init__(self, channels: int, memory: float) -> None:
        super().__init__(channels, eps=1e-12, momentum=1 - memory)
        del self.weight
        self.register_buffer("weight", torch.ones(channels))


class Scale(nn.Module):
    """Multiplies by a constant."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs * self.factor


class Airbench(nn.Sequential):
    """The stages in a row; the first one is initialized from a batch before the first step."""

    def init_from_data(self, images: Tensor) -> None:
        self.get_submodule("whiten").init_from_data(images)  # type: ignore[operator]


@model
@card(
    when="small photographs on a GPU, when seconds count: with init=dirac, activation=gelu, label smoothing 0.2, a rate"
    " for biases 64 times as high",
    formula="whiten 2x2, then thrice (conv, max pool 2, norm, activation, conv, norm, activation), max pool 3, linear *"
    " scale",
    source="Jordan 2024, arXiv 2404.00498, and github.com/KellerJordan/cifar10-airbench",
    recommends="widths 64, 256, 256; 94 % of CIFAR-10's test set in 3.8 s on an A100 (mean of 1,000 runs there)",
    costs="2 million parameters; the step wants large batches and bfloat16",
    try_with=("data.image_size=32", "model.widths=[8,8,8]"),
)
def airbench(
    input_shape: tuple[int, ...],
    num_classes: int,
    activation: Activation,
    *,
    widths: tuple[Size, ...],
    memory: Fraction,
    scale: Positive,
    epsilon: Positive,
) -> nn.Module:
    """The net of the CIFAR-10 speed records: a fixed whitening layer, then stages that pool early (Jordan 2024)."""
    require_images("airbench", input_shape)
    needed = 3 * 2 ** len(widths) + 1
    if min(input_shape[1:]) < needed:
        raise ConfigError(
            f"model: airbench with {len(widths)} stages takes images of at least {needed} pixels a side, not"
            f" {min(input_shape[1:])}; write data.image_size=32"
        )
    stages: OrderedDict[str, nn.Module] = OrderedDict()
    stages["whiten"] = Whitening(input_shape[0], epsilon)
    stages["activation"] = activation()
    channels = 2 * input_shape[0] * WHITENED**2
    for number, width in enumerate(widths, 1):
        stages[f"stage{number}"] = nn.Sequential(
            OrderedDict(
                conv1=nn.Conv2d(channels, width, 3, padding=1, bias=False),
                pool=nn.MaxPool2d(2),
                norm1=ShiftingNorm(width, memory),
                activation1=activation(),
                conv2=nn.Conv2d(width, width, 3, padding=1, bias=False),
                norm2=ShiftingNorm(width, memory),
                activation2=activation(),
            )
        )
        channels = width
    stages["pool"] = nn.MaxPool2d(3)
    stages["flatten"] = nn.Flatten()
    sides = [(side - 1) // 2 ** len(widths) // 3 for side in input_shape[1:]]
    stages["head"] = nn.Linear(channels * sides[0] * sides[1], num_classes, bias=False)
    stages["scale"] = Scale(scale)
    return Airbench(stages)
