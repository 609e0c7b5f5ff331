"""Schemes that keep the signal's variance by a standard deviation from the fans."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from dltips.catalog.cards import card
from dltips.catalog.registry import NonNegative, Size
from dltips.tips.init.base import Distribution, GeneratorFor, draw, draw_by_fans, fans, init, weights_of, zero_biases
from dltips.tips.init.gain import squared_gain


@init
@card(
    when="nets of tanh or SELU units; of ReLUs only where batch norm or few layers forgive the halved variance",
    formula="std = 1 / sqrt(fan_in), biases 0; Var(s) = fan_in Var(w) Var(x)",
    source="tips K and S; LeCun et al. 1998, Efficient BackProp, section 4.6",
    recommends="N(0, 1) / sqrt(fan_in)",
    costs="nothing: once, before the first step",
)
@torch.no_grad()
def calibrated(
    model: nn.Module, generator_for: GeneratorFor, inputs: Tensor, *, distribution: Distribution, scale: NonNegative
) -> None:
    """std = 1 / sqrt(fan_in): the output's variance stays that of the input, without ReLU (LeCun et al. 1998)."""
    draw_by_fans(model, generator_for, lambda fan_in, fan_out: math.sqrt(1 / fan_in), distribution, scale)


@init
@card(
    when="deep nets of ReLUs and their like; with sigmoid or tanh xavier is the better one",
    formula="std = gain / sqrt(fan_in), gain = sqrt(2) for ReLU, else 1 / sqrt(E[f(z)^2]) with z ~ N(0, 1); biases 0",
    source="tips K, S and T; He et al. 2015, arXiv 1502.01852, equations 10 and 14",
    recommends="N(0, 1) * sqrt(2 / fan_in)",
    costs="nothing: once, before the first step",
    avoid={
        "activation=sigmoid": "the 2 makes up for the half that a ReLU takes; a sigmoid takes another share and"
        " saturates on what is too large; write init=xavier",
        "activation=tanh": "the 2 makes up for the half that a ReLU takes; a tanh takes less and saturates on what is"
        " too large; write init=xavier",
    },
)
@torch.no_grad()
def he(
    model: nn.Module,
    generator_for: GeneratorFor,
    inputs: Tensor,
    *,
    mode: Literal["fan_in", "fan_out"],
    distribution: Distribution,
    gain: Literal["relu", "activation"],
    scale: NonNegative,
) -> None:
    """Kaiming, for ReLU nets: std = sqrt(2 / fan_in) (He et al. 2015, arXiv 1502.01852).

    gain=activation puts the gain of the model's own activation in the place of ReLU's sqrt(2).
    """
    squared = squared_gain(gain, model)

    def std(fan_in: int, fan_out: int) -> float:
        return math.sqrt(squared / (fan_in if mode == "fan_in" else fan_out))

    draw_by_fans(model, generator_for, std, distribution, scale)


@init
@card(
    when="nets of tanh or sigmoid units, whose layers are wide; poor for deep nets of ReLUs",
    formula="std = sqrt(2 / (fan_in + fan_out)), uniform within sqrt(6 / (fan_in + fan_out)); biases 0",
    source="tips B and T; Glorot and Bengio 2010, equation 16",
    recommends="biases 0 (T); layers with many units (B)",
    costs="nothing: once, before the first step",
)
@torch.no_grad()
def xavier(
    model: nn.Module, generator_for: GeneratorFor, inputs: Tensor, *, distribution: Distribution, scale: NonNegative
) -> None:
    """Glorot, for tanh and sigmoid: std = sqrt(2 / (fan_in + fan_out)) (Glorot and Bengio 2010)."""
    draw_by_fans(model, generator_for, lambda fan_in, fan_out: _xavier(fan_in, fan_out), distribution, scale)


def _xavier(fan_in: int, fan_out: int) -> float:
    return math.sqrt(2 / (fan_in + fan_out))


@init
@card(
    when="to settle a quarrel: B's author holds that convolutions start best from a plain Gaussian and Xavier is hit or"
    " miss; a reader that deep nets need He or Xavier",
    formula="fully connected layers of at least min_units units sqrt(2 / (fan_in + fan_out)), all else N(0, std^2)",
    source="tip B; std as in Krizhevsky et al. 2012, section 5",
    recommends="Xavier on large fully connected layers alone; for the Gaussian it names no figure",
    costs="nothing: once, before the first step",
    try_with=("model=cnn",),
)
@torch.no_grad()
def xavier_fc_gaussian_conv(
    model: nn.Module,
    generator_for: GeneratorFor,
    inputs: Tensor,
    *,
    std: NonNegative,
    min_units: Size,
    distribution: Distribution,
    scale: NonNegative,
) -> None:
    """Xavier on large fully connected layers, a plain Gaussian on convolutions and small layers (tip B).

    min_units is the least number of outputs of a layer that counts as large; `distribution` is that of Xavier's part.
    A gate of a recurrent layer counts as a fully connected layer.
    """
    for weight in weights_of(model):
        generator = generator_for(weight.name)
        for matrix in weight.matrices:
            if weight.is_convolution or len(matrix) < min_units:
                values = draw(matrix.shape, scale * std, "normal", generator)
            else:
                values = draw(matrix.shape, scale * _xavier(*fans(matrix)), distribution, generator)
            matrix.copy_(values)
    zero_biases(model)
