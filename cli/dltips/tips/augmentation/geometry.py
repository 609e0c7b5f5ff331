"""Augmentations that move pixels."""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torch.nn import functional

from dltips.card import card
from dltips.registry import ConfigError, Fraction, Size
from dltips.tips.augmentation.base import Batch, augmentation, check_images


@augmentation
@card(
    when="scenes and objects, whose mirror image is of the same class; not digits and letters",
    formula="x[..., ::-1] with probability p",
    source="tips S and T; Krizhevsky et al. 2012",
    recommends="p = 0.5",
    costs="one copy of the batch",
)
def flip(inputs: Tensor, targets: Tensor, generator: Generator, *, p: Fraction) -> Batch:
    """Mirror images left to right with probability p. For scenes and objects; not for digits and letters."""
    check_images("flip", inputs)
    mirrored = torch.rand(len(inputs), generator=generator, device=inputs.device) < p
    return torch.where(mirrored[:, None, None, None], inputs.flip(-1), inputs), targets


@augmentation
@card(
    when="images whose object need not stand in the middle",
    formula="pad(x, padding)[dy : dy + H, dx : dx + W], dy and dx uniform over 0 .. 2 padding",
    source="tips S and T; He et al. 2015, arXiv 1512.03385, section 4.2",
    recommends="padding = 4 on 32x32",
    costs="two copies of the batch",
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
