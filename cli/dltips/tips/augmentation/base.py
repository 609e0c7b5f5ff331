"""What augmentations share, and the one that changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from dltips.catalog.cards import card
from dltips.catalog.registry import family
from dltips.errors import ConfigError

augmentation = family("augmentation")

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Samples:
    """The data that an augmentation may learn from: the training split as the source holds it."""

    inputs: Tensor  # (N, C, H, W) uint8, or floats
    targets: Tensor  # (N,) int64
    classes: int


@augmentation
@card(
    when="as the control for the others",
    formula="x",
    source="-",
    costs="nothing",
)
def none(inputs: Tensor, targets: Tensor, generator: Generator) -> Batch:
    """Returns the batch unchanged."""
    return inputs, targets


def check_images(name: str, inputs: Tensor) -> None:
    """Raises ConfigError if the inputs are not images."""
    if inputs.dim() != 4:
        shape = tuple(inputs.shape[1:])
        raise ConfigError(
            f"augmentation: {name} takes images, but a sample's shape is {shape}; write augmentation=none"
        )


def check_range(key: str, bounds: Sequence[float]) -> tuple[float, float]:
    """Returns the two ends of a range. Raises ConfigError unless there are two, the first not larger."""
    if len(bounds) != 2 or bounds[0] > bounds[1]:
        raise ConfigError(f"augmentation.{key}: {list(bounds)} is not a range; write [smallest, largest]")
    return bounds[0], bounds[1]


def check_kernel_size(key: str, kernel_size: int, inputs: Tensor) -> None:
    """Raises ConfigError unless the kernel has a middle, and its half is smaller than the image, which is mirrored."""
    height, width = inputs.shape[2:]
    if kernel_size % 2 == 0:
        raise ConfigError(f"augmentation.{key}: {kernel_size} has no middle; take {kernel_size + 1}, an odd number")
    if kernel_size // 2 >= min(height, width):
        largest = 2 * min(height, width) - 1
        raise ConfigError(f"augmentation.{key}: {kernel_size} is too wide for {height}x{width}; take {largest} or less")


def uniform(inputs: Tensor, lowest: float, highest: float, generator: Generator) -> Tensor:
    """Returns one number for each sample, (N,), of the inputs' type and on their device."""
    drawn = torch.rand(len(inputs), generator=generator, device=inputs.device, dtype=inputs.dtype)
    return drawn.mul_(highest - lowest).add_(lowest)


def per_sample(numbers: Tensor, inputs: Tensor) -> Tensor:
    """Returns (N,) as (N, 1, 1, ...), which broadcasts over the inputs."""
    return numbers.view(-1, *(1,) * (inputs.dim() - 1))


def box_masks(top: Tensor, bottom: Tensor, left: Tensor, right: Tensor, images: Tensor) -> Tensor:
    """Returns (N, 1, H, W): 1 inside rows top .. bottom - 1 and columns left .. right - 1, else 0; bounds are (N,)."""
    height, width = images.shape[2:]
    rows = torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device)
    inside_rows = (rows >= top[:, None]) & (rows < bottom[:, None])  # (N, H)
    inside_columns = (columns >= left[:, None]) & (columns < right[:, None])  # (N, W)
    return inside_rows.to(images.dtype)[:, None, :, None] * inside_columns.to(images.dtype)[:, None, None, :]
