"""Init schemes: `(model, generator_for, inputs, *, knobs) -> None`, once, before step 0. Biases 0.

`generator_for(name)` is a stream per parameter; `inputs` is one preprocessed batch, for schemes that look at data.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Generator, Tensor, nn

from dltips.net import weighted_layers
from dltips.registry import NonNegative, family

init = family("init")

GeneratorFor = Callable[[str], Generator]  # one stream per parameter name: a new layer moves no other layer's draw
Distribution = Literal["normal", "uniform"]


def fans(weight: Tensor) -> tuple[int, int]:
    """Inputs per unit and outputs per input: (fan_in, fan_out), the receptive field counted."""
    field = math.prod(weight.shape[2:])
    return weight.shape[1] * field, weight.shape[0] * field


def _draw(weight: Tensor, std: float, distribution: Distribution, generator: Generator) -> None:
    """Fill in place with zero-mean values of the given standard deviation; drawn on the CPU, the same on any device."""
    # contiguous, whatever the weight's own layout: the memory format must not move the draw
    values = torch.empty(weight.shape)
    if distribution == "normal":
        values.normal_(0.0, std, generator=generator) if std > 0 else values.zero_()
    else:
        values.uniform_(-math.sqrt(3) * std, math.sqrt(3) * std, generator=generator)
    weight.copy_(values)


@torch.no_grad()
def _by_fans(
    model: nn.Module,
    generator_for: GeneratorFor,
    std: Callable[[int, int], float],
    distribution: Distribution,
    scale: float,
) -> None:
    for name, layer in weighted_layers(model):
        weight = layer.get_parameter("weight")
        _draw(weight, scale * std(*fans(weight)), distribution, generator_for(f"{name}.weight"))
        if layer.bias is not None:
            layer.get_parameter("bias").zero_()


@init
def default(model: nn.Module, generator_for: GeneratorFor, inputs: Tensor) -> None:
    """PyTorch's own: uniform weights and biases within 1 / sqrt(fan_in)."""
    for name, module in model.named_modules():
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(generator_for(name).initial_seed())
                reset()


@init
def zeros(model: nn.Module, generator_for: GeneratorFor, inputs: Tensor) -> None:
    """Every weight 0: all units of a layer compute the same, and symmetry never breaks. The control."""
    _by_fans(model, generator_for, lambda fan_in, fan_out: 0.0, "normal", 1.0)


@init
def small_random(
    model: nn.Module,
    generator_for: GeneratorFor,
    inputs: Tensor,
    *,
    std: NonNegative,
    distribution: Distribution,
    scale: NonNegative,
) -> None:
    """std * N(0, 1), the same for every layer: works shallow, the signal dies with depth."""
    _by_fans(model, generator_for, lambda fan_in, fan_out: std, distribution, scale)


@init
def calibrated(
    model: nn.Module, generator_for: GeneratorFor, inputs: Tensor, *, distribution: Distribution, scale: NonNegative
) -> None:
    """std = 1 / sqrt(fan_in): the output's variance stays that of the input, without ReLU (LeCun et al. 1998)."""
    _by_fans(model, generator_for, lambda fan_in, fan_out: math.sqrt(1 / fan_in), distribution, scale)


@init
def he(
    model: nn.Module,
    generator_for: GeneratorFor,
    inputs: Tensor,
    *,
    mode: Literal["fan_in", "fan_out"],
    distribution: Distribution,
    scale: NonNegative,
) -> None:
    """Kaiming, for ReLU nets: std = sqrt(2 / fan_in) (He et al. 2015, arXiv 1502.01852)."""

    def std(fan_in: int, fan_out: int) -> float:
        return math.sqrt(2 / (fan_in if mode == "fan_in" else fan_out))

    _by_fans(model, generator_for, std, distribution, scale)


@init
def xavier(
    model: nn.Module, generator_for: GeneratorFor, inputs: Tensor, *, distribution: Distribution, scale: NonNegative
) -> None:
    """Glorot, for tanh and sigmoid: std = sqrt(2 / (fan_in + fan_out)) (Glorot and Bengio 2010)."""
    _by_fans(model, generator_for, lambda fan_in, fan_out: math.sqrt(2 / (fan_in + fan_out)), distribution, scale)
