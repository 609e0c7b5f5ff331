"""Schemes that start from orthonormal rows or columns, or from the identity."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Generator, Tensor, nn

from dltips.catalog.cards import card
from dltips.catalog.registry import NonNegative, Positive, Size
from dltips.errors import ConfigError
from dltips.nets.flat import weighted_layers
from dltips.tips.init.base import GeneratorFor, draw, fans, init, weights_of, zero_biases
from dltips.tips.init.gain import squared_gain

Gain = Positive | Literal["relu", "activation"]


def _orthonormal(shape: torch.Size, generator: Generator) -> Tensor:
    """Returns a random matrix with orthonormal rows, or columns if there are fewer of them; uniform over all such.

    The Q of a Gaussian matrix's QR, each column times the sign of R's diagonal (Mezzadri 2007, math-ph/0609050).
    """
    return nn.init.orthogonal_(torch.empty(shape), generator=generator)


def _orthogonal(model: nn.Module, generator_for: GeneratorFor, factor: float) -> None:
    for weight in weights_of(model):
        generator = generator_for(weight.name)
        for matrix in weight.matrices:
            for part in matrix.chunk(weight.groups):
                flat = _orthonormal(part.flatten(1).shape, generator)
                part.copy_(factor * flat.reshape(part.shape))
    zero_biases(model)


@init
@card(
    when="deep nets of any kind, recurrent ones above all: no direction of the signal is stretched or lost at first",
    formula="W W^T = gain^2 I for at most fan_in units, else W^T W = gain^2 I; biases 0",
    source="Saxe et al. 2014, arXiv 1312.6120",
    recommends="gain 1 for linear nets; slightly above 1 for tanh",
    costs="a QR of each weight, once: 0.05 s at 1,000 x 1,000, 3 s at 4,096 x 4,096 on one core",
)
@torch.no_grad()
def orthogonal(
    model: nn.Module, generator_for: GeneratorFor, inputs: Tensor, *, gain: Gain, scale: NonNegative
) -> None:
    """Random orthonormal rows (or columns): each layer turns the signal and keeps its length (Saxe et al. 2014).

    gain: a number; relu, which is sqrt(2); or activation, the gain of the model's own. A convolution's filters are the
    rows, group by group; each gate of a recurrent layer is a matrix of its own.
    """
    _orthogonal(model, generator_for, scale * math.sqrt(squared_gain(gain, model)))


@init
@card(
    when="any activation, deep or odd nets: the batch tells what no formula knows, such as pools, joins and skips",
    formula="orthonormal W, then layer by layer W / std(outputs on a batch) until |variance - 1| < tolerance; biases 0",
    source="Mishkin and Matas 2016, arXiv 1511.06422",
    recommends="tolerance 0.1 and 10 iterations in the authors' own code for PyTorch",
    costs="a QR of each weight and one forward pass, once",
)
@torch.no_grad()
def lsuv(
    model: nn.Module,
    generator_for: GeneratorFor,
    inputs: Tensor,
    *,
    tolerance: Positive,
    max_iterations: Size,
    scale: NonNegative,
) -> None:
    """Layer-sequential unit variance: orthonormal, then each layer divided by its output's std (Mishkin, Matas 2016).

    One pass in the order of execution: a layer's output is rescaled with its weight before the next one sees it. A
    layer that runs several times is set by its first run. Recurrent layers, bounded by their gates, stay orthonormal.
    Raises ConfigError if a layer's output does not vary.
    """
    _orthogonal(model, generator_for, 1.0)
    layers, done = weighted_layers(model), set[nn.Module]()

    def rescale(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def hook(layer: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> Tensor:
            if layer in done:
                return output
            done.add(layer)
            for _ in range(max_iterations):
                variance = float(output.double().var(correction=0))
                if abs(variance - 1) < tolerance:
                    break
                if not 1e-30 < variance < math.inf:
                    raise ConfigError(
                        f"init: lsuv divides by the spread of each layer's outputs, which at {name or 'the model'} is"
                        f" {math.sqrt(variance):g} on the first batch; take another init scheme"
                    )
                layer.get_parameter("weight").div_(math.sqrt(variance))
                output = layer.forward(*arguments)
            return output

        return hook

    handles = [layer.register_forward_hook(rescale(name)) for name, layer in layers]
    try:
        with _as_at_the_first_step(model):
            model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    if scale != 1:
        for weight in weights_of(model):
            for matrix in weight.matrices:
                matrix.mul_(scale)


@contextmanager
def _as_at_the_first_step(model: nn.Module) -> Iterator[None]:
    """Makes batch norms use the batch and keep their running statistics; disables dropout and random draws."""
    modes = {module: module.training for module in model.modules()}
    norms = [module for module in modes if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    tracking = {norm: norm.track_running_stats for norm in norms}
    model.eval()
    try:
        for norm in norms:
            norm.training, norm.track_running_stats = True, False
        yield
    finally:
        for norm, tracks in tracking.items():
            norm.track_running_stats = tracks
        for module, training in modes.items():
            module.training = training


@init
@card(
    when="very deep convolutional nets without batch norm or skips; the paper trains 10,000 layers of tanh with it",
    formula="W[:, :, centre] = gain * H with H^T H = I, all else 0; biases 0",
    source="Xiao et al. 2018, arXiv 1806.05393",
    costs="a QR for each layer, once; with as many outputs as inputs a layer at first mixes channels and no pixels",
    try_with=("model=cnn",),
)
@torch.no_grad()
def delta_orthogonal(
    model: nn.Module, generator_for: GeneratorFor, inputs: Tensor, *, gain: Gain, scale: NonNegative
) -> None:
    """Convolutions that start as an orthogonal mix of channels at the kernel's centre (Xiao et al. 2018).

    It keeps each pixel's length where outputs are at least as many as inputs; where they are fewer, which the paper
    leaves out, the rows are orthonormal: a projection. Linear layers and gates are orthogonal.
    """
    factor = scale * math.sqrt(squared_gain(gain, model))
    for weight in weights_of(model):
        generator = generator_for(weight.name)
        for matrix in weight.matrices:
            for part in matrix.chunk(weight.groups):
                part.zero_()
                centre = part
                for side in part.shape[2:]:
                    centre = centre.select(2, side // 2)
                centre.copy_(factor * _orthonormal(centre.shape, generator))
    zero_biases(model)


@init
@card(
    when="convolutional nets that should be trained in seconds: the image passes the first steps undistorted",
    formula="W[i, i, centre] = 1, all else 0, for the first fan_in channels; the rest uniform within 1 / sqrt(fan_in),"
    " or He's N(0, 2 / fan_in); biases 0",
    source="Jordan 2024, arXiv 2404.00498; Zagoruyko and Komodakis 2017, arXiv 1706.00388",
    recommends="the identity for the first channels, the library's default for the rest",
    costs="nothing: once, before the first step",
    avoid={"model=mlp": "it has no convolution whose channels could pass; write model=cnn"},
    try_with=("model=cnn",),
)
@torch.no_grad()
def dirac(
    model: nn.Module,
    generator_for: GeneratorFor,
    inputs: Tensor,
    *,
    rest: Literal["default", "he"],
    scale: NonNegative,
) -> None:
    """Convolutions that hand their first channels on unchanged, the others random (as in airbench, Jordan 2024).

    A convolution of n inputs per group is the identity on its first n outputs (fewer, if it has fewer). What has no
    such place, further outputs and other layers, is drawn as `rest` says.
    """
    for weight in weights_of(model):
        generator = generator_for(weight.name)
        for matrix in weight.matrices:
            fan_in, _ = fans(matrix)
            drawn: tuple[float, Any] = (
                (math.sqrt(2 / fan_in), "normal") if rest == "he" else (math.sqrt(1 / (3 * fan_in)), "uniform")
            )
            matrix.copy_(draw(matrix.shape, drawn[0], drawn[1], generator))
            if weight.is_convolution:
                for part in matrix.chunk(weight.groups):
                    nn.init.dirac_(part[: part.shape[1]])
            matrix.mul_(scale)
    zero_biases(model)
