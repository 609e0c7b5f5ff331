"""Shifting, scaling and clipping: per channel for images and waveforms, per feature for vectors."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn

from dltips.catalog.cards import card
from dltips.catalog.registry import Bounds, Positive
from dltips.errors import ConfigError
from dltips.tips.preprocessing.base import Step, preprocessing

Percent = Annotated[float, Bounds(least=0, most=100)]

LEVELS = 256  # of uint8


class Affine(Step):
    """(inputs - shift) / scale, with statistics that broadcast over a batch."""

    shift: Tensor
    scale: Tensor

    def forward(self, inputs: Tensor) -> Tensor:
        return (inputs - self.shift) / self.scale


class Clip(Step):
    """Values between `low` and `high`, which broadcast over a batch."""

    low: Tensor
    high: Tensor

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.clamp(inputs, self.low, self.high)


@preprocessing
@card(
    when="as the control for the others",
    formula="x, images as 0 .. 255",
    source="tip T",
    costs="training that is unstable and slow",
)
def none(train_inputs: Tensor) -> nn.Module:
    """The data set's raw values, 0..255 for images: unstable and slow. The control for the others."""
    return Affine(shift=torch.zeros(()), scale=torch.tensor(1 / 255 if train_inputs.dtype == torch.uint8 else 1.0))


@preprocessing
@card(
    when="always a good start: nets learn faster and more stably than from raw values",
    formula="(x - mean) / (std + epsilon)",
    source="tips S and B (its author's reply; the article prefers -1 to +1); LeCun et al. 1998, Efficient BackProp,"
    " section 4.3",
    recommends="the training set's statistics alone",
    costs="one pass over the training split, one operation per value",
)
def standardize(train_inputs: Tensor, *, epsilon: Positive) -> nn.Module:
    """Subtract the mean, divide by the standard deviation: per channel for images, per feature for vectors.

    A feature that never varies in the training split is not divided: a value that it has elsewhere, of a rare category
    say, would else become 1 / epsilon.
    """
    mean, variance = mean_and_variance(train_inputs)
    # the rounding of a constant: a relative error of a double's last digit
    varies = variance > (1e-12 * mean).square()
    return Affine(shift=mean, scale=torch.where(varies, variance.sqrt() + epsilon, 1.0))


@preprocessing
@card(
    when="bounded values, without outliers: one of them squeezes all the others together",
    formula="(x - min) / (max - min)",
    source="tip T",
    recommends="[0, 1]",
    costs="one pass over the training split, one operation per value; inputs are not zero-centred",
)
def min_max(train_inputs: Tensor) -> nn.Module:
    """Scale to [0, 1] by the training split's extremes: per channel for images, per feature for vectors.

    What lies outside the training split's range lands outside [0, 1]; a feature that never varies becomes 0.
    """
    low, high = _extremes(train_inputs)
    return Affine(shift=low, scale=_or_one(high - low))


@preprocessing
@card(
    when="bounded values, in the place of standardize",
    formula="2 (x - min) / (max - min) - 1",
    source="tip B",
    recommends="[-1, +1], rather than removing the mean",
    costs="one pass over the training split, one operation per value",
)
def minus_one_one(train_inputs: Tensor) -> nn.Module:
    """Squeeze into [-1, 1] by the training split's extremes: per channel for images, per feature for vectors.

    What lies outside the training split's range lands outside [-1, 1]; a feature that never varies becomes 0.
    """
    low, high = _extremes(train_inputs)
    return Affine(shift=low / 2 + high / 2, scale=_or_one(high / 2 - low / 2))


