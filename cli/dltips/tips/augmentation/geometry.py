"""Augmentations that move pixels."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Generator, Tensor
from torch.nn import functional

from dltips.catalog.cards import card
from dltips.catalog.registry import Bounds, Fraction, Size
from dltips.errors import ConfigError
from dltips.tips.augmentation.base import Batch, augmentation, check_images, per_sample, uniform


@augmentation
@card(
    when="scenes and objects, whose mirror image is of the same class; not digits and letters",
    formula="x[..., ::-1] with probability p",
    source="tips S and T; Krizhevsky et al. 2012",
    recommends="p = 0.5",
    costs="0.3 ms for 256 images of 3x32x32 on one core",
)
def flip(inputs: Tensor, targets: Tensor, generator: Generator, *, p: Fraction) -> Batch:
    """Mirror images left to right with probability p. For scenes and objects; not for digits and letters."""
    check_images("flip", inputs)
    upright = uniform(inputs, 0, 1, generator).ge_(p)
    # lerp towards the mirrored copy, exact for 0 and 1: a third of the time of torch.where with a mask per sample
    return inputs.flip(-1).lerp_(inputs, per_sample(upright, inputs)), targets


@augmentation
@card(
    when="images whose object need not stand in the middle",
    formula="pad(x, padding)[dy : dy + H, dx : dx + W], dy and dx uniform over 0 .. 2 padding",
    source="tips S and T; He et al. 2015, arXiv 1512.03385, section 4.2",
    recommends="padding = 4 on 32x32",
    costs="1 ms for 256 images of 3x32x32 on one core",
)
def crop(inputs: Tensor, targets: Tensor, generator: Generator, *, padding: Size) -> Batch:
    """Pad with black on all sides, then cut the original size at a random place: a shift by up to `padding` pixels."""
    check_images("crop", inputs)
    count, _, height, width = inputs.shape
    if padding >= min(height, width):
        raise ConfigError(
            f"augmentation.crop.padding: {padding} could push all of a {height}x{width} image out of sight;"
            f" take less than {min(height, width)}"
        )
    shifts = torch.randint(0, 2 * padding + 1, (2, count), generator=generator, device=inputs.device)
    padded = functional.pad(inputs, (padding,) * 4)
    # a view of all possible crops; indexing it copies the chosen ones, each a block: 3x the speed of a gather by pixel
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # (N, C, 2p+1, 2p+1, H, W)
    samples = torch.arange(count, device=inputs.device)
    return windows[samples, :, shifts[0], shifts[1]], targets


@augmentation
@card(
    when="objects that may stand askew; a large angle makes a 6 a 9, and cuts off corners",
    formula="x at R(-angle) (u, v), about the middle, bilinear; angle uniform over -degrees .. degrees",
    source="tips B and T; Simard et al. 2003 (affine distortions)",
    costs="2 ms for 256 images of 3x32x32 on one core, twice as much as crop",
)
def rotate(
    inputs: Tensor, targets: Tensor, generator: Generator, *, degrees: Annotated[float, Bounds(least=0, most=180)]
) -> Batch:
    """Turn images about their middle by up to `degrees` to either side; what comes into sight is black."""
    check_images("rotate", inputs)
    return rotated(inputs, uniform(inputs, -degrees, degrees, generator)), targets


def rotated(images: Tensor, degrees: Tensor) -> Tensor:
    """Returns each image turned counter-clockwise by its own angle (N,), bilinear, black outside."""
    height, width = images.shape[2:]
    cosine, sine = (per_sample(numbers, images[:, 0]) for numbers in (degrees.deg2rad().cos(), degrees.deg2rad().sin()))
    down = middle_out(height, images)[:, None]
    right = middle_out(width, images)
    # each pixel's source position, as two outer sums: a tenth of the time of affine_grid, which multiplies matrices
    grid = images.new_empty(len(images), height, width, 2)
    torch.sub(right * (cosine * (2 / width)), down * (sine * (2 / width)), out=grid[..., 0])
    torch.add(right * (sine * (2 / height)), down * (cosine * (2 / height)), out=grid[..., 1])
    # contiguous, so that the memory format changes nothing
    return functional.grid_sample(images.contiguous(), grid, mode="bilinear", align_corners=False)


def middle_out(length: int, like: Tensor) -> Tensor:
    """Returns pixels' distances from the middle of a side: -1, 0, 1 for three of them."""
    return torch.arange(length, device=like.device, dtype=like.dtype) - (length - 1) / 2
