"""Augmentations that mix the samples of a batch, after the preprocessing; their targets are shares (N, classes)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Generator, Tensor
from torch.nn import functional

from dltips.catalog.cards import card
from dltips.catalog.registry import Fraction, Positive
from dltips.tips.augmentation.base import Batch, Samples, augmentation, box_masks, check_images, per_sample, uniform


@augmentation.named("mixup")
@card(
    when="larger nets and longer runs, labels that are not all right; a small net underfits the mixtures",
    formula="lambda x_i + (1 - lambda) x_j, and the same of the targets; lambda ~ Beta(alpha, alpha), j a permutation",
    source="Zhang et al. 2017, arXiv 1710.09412",
    recommends="alpha 1 on CIFAR, 0.2 to 0.4 on ImageNet",
    costs="0.5 ms for 256 images of 3x32x32 on one core; the training accuracy then speaks of mixtures",
)
class Mixup:
    """Mix each sample with another one of the batch, pixels and labels alike."""

    after_preprocessing: ClassVar[bool] = True

    def __init__(self, samples: Samples, *, alpha: Positive) -> None:
        self.classes = samples.classes
        self.alpha = alpha

    def __call__(self, inputs: Tensor, targets: Tensor, generator: Generator) -> Batch:
        partner = torch.randperm(len(inputs), generator=generator, device=inputs.device)
        own = beta(inputs, self.alpha, generator)
        mixed = inputs.index_select(0, partner).lerp_(inputs, per_sample(own, inputs))
        return mixed, mixed_shares(as_shares(targets, self.classes), partner, own)


@augmentation.named("cutmix")
@card(
    when="images, larger nets and longer runs; not where the class lies in a small detail",
    formula="a box of x_j in x_i, its sides sqrt(1 - lambda) of the image's, about a uniform point, cut at the border;"
    " targets by the box's real area; lambda ~ Beta(alpha, alpha), j a permutation",
    source="Yun et al. 2019, arXiv 1905.04899",
    recommends="alpha 1; p = 0.5 on CIFAR, 1 on ImageNet",
    costs="1.2 ms for 256 images of 3x32x32 on one core; the training accuracy then speaks of mixtures",
)
class Cutmix:
    """Put a box of another image of the batch into each, with probability p; the labels follow the area."""

    after_preprocessing: ClassVar[bool] = True

    def __init__(self, samples: Samples, *, p: Fraction, alpha: Positive) -> None:
        self.classes = samples.classes
        self.p = p
        self.alpha = alpha

    def __call__(self, inputs: Tensor, targets: Tensor, generator: Generator) -> Batch:
        check_images("cutmix", inputs)
        partner = torch.randperm(len(inputs), generator=generator, device=inputs.device)
        side = (1 - beta(inputs, self.alpha, generator)).sqrt_() * (uniform(inputs, 0, 1, generator) < self.p)
        height, width = inputs.shape[2:]
        top, bottom = _extent(uniform(inputs, 0, 1, generator), side, height)
        left, right = _extent(uniform(inputs, 0, 1, generator), side, width)
        outside = 1 - box_masks(top, bottom, left, right, inputs)
        own = 1 - (bottom - top) * (right - left) / (height * width)
        # exact for 0 and 1, and faster than torch.where
        mixed = inputs.index_select(0, partner).lerp_(inputs, outside)
        return mixed, mixed_shares(as_shares(targets, self.classes), partner, own)


def _extent(middle: Tensor, share: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Returns a box's first row and the one after its last: `share` of the side about `middle`, in full pixels."""
    size = (share * length).floor()
    first = (middle * length).floor_() - (size / 2).floor_()
    return first.clamp(min=0), (first + size).clamp(max=length)


def beta(inputs: Tensor, alpha: float, generator: Generator) -> Tensor:
    """Returns a number in [0, 1] for each sample, (N,), from Beta(alpha, alpha).

    It is a / (a + b) with a and b from Gamma(alpha), taken from their logarithms: Gamma(alpha) is Gamma(alpha + 1)
    times U^(1 / alpha), which is 0 in floats from alpha = 0.01 on.
    """
    count = (2, len(inputs))
    above_one = torch.full(count, alpha + 1, device=inputs.device, dtype=inputs.dtype)
    exponents = torch.empty(count, device=inputs.device, dtype=inputs.dtype).exponential_(generator=generator)
    logarithms = torch._standard_gamma(above_one, generator=generator).log_().sub_(exponents / alpha)
    return (logarithms[0] - logarithms[1]).sigmoid_()


def as_shares(targets: Tensor, classes: int) -> Tensor:
    """Returns labels (N,) as shares (N, classes); shares of an earlier mixture are unchanged."""
    return functional.one_hot(targets, classes).float() if targets.dim() == 1 else targets


def mixed_shares(shares: Tensor, partner: Tensor, own: Tensor) -> Tensor:
    """Returns the part `own` (N,) of each sample's shares, the rest of its partner's."""
    return shares[partner].lerp_(shares, own[:, None].to(shares.dtype))
