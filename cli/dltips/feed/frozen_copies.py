"""data.expand: a training split of frozen augmented copies, the control for augmentation on the fly."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor

from dltips import free_memory
from dltips.errors import ConfigError
from dltips.feed.batches import Augment, to_float
from dltips.feed.splits import Split

AUGMENT_CHUNK = 1024  # samples augmented at a time


def expanded(
    split: Split, copies: int, augmentations: Sequence[Augment], generator_for: Callable[[int, int], Generator]
) -> Split:
    """Returns `copies` augmented copies of each sample, drawn once: copy 0 of all samples, copy 1 of all samples, ...

    generator_for(copy, augmentation's number) gives the streams. Images stay uint8. Raises ConfigError.
    """
    if not augmentations:
        raise ConfigError("data.expand: needs augmentations to make copies with; write 'augmentation=[flip,crop]'")
    free_memory.require_memory("data.expand", copies * len(split) * split.inputs[:1].nbytes)
    inputs = torch.empty((copies * len(split), *split.inputs.shape[1:]), dtype=split.inputs.dtype)
    for copy in range(copies):
        generators = [generator_for(copy, number) for number in range(len(augmentations))]
        for start in range(0, len(split), AUGMENT_CHUNK):
            part, targets = split.inputs[start : start + AUGMENT_CHUNK], split.targets[start : start + AUGMENT_CHUNK]
            first = copy * len(split) + start
            inputs[first : first + len(part)] = _cast(part.dtype, _augmented(part, targets, augmentations, generators))
    return Split(inputs, split.targets.repeat(copies))


def _augmented(part: Tensor, targets: Tensor, augmentations: Sequence[Augment], generators: list[Generator]) -> Tensor:
    inputs = to_float(part)
    for augment, generator in zip(augmentations, generators, strict=True):
        inputs, targets = augment(inputs, targets, generator)
    return inputs


def _cast(dtype: torch.dtype, inputs: Tensor) -> Tensor:
    return inputs.clamp(0, 1).mul(255).round() if dtype == torch.uint8 else inputs
