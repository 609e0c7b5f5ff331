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
    """Cut the source by a permutation seeded with split_seed; official validation and test sets stay untouched.

    Errors: ConfigError if a part would be empty.
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
    if common.subset is not None:
        if common.subset > len(train):
            raise ConfigError(
                f"data.subset: {common.subset} is more than the {len(train)} samples of the training split"
            )
        train = train[: common.subset]
    val_split = _official(source.val_inputs, source.val_targets) or Split(source.inputs, source.targets, val)
    test_split = _official(source.test_inputs, source.test_targets) or Split(source.inputs, source.targets, test)
    train_split = Split(source.inputs, _noisy(source, train, common), train)
    hashed = {
        "source": source.hash,
        "split_seed": common.split_seed,
        "label_noise": common.label_noise,
        "counts": [len(train), len(val_split), len(test_split)],
    }
    return Splits(train_split, val_split, test_split, _hash(hashed))


def _official(inputs: Tensor | None, targets: Tensor | None) -> Split | None:
    return None if inputs is None or targets is None else Split(inputs, targets)


def _noisy(source: Source, train: Tensor, common: Common) -> Tensor:
    """The source's labels with a share of the training split's replaced by another class, each as likely.

    Drawn from split_seed, so that runs over seeds share the noise, and more noise keeps what less noise had.
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
