"""Augmentations that spoil an image: noise, blur, and parts that are missing."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor
from torch.nn import functional

from dltips.catalog.cards import card
from dltips.catalog.registry import Fraction, Positive, Size
from dltips.tips.augmentation.base import (
    Batch,
    augmentation,
    box_masks,
    check_images,
    check_kernel_size,
    check_range,
    per_sample,
    uniform,
)


@augmentation
@card(
    when="few samples, or inputs that will be noisy; too much of it hides what the class hangs on",
    formula="clamp(x + N(0, std), 0, 1), drawn per pixel and channel, x in [0, 1]",
    source="tips B and T; Bishop 1995, Training with noise is equivalent to Tikhonov regularization",
    costs="3 ms for 256 images of 3x32x32 on one core, nearly all of it for the draws",
)
def noise(inputs: Tensor, targets: Tensor, generator: Generator, *, std: Positive) -> Batch:
    """Add Gaussian noise to every value of an image."""
    check_images("noise", inputs)
    drawn = torch.randn(inputs.shape, generator=generator, device=inputs.device, dtype=inputs.dtype)
    return drawn.mul_(std).add_(inputs).clamp_(0, 1), targets


@augmentation
@card(
    when="images that will come unsharp or from another camera; not where the class lies in the texture",
    formula="x * g, g(d) = exp(-d^2 / (2 sigma^2)) / sum over |d| <= kernel_size / 2, in both directions;"
    " sigma uniform over its range",
    source="tip B; Chen et al. 2020, arXiv 2002.05709 (SimCLR)",
    recommends="SimCLR: sigma from 0.1 to 2, the kernel a tenth of the side",
    costs="2 ms for 256 images of 3x32x32 on one core, with a kernel of 5",
)
def blur(
    inputs: Tensor, targets: Tensor, generator: Generator, *, kernel_size: Size, sigma: tuple[Positive, ...]
) -> Batch:
    """Blur by a Gaussian whose width each image draws from a range; the border mirrors the image."""
    check_images("blur", inputs)
    check_kernel_size("blur.kernel_size", kernel_size, inputs)
    smallest, largest = check_range("blur.sigma", sigma)
    return blurred(inputs, uniform(inputs, smallest, largest, generator), kernel_size), targets


def blurred(images: Tensor, sigma: Tensor, kernel_size: int) -> Tensor:
    """Returns each image blurred by its own sigma, in pixels (N,)."""
    half = kernel_size // 2
    distances = torch.arange(half + 1, device=images.device, dtype=images.dtype)
    weights = torch.exp(-0.5 * (distances / sigma[:, None]).square())  # (N, half + 1)
    weights = weights / (2 * weights.sum(1, keepdim=True) - 1)  # the middle counts once, the others twice
    blurry = functional.pad(images, (half,) * 4, mode="reflect")
    for dimension in (2, 3):
        blurry = _weighted_neighbours(blurry, weights, dimension)
    return blurry


def _weighted_neighbours(padded: Tensor, weights: Tensor, dimension: int) -> Tensor:
    """Shrinks the padded side to its own length, by sums of shifted images: faster than a convolution per sample."""
    half = weights.shape[1] - 1
    length = padded.shape[dimension] - 2 * half
    total = padded.narrow(dimension, half, length) * per_sample(weights[:, 0], padded)
    for distance in range(1, half + 1):
        before = padded.narrow(dimension, half - distance, length)
        after = padded.narrow(dimension, half + distance, length)
        total.add_((before + after).mul_(per_sample(weights[:, distance], padded)))
    return total


@augmentation
@card(
    when="inputs with gaps; a net that leans on a few pixels",
    formula="x * Bernoulli(1 - p), drawn per pixel for all its channels",
    source="tip B; Vincent et al. 2008 (masking noise of denoising autoencoders)",
    costs="1 ms for 256 images of 3x32x32 on one core",
)
def drop_pixels(inputs: Tensor, targets: Tensor, generator: Generator, *, p: Fraction) -> Batch:
    """Blacken each pixel, with all its channels, with probability p."""
    check_images("drop_pixels", inputs)
    count, _, height, width = inputs.shape
    drawn = torch.rand((count, 1, height, width), generator=generator, device=inputs.device, dtype=inputs.dtype)
    return inputs * drawn.ge_(p), targets


@augmentation
@card(
    when="objects that may be half hidden; small images, beside flip and crop",
    formula="0 in a rectangle of share `scale` of the area and height / width `ratio`, uniform and log-uniform, with"
    " probability p",
    source="Zhong et al. 2017, arXiv 1708.04896 (random erasing); DeVries and Taylor 2017, arXiv 1708.04552 (cutout)",
    recommends="p = 0.5, scale 0.02 to 0.4, ratio 0.3 to 3.3",
    costs="0.5 ms for 256 images of 3x32x32 on one core",
)
def erase(
    inputs: Tensor,
    targets: Tensor,
    generator: Generator,
    *,
    p: Fraction,
    scale: tuple[Fraction, ...],
    ratio: tuple[Positive, ...],
) -> Batch:
    """Blacken one random rectangle of an image, with probability p. A side longer than the image's is cut to it."""
    check_images("erase", inputs)
    smallest, largest = check_range("erase.scale", scale)
    flattest, tallest = (math.log(end) for end in check_range("erase.ratio", ratio))
    height, width = inputs.shape[2:]
    area = uniform(inputs, smallest, largest, generator) * (height * width)
    stretch = uniform(inputs, flattest, tallest, generator).exp_()
    tall = (area * stretch).sqrt_().round_().clamp_(1, height)
    wide = (area / stretch).sqrt_().round_().clamp_(1, width)
    # every position inside is equally likely
    top = (uniform(inputs, 0, 1, generator) * (height - tall + 1)).floor_()
    left = (uniform(inputs, 0, 1, generator) * (width - wide + 1)).floor_()
    tall = tall * (uniform(inputs, 0, 1, generator) < p)  # empty for images that stay unchanged
    return inputs * (1 - box_masks(top, top + tall, left, left + wide, inputs)), targets