@preprocessing
@card(
    when="features with gross outliers; otherwise the tails are information, and to clip them costs accuracy",
    formula="(clip(x, P_low, P_high) - mean) / (std + epsilon), mean and std of the clipped values",
    source="tip B: its author's reply, which drops the tails and calls that a performance killer in deep learning",
    recommends="5 % at either end",
    costs="a sort of the training split, two operations per value",
)
def robust(train_inputs: Tensor, *, low: Percent, high: Percent, epsilon: Positive) -> nn.Module:
    """Clip to two percentiles of the training split, then standardize: per channel or feature, against outliers."""
    if low >= high:
        raise ConfigError(f"preprocessing.low: {low:g} is not below preprocessing.high, {high:g}; take less")
    if train_inputs.dtype == torch.uint8:
        counts = _histogram(train_inputs)
        limits = [_percentile(counts, percent) / (LEVELS - 1) for percent in (low, high)]
        clip = _clip(limits, train_inputs)
        levels = (torch.arange(LEVELS) / (LEVELS - 1)).expand_as(counts)
        clipped = levels.clamp(clip.low.reshape(-1, 1), clip.high.reshape(-1, 1)).double()
        shares = counts / counts.sum(1, keepdim=True)
        mean = (shares * clipped).sum(1, keepdim=True)
        variance = (shares * (clipped - mean).square()).sum(1)
        mean, variance = (each.reshape(clip.low.shape) for each in (mean, variance))
    else:
        import numpy

        values = train_inputs.transpose(0, 1).flatten(1).numpy()  # (C, N * ...)
        # torch.quantile takes 16 million values at most
        limits = [torch.from_numpy(each) for each in numpy.percentile(values, [low, high], axis=1)]
        clip = _clip(limits, train_inputs)
        mean, variance = mean_and_variance(clip(train_inputs))
    return nn.Sequential(clip, Affine(shift=mean, scale=variance.sqrt() + epsilon))


def _clip(limits: list[Tensor], inputs: Tensor) -> Clip:
    low, high = (each.reshape(_broadcast(inputs)) for each in limits)
    return Clip(low=low, high=high)


def _broadcast(inputs: Tensor) -> tuple[int, ...]:
    return (inputs.shape[1],) + (1,) * (inputs.dim() - 2)


def _or_one(scale: Tensor) -> Tensor:
    return torch.where(scale > 0, scale, torch.ones_like(scale))


def _extremes(inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the smallest and largest value per channel or feature, uint8 as [0, 1], in the bits of a batch."""
    low, high = (each(inputs, [0, *range(2, inputs.dim())]).float() for each in (torch.amin, torch.amax))
    factor = LEVELS - 1 if inputs.dtype == torch.uint8 else 1
    return (low / factor).reshape(_broadcast(inputs)), (high / factor).reshape(_broadcast(inputs))


def _histogram(images: Tensor, chunk: int = 1024) -> Tensor:
    """Returns how often each level occurs, per channel: (C, 256), exact."""
    counts = torch.zeros(images.shape[1], LEVELS, dtype=torch.int64)
    for start in range(0, len(images), chunk):
        for channel, values in enumerate(images[start : start + chunk].transpose(0, 1)):
            counts[channel] += torch.bincount(values.flatten(), minlength=LEVELS)
    return counts


def _percentile(counts: Tensor, percent: float) -> Tensor:
    """Returns a percentile of a histogram's values, interpolated linearly as numpy.percentile does: (C,)."""
    cumulated = counts.cumsum(1)
    place = (int(cumulated[0, -1]) - 1) * percent / 100
    ranks = [torch.full((len(counts), 1), int(place) + step).clamp(max=int(cumulated[0, -1]) - 1) for step in (0, 1)]
    lower, upper = (torch.searchsorted(cumulated, rank, right=True).squeeze(1).double() for rank in ranks)
    return lower + (upper - lower) * (place - int(place))


def mean_and_variance(inputs: Tensor, chunk: int = 4096) -> tuple[Tensor, Tensor]:
    """Returns both per channel (N, C, H, W) or feature (N, F), as doubles, uint8 as [0, 1]; shaped to broadcast."""
    dims = [0, *range(2, inputs.dim())]
    shape = (inputs.shape[1],) + (1,) * (inputs.dim() - 2)
    count = inputs.numel() // inputs.shape[1]
    parts = [inputs[start : start + chunk] for start in range(0, len(inputs), chunk)]
    if inputs.dtype == torch.uint8:
        # exact: integers, counted per channel; a double holds every sum
        total = torch.stack([part.sum(dims, dtype=torch.int64) for part in parts]).sum(0).double()
        squares = torch.stack([part.float().square_().sum(dims, dtype=torch.float64) for part in parts]).sum(0)
        mean = total / count / 255
        variance = squares / count / 255**2 - mean.square()
    else:
        mean = torch.stack([part.sum(dims, dtype=torch.float64) for part in parts]).sum(0) / count
        centre = mean.reshape(shape)
        variance = torch.stack([(part.double() - centre).square().sum(dims) for part in parts]).sum(0) / count
    return mean.reshape(shape), variance.clamp(min=0).reshape(shape)
