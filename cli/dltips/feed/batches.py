"""Puts batches on the device, from resident samples or a streaming DataLoader: the same batches in the same order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import torch
from torch import Generator, Tensor, nn
from torch.utils.data import DataLoader, Dataset

from dltips.feed.splits import Split

PREPARED_BYTES = 256 * 2**20  # larger inputs are prepared batch by batch

Batch = tuple[Tensor, Tensor]
Augment = Callable[[Tensor, Tensor, Generator], Batch]


class Batches(Protocol):
    """Raw batches (uint8 images or float vectors, labels) on the device, in the given order."""

    values: int  # in one sample

    def __call__(self, order: Tensor, batch_size: int) -> Iterator[Batch]: ...


def batch_sizes(count: int, batch_size: int) -> list[int]:
    """Returns the sizes; the last batch may be smaller, and a remainder of 1 joins its neighbour, for batch norm."""
    full, rest = divmod(count, batch_size)
    sizes = [batch_size] * full + ([rest] if rest else [])
    if rest == 1 and len(sizes) > 1:
        sizes[-2:] = [batch_size + 1]
    return sizes


class Resident:
    """Keeps all samples on the device; a batch is one gather."""

    def __init__(self, split: Split, device: torch.device) -> None:
        taken = split.taken()
        self.values = taken.inputs[0].numel()
        self.inputs = taken.inputs.to(device)
        self.targets = taken.targets.to(device)

    def __call__(self, order: Tensor, batch_size: int) -> Iterator[Batch]:
        for chosen in torch.split(order.to(self.inputs.device), batch_sizes(len(order), batch_size)):
            yield self.inputs.index_select(0, chosen), self.targets.index_select(0, chosen)


class Streaming:
    """Leaves samples memory-mapped; a DataLoader gathers batches ahead of the device."""

    def __init__(self, split: Split, device: torch.device) -> None:
        self.split = split
        self.values = split.inputs[0].numel()
        self.device = device
        # beside a GPU, workers gather ahead; on a CPU they would compete with the net
        self.workers = 4 if device.type == "cuda" else 0

    def __call__(self, order: Tensor, batch_size: int) -> Iterator[Batch]:
        chosen = list(torch.split(order, batch_sizes(len(order), batch_size)))
        pinned = self.device.type == "cuda"
        loader = DataLoader(
            _Gather(self.split),
            sampler=chosen,
            batch_size=None,
            num_workers=self.workers,
            pin_memory=pinned,
            generator=torch.Generator(),  # else it seeds its workers from the stream that dropout draws from
        )
        for inputs, targets in loader:
            yield inputs.to(self.device, non_blocking=pinned), targets.to(self.device, non_blocking=pinned)


class _Gather(Dataset[Batch]):
    """A data set whose index is a whole batch's indices within the split."""

    def __init__(self, split: Split) -> None:
        self.split = split

    def __getitem__(self, positions: Tensor) -> Batch:
        chosen = positions if self.split.indices is None else self.split.indices[positions]
        return self.split.inputs.index_select(0, chosen), self.split.targets.index_select(0, chosen)


def to_float(inputs: Tensor) -> Tensor:
    """Scales uint8 images to [0, 1]; returns floats unchanged."""
    return inputs.float().div_(255) if inputs.dtype == torch.uint8 else inputs


class Prepared:
    """Prepares, once, samples that are the same in every epoch: the same operations, hence the same bits."""

    def __init__(self, raw: Resident, prepare: Callable[[Tensor], Tensor]) -> None:
        first = prepare(raw.inputs[:1])
        # images are stored as (N, H, W, C), so that a gathered batch is in channels_last without a copy
        self.images = first.dim() == 4
        shape = first.permute(0, 2, 3, 1).shape if self.images else first.shape
        self.inputs = torch.empty((len(raw.inputs), *shape[1:]), dtype=first.dtype, device=first.device)
        self.targets = raw.targets
        for start in range(0, len(raw.inputs), 1024):
            part = prepare(raw.inputs[start : start + 1024])
            self.inputs[start : start + 1024] = part.permute(0, 2, 3, 1) if self.images else part

    def __call__(self, order: Tensor, batch_size: int) -> Iterator[Batch]:
        for chosen in torch.split(order.to(self.inputs.device), batch_sizes(len(order), batch_size)):
            inputs = self.inputs.index_select(0, chosen)
            yield inputs.permute(0, 3, 1, 2) if self.images else inputs, self.targets.index_select(0, chosen)


class Feed:
    """A split as the net takes it: raw batches, to float, augmented, preprocessed, mixed, in the best memory format."""

    def __init__(
        self,
        batches: Batches,
        count: int,
        preprocess: nn.Module,
        augmentations: Sequence[Augment] = (),
        mixing: Sequence[Augment] = (),
        *,
        once: bool = False,
    ) -> None:
        self.batches = batches
        self.count = count
        self.preprocess = preprocess
        self.augmentations = augmentations
        self.mixing = mixing  # augmentations that come after the preprocessing
        self.prepared: Prepared | None = None
        # a single pass does not need a prepared copy
        if (
            not once
            and not augmentations
            and isinstance(batches, Resident)
            and batches.inputs.numel() * 4 <= PREPARED_BYTES
        ):
            self.prepared = Prepared(batches, self._prepare)
            del batches.inputs

    def __call__(self, order: Tensor, batch_size: int, generators: Sequence[Generator] = ()) -> Iterator[Batch]:
        """Yields batches in the given order; one generator per augmentation, the mixing ones last."""
        before, after = generators[: len(self.augmentations)], generators[len(self.augmentations) :]
        batches = self.prepared(order, batch_size) if self.prepared else self._augmented(order, batch_size, before)
        return self._mixed(batches, after) if self.mixing else batches

    def _augmented(self, order: Tensor, batch_size: int, generators: Sequence[Generator]) -> Iterator[Batch]:
        for raw, targets in self.batches(order, batch_size):
            inputs = to_float(raw)
            for augment, generator in zip(self.augmentations, generators, strict=True):
                inputs, targets = augment(inputs, targets, generator)
            if self.augmentations and inputs.dim() == 4:
                inputs = inputs.clamp(0, 1)
            yield to_channels_last(self.preprocess(inputs)), targets

    def _mixed(self, batches: Iterator[Batch], generators: Sequence[Generator]) -> Iterator[Batch]:
        for inputs, targets in batches:
            for mix, generator in zip(self.mixing, generators, strict=True):
                inputs, targets = mix(inputs, targets, generator)
            yield to_channels_last(inputs), targets

    def _prepare(self, raw: Tensor) -> Tensor:
        prepared: Tensor = self.preprocess(to_float(raw))
        return prepared


def to_channels_last(inputs: Tensor) -> Tensor:
    """Returns images in channels_last, which makes a convolution step about 1.7 times as fast, on a CPU too."""
    if inputs.dim() != 4:
        return inputs
    last = inputs.permute(0, 2, 3, 1).contiguous()
    count, height, width, channels = last.shape
    # with one channel the strides are ambiguous, and kernels depend on them: explicit strides keep the bits
    strides = (height * width * channels, 1, width * channels, channels)
    return last.as_strided((count, channels, height, width), strides, last.storage_offset())
