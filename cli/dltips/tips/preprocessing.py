"""Preprocessing: `(train_inputs, *, knobs) -> nn.Module`, fitted on the training split, saved with the checkpoint.

It sees batches as floats: images in [0, 1], vectors and waveforms as they are. What is fitted is a Step, or an
nn.Sequential of Steps; each is made from its statistics alone, so that a checkpoint can hold it.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from dltips.registry import ConfigError, Positive, family, suggest

preprocessing = family("preprocessing")


class Step(nn.Module):
    """One fitted step: made from tensors alone, its buffers, by which a checkpoint saves it and makes it again."""

    kinds: ClassVar[dict[str, type[Step]]] = {}

    def __init_subclass__(cls) -> None:
        Step.kinds[cls.__name__] = cls

    def __init__(self, **buffers: Tensor) -> None:
        super().__init__()
        for name, value in buffers.items():
            self.register_buffer(name, value.float())


class Affine(Step):
    """(inputs - shift) / scale, with statistics that broadcast over a batch."""

    shift: Tensor
    scale: Tensor

    def forward(self, inputs: Tensor) -> Tensor:
        return (inputs - self.shift) / self.scale


class Fill(Step):
    """What is missing (NaN) becomes `value`: the mean of the training split, per feature."""

    value: Tensor

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.where(inputs.isnan(), self.value, inputs)


Saved = list[tuple[str, dict[str, Tensor]]]


def save(module: nn.Module) -> Saved:
    """The steps of a fitted preprocessing, one or an nn.Sequential of them, as plain tensors."""
    steps = list(module) if isinstance(module, nn.Sequential) else [module]
    for step in steps:
        if not isinstance(step, Step):
            raise ConfigError(
                f"preprocessing: {type(step).__name__} is no Step, so that no checkpoint could hold it; derive it from"
                " dltips.tips.preprocessing.Step"
            )
    return [(type(step).__name__, dict(step.named_buffers())) for step in steps]


def restore(saved: Saved) -> nn.Module:
    """The preprocessing that was saved. Errors: ConfigError for a step that nobody has defined."""
    for kind, _ in saved:
        if kind not in Step.kinds:
            raise ConfigError(f"preprocessing: the checkpoint has a step {kind!r}{suggest(kind, Step.kinds)}")
    steps = [Step.kinds[kind](**buffers) for kind, buffers in saved]
    return steps[0] if len(steps) == 1 else nn.Sequential(*steps)


@preprocessing
def none(train_inputs: Tensor) -> nn.Module:
    """The data set's raw values, 0..255 for images: unstable and slow. The control for the others."""
    return Affine(shift=torch.zeros(()), scale=torch.tensor(1 / 255 if train_inputs.dtype == torch.uint8 else 1.0))


@preprocessing
def standardize(train_inputs: Tensor, *, epsilon: Positive) -> nn.Module:
    """Subtract the mean, divide by the standard deviation: per channel for images, per feature for vectors."""
    mean, variance = mean_and_variance(train_inputs)
    return Affine(shift=mean, scale=variance.sqrt() + epsilon)


def mean_and_variance(inputs: Tensor, chunk: int = 4096) -> tuple[Tensor, Tensor]:
    """Per channel (N, C, H, W) or feature (N, F), in double precision, uint8 as [0, 1]; shaped to broadcast."""
    dims = [0, *range(2, inputs.dim())]
    shape = (inputs.shape[1],) + (1,) * (inputs.dim() - 2)
    count = inputs.numel() // inputs.shape[1]
    parts = [inputs[start : start + chunk] for start in range(0, len(inputs), chunk)]
    if inputs.dtype == torch.uint8:
        # exact: whole numbers, counted per channel; a double holds every sum
        total = torch.stack([part.sum(dims, dtype=torch.int64) for part in parts]).sum(0).double()
        squares = torch.stack([part.float().square_().sum(dims, dtype=torch.float64) for part in parts]).sum(0)
        mean = total / count / 255
        variance = squares / count / 255**2 - mean.square()
    else:
        mean = torch.stack([part.sum(dims, dtype=torch.float64) for part in parts]).sum(0) / count
        centre = mean.reshape(shape)
        variance = torch.stack([(part.double() - centre).square().sum(dims) for part in parts]).sum(0) / count
    return mean.reshape(shape), variance.clamp(min=0).reshape(shape)
