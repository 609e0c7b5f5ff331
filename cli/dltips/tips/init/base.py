"""What the init schemes share: the weights to set, their fans, and the draw."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor, nn

from dltips.catalog.registry import family
from dltips.nets.flat import weighted_layers

init = family("init")

GeneratorFor = Callable[[str], Generator]  # one stream per parameter name: a new layer moves no other layer's draw
Distribution = Literal["normal", "uniform"]
GATES = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1, "RNN_RELU": 1}


@dataclass(frozen=True)
class Weight:
    """One weight of a model, as the matrices that it consists of."""

    name: str  # the parameter's, which keys its random stream
    matrices: tuple[Tensor, ...]  # views, (units, inputs, *receptive field); a recurrent layer has one for each gate
    groups: int = 1  # of a convolution: its matrix is that many smaller ones, each with inputs of its own

    @property
    def is_convolution(self) -> bool:
        return self.matrices[0].dim() > 2


def weights_of(model: nn.Module) -> list[Weight]:
    """Returns every weight that a scheme sets, in the order of definition: linear, convolutional, recurrent layers."""
    layers = dict(weighted_layers(model))
    found = []
    for name, module in model.named_modules():
        if name in layers:
            matrix = module.get_parameter("weight").data
            found.append(Weight(f"{name}.weight", (matrix,), getattr(module, "groups", 1)))
        elif isinstance(module, nn.RNNBase):
            for key, parameter in module.named_parameters(recurse=False):
                if key.startswith("weight_hr"):  # the projection of an LSTM with proj_size
                    found.append(Weight(f"{name}.{key}", (parameter.data,)))
                elif key.startswith("weight"):
                    found.append(Weight(f"{name}.{key}", parameter.data.chunk(GATES[module.mode])))
    return found


def zero_biases(model: nn.Module) -> None:
    """Zeroes the biases of the layers whose weights a scheme sets."""
    for _, layer in weighted_layers(model):
        if layer.bias is not None:
            layer.get_parameter("bias").data.zero_()
    for module in model.modules():
        if isinstance(module, nn.RNNBase):
            for key, parameter in module.named_parameters(recurse=False):
                if key.startswith("bias"):
                    parameter.data.zero_()


def fans(matrix: Tensor) -> tuple[int, int]:
    """Returns (fan_in, fan_out): inputs per unit and outputs per input, the receptive field counted."""
    field = math.prod(matrix.shape[2:])
    return matrix.shape[1] * field, matrix.shape[0] * field


def draw(shape: torch.Size, std: float, distribution: Distribution, generator: Generator) -> Tensor:
    """Returns zero-mean values of the given standard deviation; drawn on the CPU, the same for any device.

    Contiguous, whatever the weight's layout: the memory format must not change the draw.
    """
    values = torch.empty(shape)
    if distribution == "uniform":
        return values.uniform_(-math.sqrt(3) * std, math.sqrt(3) * std, generator=generator)
    return values.normal_(0.0, std, generator=generator) if std > 0 else values.zero_()


def by_fans(
    model: nn.Module,
    generator_for: GeneratorFor,
    std: Callable[[int, int], float],
    distribution: Distribution,
    scale: float,
) -> None:
    """Draws each matrix with the standard deviation that its fans give, times `scale`; zeroes biases."""
    for weight in weights_of(model):
        generator = generator_for(weight.name)
        for matrix in weight.matrices:
            matrix.copy_(draw(matrix.shape, scale * std(*fans(matrix)), distribution, generator))
    zero_biases(model)
