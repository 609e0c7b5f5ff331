"""Augmentations of brightness and colour; fancy_pca and whiten learn from the training split first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated

import torch
from torch import Generator, Tensor
from torch.nn import functional

from dltips.catalog.cards import card
from dltips.catalog.registry import Bounds, Fraction, NonNegative, Positive, Size
from dltips.errors import ConfigError
from dltips.tips.augmentation.base import (
    Batch,
    Samples,
    augmentation,
    check_images,
    check_kernel_size,
    per_sample,
    uniform,
)

LUMINANCE = (0.2989, 0.587, 0.114)  # of red, green and blue (ITU-R BT.601), with torchvision's digits
CHUNK = 128  # training samples processed together: they fit a cache, half the time of 1024
PATCHES = 2**18  # patches of which whiten takes the covariance, at most
TINY = 1e-12  # a variance that counts as 0


@augmentation
@card(
    when="photographs under changing light; not where the colour is the class",
    formula="brightness: b x; contrast: c x + (1 - c) mean(gray(x)); saturation: s x + (1 - s) gray(x); hue: turned by"
    " h of a full circle in HSV; b, c and s uniform over 1 +- the knob, h over +- the knob; each result clamped to"
    " [0, 1] (torchvision's definitions)",
    source="tips S, B and T; Howard 2013, arXiv 1312.5402",
    recommends="in HSV, saturation and value to the power 0.25 to 4, times 0.7 to 1.4, plus 0.1 at most; hue within 0.1"
    " (part 1 of K; S names no figures)",
    costs="4 ms for 256 images of 3x32x32 on one core, most of it for the hue",
    try_with=("data=synthetic", "data.kind=image"),  # pictures in colour
)
def color_jitter(
    inputs: Tensor,
    targets: Tensor,
    generator: Generator,
    *,
    brightness: NonNegative,
    contrast: NonNegative,
    saturation: NonNegative,
    hue: Annotated[float, Bounds(least=0, most=0.5)],
) -> Batch:
    """Shift brightness, contrast, saturation and hue, in this order, each image by its own amounts.

    On images of one channel, which have no colour, brightness and contrast act alone. Raises ConfigError for any
    other number of channels than 1 and 3.
    """
    check_images("color_jitter", inputs)
    channels = inputs.shape[1]
    if channels not in (1, 3):
        raise ConfigError(
            f"augmentation: color_jitter takes images of 1 or 3 channels, not of {channels}; take contrast, which takes"
            " any"
        )
    if brightness:
        inputs = brightened(inputs, _factors(inputs, brightness, generator))
    if contrast:
        inputs = contrasted(inputs, _factors(inputs, contrast, generator))
    if saturation and channels == 3:
        inputs = saturated(inputs, _factors(inputs, saturation, generator))
    if hue and channels == 3:
        inputs = hue_turned(inputs, uniform(inputs, -hue, hue, generator))
    return inputs, targets


@augmentation
@card(
    when="images under changing light, of any number of channels",
    formula="clamp(c x + (1 - c) mean(gray(x)), 0, 1), c uniform over 1 - strength .. 1 + strength (torchvision's"
    " definition)",
    source="tip T; Howard 2013, arXiv 1312.5402",
    costs="0.3 ms for 256 images of 3x32x32 on one core",
)
def contrast(inputs: Tensor, targets: Tensor, generator: Generator, *, strength: NonNegative) -> Batch:
    """Pull each image's pixels towards its mean gray or push them away from it, by a factor of its own."""
    check_images("contrast", inputs)
    return contrasted(inputs, _factors(inputs, strength, generator)), targets


def _factors(images: Tensor, strength: float, generator: Generator) -> Tensor:
    return uniform(images, max(0.0, 1 - strength), 1 + strength, generator)


def gray(images: Tensor) -> Tensor:
    """Returns (N, ...) of (N, C, ...): the luminance of three channels, the mean of any other number."""
    if images.shape[1] != 3:
        return images.mean(1)
    red, green, blue = images.unbind(1)
    return (red * LUMINANCE[0]).add_(green, alpha=LUMINANCE[1]).add_(blue, alpha=LUMINANCE[2])


def brightened(images: Tensor, factors: Tensor) -> Tensor:
    """Returns each image times its own factor (N,), clamped to [0, 1]."""
    return (images * per_sample(factors, images)).clamp_(0, 1)


