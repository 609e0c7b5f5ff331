"""Splits by data.split_seed alone; applies subset, per_class and label_noise to the training split."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from dltips import free_memory
from dltips.errors import ConfigError
from dltips.tips.data import DataKnobs, Source
from dltips.tips.data.pictures import Form


@dataclass(frozen=True)
class Split:
    """Samples with their labels: inputs[indices] of the source's arrays, or all of them."""

    inputs: Tensor
    targets: Tensor
    indices: Tensor | None = None

    def __len__(self) -> int:
        return len(self.targets) if self.indices is None else len(self.indices)

    def taken(self) -> Split:
        """Returns the same with copied samples, so that the source's arrays can be freed."""
        if self.indices is None:
            return self
        return Split(self.inputs.index_select(0, self.indices), self.targets.index_select(0, self.indices))


class Formed(Split):
    """A split whose images are resized when they are read, and only those.

    So 100 of 70,000 images take no time, and the test images are resized when they are evaluated. Its indices refer to
    its own arrays. `key` is the knob that an error names if they do not fit into memory.
    """

    raw: Split
    form: Form
    key: str

    def __init__(self, raw: Split, form: Form, key: str) -> None:
        targets = raw.targets if raw.indices is None else raw.targets.index_select(0, raw.indices)
        # bypasses the frozen dataclass
        self.__dict__.update(raw=raw, form=form, key=key, targets=targets, indices=torch.arange(len(raw)))

    @cached_property
    def inputs(self) -> Tensor:
        free_memory.require_memory(self.key, len(self) * self.form.bytes_from(self.raw.inputs.shape[1]))
        return self.form(self.raw.taken().inputs)

    def taken(self) -> Split:
        return Split(self.inputs, self.targets)


@dataclass(frozen=True)
class Splits:
    train: Split
    val: Split
    test: Split
    hash: str


def split(source: Source, common: DataKnobs) -> Splits:
    """Splits the source by a permutation seeded with split_seed; official validation and test sets stay untouched.

    Raises ConfigError if a part would be empty.
    """
    count = len(source.targets)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(common.split_seed))
    test_count = 0 if source.test_inputs is not None else round(common.test_fraction * count)
    val_count = 0 if source.val_inputs is not None else round(common.val_fraction * count)
    train_count = count - test_count - val_count
    if train_count < 1 or (val_count < 1 and source.val_inputs is None):
        raise ConfigError(
            f"data.val_fraction: {common.val_fraction:g} of {count} samples leaves {val_count} for validation and"
            f" {max(0, train_count)} for training; both need some"
        )
    if test_count < 1 and source.test_inputs is None and common.test_fraction > 0:
        raise ConfigError(
            f"data.test_fraction: {common.test_fraction:g} of {count} samples leaves none for the test; raise it, or"
            " set it to 0 to do without"
        )
    test, val, train = torch.split(order, [test_count, val_count, train_count])
    train = _subset(source, train, common)
    parts: Sequence[Split] = (
        Split(source.inputs, _noisy_labels(source, train, common), train),
        _official(source.val_inputs, source.val_targets) or Split(source.inputs, source.targets, val),
        _official(source.test_inputs, source.test_targets) or Split(source.inputs, source.targets, test),
    )
    hashed = {
        "source": source.hash,
        "split_seed": common.split_seed,
        "label_noise": common.label_noise,
        "counts": [len(part) for part in parts],
    }
    if common.per_class is not None:  # a subset of that size has as many
        hashed["per_class"] = common.per_class
    if source.form is not None:
        subset_key = "data.subset" if common.per_class is None else "data.per_class"
        keys = (subset_key, "data.image_size", "data.image_size")
        parts = [Formed(part, source.form, key) for part, key in zip(parts, keys, strict=True)]
    train_split, val_split, test_split = parts
    return Splits(train_split, val_split, test_split, _hash(hashed))


def _subset(source: Source, train: Tensor, common: DataKnobs) -> Tensor:
    """Returns the first training indices, by subset or per_class: a smaller subset is part of a larger one.

    By the source's own labels: label noise comes after. Raises ConfigError if there are not enough.
    """
    if common.subset is not None and common.subset > len(train):
        raise ConfigError(f"data.subset: {common.subset} is more than the {len(train)} samples of the training split")
    if common.per_class is None:
        return train[: common.subset]
    targets = source.targets[train]
    counts = torch.bincount(targets, minlength=len(source.classes))
    least = int(counts.argmin())
    if counts[least] < common.per_class:
        raise ConfigError(
            f"data.per_class: {common.per_class} is more than the {counts[least]} samples of class"
            f" {source.classes[least]} in the training split; lower it"
        )
    chosen = [(targets == label).nonzero().flatten()[: common.per_class] for label in range(len(source.classes))]
    return train[torch.cat(chosen).sort().values]


def _official(inputs: Tensor | None, targets: Tensor | None) -> Split | None:
    return None if inputs is None or targets is None else Split(inputs, targets)


def _noisy_labels(source: Source, train: Tensor, common: DataKnobs) -> Tensor:
    """Returns the source's labels with a share of the training split's replaced by another class, each equally likely.

    Drawn from split_seed, so that runs over seeds share the noise, and more noise includes less noise.
    """
    wrong = round(common.label_noise * len(train))
    classes = len(source.classes)
    if wrong == 0:
        return source.targets
    if classes < 2:
        raise ConfigError("data.label_noise: there is one class only, so that no label could be wrong; set it to 0")
    generator = torch.Generator().manual_seed(common.split_seed + 1)
    chosen = train[torch.randperm(len(train), generator=generator)[:wrong]]
    offsets = torch.randint(1, classes, (len(train),), generator=generator)[:wrong]
    targets = source.targets.clone()
    targets[chosen] = (targets[chosen] + offsets) % classes
    return targets


def _hash(values: Mapping[str, object]) -> str:
    return hashlib.sha256(repr(sorted(values.items())).encode()).hexdigest()[:16]
