"""Preprocessing: `(train_inputs, *, knobs) -> nn.Module`, fitted on the training split, saved with the checkpoint.

It sees batches as floats: images in [0, 1], vectors as they are.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dltips.registry import Positive, family

preprocessing = family("preprocessing")


class Affine(nn.Module):
    """(inputs - shift) / scale, with the statistics as buffers that broadcast over a batch."""

    shift: Tensor
    scale: Tensor

    def __init__(self, shift: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("shift", shift.float())
        self.register_buffer("scale", scale.float())

    def forward(self, inputs: Tensor) -> Tensor:
        return (inputs - self.shift) / self.scale


@preprocessing
def none(train_inputs: Tensor) -> nn.Module:
    """The data set's raw values, 0..255 for images: unstable and slow. The control for the others."""
    return Affine(torch.zeros(()), torch.tensor(1 / 255 if train_inputs.dtype == torch.uint8 else 1.0))


@preprocessing
def standardize(train_inputs: Tensor, *, epsilon: Positive) -> nn.Module:
    """Subtract the mean, divide by the standard deviation: per channel for images, per feature for vectors."""
    mean, variance = mean_and_variance(train_inputs)
    return Affine(mean, variance.sqrt() + epsilon)


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