def contrasted(images: Tensor, factors: Tensor) -> Tensor:
    """Returns each image's difference from its mean gray times its own factor (N,), clamped to [0, 1]."""
    # the mean of the gray is the gray of the means; contiguous, so that the memory format does not order the sums
    middle = gray(images.contiguous().flatten(2).mean(2))
    return _pulled(images, per_sample(middle, images), factors)


def saturated(images: Tensor, factors: Tensor) -> Tensor:
    """Returns each pixel's difference from its own gray times the image's factor (N,), clamped to [0, 1]."""
    return _pulled(images, gray(images).unsqueeze(1), factors)


def _pulled(images: Tensor, middle: Tensor, factors: Tensor) -> Tensor:
    """Returns middle + factor (images - middle), with a middle that broadcasts, clamped to [0, 1]."""
    shares = per_sample(factors, images)
    # not torch.lerp, which takes three times as long if its start broadcasts
    return (images * shares).add_(middle * (1 - shares)).clamp_(0, 1)


def hue_turned(images: Tensor, turns: Tensor) -> Tensor:
    """Returns each image's hue, in HSV, moved by its own share of a full circle (N,)."""
    red, green, blue = images.unbind(1)
    largest = torch.maximum(red, green).maximum(blue)
    smallest = torch.minimum(red, green).minimum(blue)
    chroma = largest - smallest
    inverse = chroma.clamp(min=1e-8).reciprocal_()  # for a gray pixel any hue gives the same gray
    # the hue in sixths of the circle, measured from where the largest channel is alone; lerp by 0 or 1 is exact, and
    # takes a thirtieth of the time of torch.where
    hue = (red - green).mul_(inverse).add_(4)
    hue = hue.lerp_((blue - red).mul_(inverse).add_(2), (green == largest).to(images.dtype))
    hue = hue.lerp_((green - blue).mul_(inverse), (red == largest).to(images.dtype))
    hue = hue.add_(per_sample(6 * turns, hue))
    hue = hue.sub_((hue * (1 / 6)).floor_().mul_(6))
    # a channel is largest within a sixth of its own position, 0, 2 or 4, smallest from two sixths on
    turned = torch.empty_like(images)
    torch.addcmul(smallest, chroma, (hue - 3).abs_().sub_(1).clamp_(0, 1), out=turned[:, 0])
    torch.addcmul(smallest, chroma, (hue - 2).abs_().neg_().add_(2).clamp_(0, 1), out=turned[:, 1])
    torch.addcmul(smallest, chroma, (hue - 4).abs_().neg_().add_(2).clamp_(0, 1), out=turned[:, 2])
    return turned


@augmentation.named("fancy_pca")
@card(
    when="photographs: their light changes in brightness and colour, what they show does not",
    formula="clamp(x + sum_i alpha_i lambda_i p_i, 0, 1), alpha_i ~ N(0, std) per image; lambda_i and p_i of the"
    " covariance of the training split's pixels (red, green, blue) in [0, 1]",
    source="tip S; Krizhevsky et al. 2012, section 4.1",
    recommends="std = 0.1",
    costs="0.2 ms for 256 images of 3x32x32 on one core; once, a pass over the training split",
    try_with=("data=synthetic", "data.kind=image"),  # pictures in colour
)
class FancyPca:
    """Shift an image's colour along the principal components of the training split's pixels, as AlexNet did."""

    def __init__(self, samples: Samples, *, std: Positive) -> None:
        check_images("fancy_pca", samples.inputs)
        self.std = std
        _, covariance = pixel_moments(samples.inputs)
        values, vectors = torch.linalg.eigh(covariance)
        self.axes = vectors * values.clamp(min=0)  # (C, C), a column for each component

    def __call__(self, inputs: Tensor, targets: Tensor, generator: Generator) -> Batch:
        self.axes = self.axes.to(inputs)
        count, channels = inputs.shape[:2]
        drawn = torch.randn(count, channels, generator=generator, device=inputs.device, dtype=inputs.dtype)
        shifts = (drawn * self.std) @ self.axes.T
        return (inputs + shifts[:, :, None, None]).clamp_(0, 1), targets


def pixel_moments(images: Tensor) -> tuple[Tensor, Tensor]:
    """Returns mean (C,) and covariance (C, C) of the channels over all pixels, as doubles; uint8 counts as [0, 1]."""
    return moments(as_float(part).flatten(2) for part in torch.split(images, CHUNK))


