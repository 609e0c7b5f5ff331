"""Train, validation and test: decided by data.split_seed alone, so that runs over seeds share them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dltips.registry import ConfigError
from dltips.tips.data import Common, Source


@dataclass(frozen=True)
class Split:
    """Samples with their labels: inputs[indices] of the source's arrays, or all of them."""

    inputs: Tensor
    targets: Tensor
    indices: Tensor | None = None

    def __len__(self) -> int:
        return len(self.targets) if self.indices is None else len(self.indices)

    def taken(self) -> Split:
        """The same with its samples copied out, so that nothing else is held."""
        if self.indices is None:
            return self
        return Split(self.inputs.index_select(0, self.indices), self.targets.index_select(0, self.indices))


@dataclass(frozen=True)
class Splits:
    train: Split
    val: Split
    test: Split
    hash: str


def split(source: Source, common: Common) -> Splits:
    """Cut the source by a permutation seeded with split_seed; an official test set stays untouched.

    Errors: ConfigError if a part would be empty.
    """
    count = len(source.targets)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(common.split_seed))
    official = source.test_inputs is not None
    test_count = 0 if official else round(common.test_fraction * count)
    val_count = round(common.val_fraction * count)
    train_count = count - test_count - val_count
    if train_count < 1 or val_count < 1:
        raise ConfigError(
            f"data.val_fraction: {common.val_fraction:g} of {count} samples leaves {val_count} for validation and"
            f" {max(0, train_count)} for training; both need some"
        )
    if not official and test_count < 1:
        raise ConfigError(
            f"data.test_fraction: {common.test_fraction:g} of {count} samples leaves none for the test; raise it"
        )
    test, val, train = torch.split(order, [test_count, val_count, train_count])
    if common.subset is not None:
        if common.subset > len(train):
            raise ConfigError(
                f"data.subset: {common.subset} is more than the {len(train)} samples of the training split"
            )
        train = train[: common.subset]
    if official:
        assert source.test_inputs is not None and source.test_targets is not None
        test_split = Split(source.test_inputs, source.test_targets)
    else:
        test_split = Split(source.inputs, source.targets, test)
    hashed = {"source": source.hash, "split_seed": common.split_seed, "counts": [len(train), len(val), len(test_split)]}
    return Splits(
        Split(source.inputs, source.targets, train),
        Split(source.inputs, source.targets, val),
        test_split,
        _hash(hashed),
    )


def _hash(values: Mapping[str, object]) -> str:
    return hashlib.sha256(repr(sorted(values.items())).encode()).hexdigest()[:16]
