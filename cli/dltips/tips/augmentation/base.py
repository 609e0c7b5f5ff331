"""What augmentations share, and the one that does nothing."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Generator, Tensor

from dltips.card import card
from dltips.registry import ConfigError, family

augmentation = family("augmentation")

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Samples:
    """What an augmentation may learn from: the training split as the source has it."""

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
    """The batch as it is."""
    return inputs, targets


def check_images(name: str, inputs: Tensor) -> None:
    """Errors: ConfigError if these are no images."""
    if inputs.dim() != 4:
        shape = tuple(inputs.shape[1:])
        raise ConfigError(
            f"augmentation: {name} takes images, but a sample's shape is {shape}; write augmentation=none"
        )