def moments(parts: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Returns mean (F,) and covariance (F, F) of the columns of matrices (n, F, L), given in parts, as doubles."""
    count = 0
    totals = products = torch.zeros((), dtype=torch.float64)
    for part in parts:
        columns = len(part) * part.shape[2]
        sums = part.sum((0, 2), dtype=torch.float64)
        centred = part - (sums / columns).float()[:, None]
        # a float product per matrix, their sum in doubles: seven digits are kept
        products = products + torch.bmm(centred, centred.transpose(1, 2)).sum(0, dtype=torch.float64)
        products = products + torch.outer(sums, sums) / columns
        totals = totals + sums
        count += columns
    mean = totals / count
    return mean, products / count - torch.outer(mean, mean)


@augmentation.named("whiten")
@card(
    when="images whose neighbouring pixels say the same: whitened they show their edges",
    formula="(1 - s) x + s w(x), s uniform over 0 .. strength per image; w: each pixel's patch times the middle rows of"
    " (C + epsilon v I)^(-1/2), C the covariance of the training split's patches, v their mean variance; scaled to the"
    " training split's mean and standard deviation per channel, clamped to [0, 1]",
    source="tip B; Bell and Sejnowski 1997 (ZCA); Coates et al. 2011 (of patches)",
    costs="8 ms for 256 images of 3x32x32 on one core; once, the covariance of at most 262,144 patches",
)
class Whiten:
    """Blend each image with its ZCA-whitened version, by a share of its own; the filter is the training split's.

    ZCA whitening of patches rather than of whole images: it takes a convolution instead of a product with a matrix of
    all pixels, and a training split of a few hundred images instead of thousands.
    """

    def __init__(self, samples: Samples, *, strength: Fraction, kernel_size: Size, epsilon: Positive) -> None:
        check_images("whiten", samples.inputs)
        check_kernel_size("whiten.kernel_size", kernel_size, samples.inputs)
        self.strength = strength
        self.filter, self.bias = whitening_filter(samples.inputs, kernel_size, epsilon)

    def __call__(self, inputs: Tensor, targets: Tensor, generator: Generator) -> Batch:
        self.filter, self.bias = self.filter.to(inputs), self.bias.to(inputs)
        half = self.filter.shape[-1] // 2
        # contiguous, so that the memory format changes nothing
        padded = functional.pad(inputs.contiguous(), (half,) * 4, mode="reflect")
        whitened = functional.conv2d(padded, self.filter, self.bias)
        shares = uniform(inputs, 0, self.strength, generator)
        return whitened.lerp_(inputs, per_sample(1 - shares, inputs)).clamp_(0, 1), targets


def whitening_filter(images: Tensor, kernel_size: int, epsilon: float) -> tuple[Tensor, Tensor]:
    """Returns the filter (C, C, k, k) and bias (C,) that whiten patches and keep each channel's mean and spread."""
    channels, area = images.shape[1], kernel_size**2
    mean, covariance = moments(_patches(images, kernel_size))  # (C * k * k,) and its square
    values, vectors = torch.linalg.eigh(covariance)
    ridge = epsilon * values.mean().clamp(min=TINY)
    whitening = vectors * (values.clamp(min=0) + ridge).rsqrt() @ vectors.T
    middle = whitening[area // 2 :: area]  # the rows of the middle pixel, one for each channel
    spread = covariance.diagonal()[area // 2 :: area].clamp(min=0).sqrt()
    whitened_spread = (middle @ covariance * middle).sum(1).clamp(min=TINY).sqrt()
    middle = middle * (spread / whitened_spread)[:, None]
    bias = mean[area // 2 :: area] - middle @ mean
    return middle.reshape(channels, channels, kernel_size, kernel_size).float(), bias.float()


def _patches(images: Tensor, kernel_size: int) -> Iterator[Tensor]:
    """Yields patches (n, C * k * k, L) of evenly spaced images, half a kernel apart; PATCHES or one image's at most."""
    stride = max(1, kernel_size // 2)
    height, width = ((side - kernel_size) // stride + 1 for side in images.shape[2:])
    count = min(len(images), max(1, PATCHES // (height * width)))
    for chosen in torch.split(torch.linspace(0, len(images) - 1, count).long(), CHUNK // 4):
        yield functional.unfold(as_float(images[chosen]), kernel_size, stride=stride)


def as_float(images: Tensor) -> Tensor:
    """Scales uint8 to [0, 1]."""
    return images.float().div_(255) if images.dtype == torch.uint8 else images
