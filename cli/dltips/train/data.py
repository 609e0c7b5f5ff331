"""Loads and splits a run's samples, and fits preprocessing and augmentations on the training split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dltips.catalog.registry import Tip
from dltips.config.validation import Config
from dltips.feed import balance
from dltips.feed.augmentations import Augmentations
from dltips.feed.batches import Feed
from dltips.feed.dataset_cache import DatasetCache
from dltips.feed.load import RequiredInputs
from dltips.feed.placement import place_split
from dltips.feed.splits import Split, Splits
from dltips.tips.augmentation import Samples
from dltips.tips.data import DataKnobs, Source
from dltips.tips.preprocessing import Fill, save
from dltips.train import seeds


@dataclass(frozen=True)
class Data:
    """A run's samples, and the steps between them and the net."""

    common: DataKnobs
    source: Source
    splits: Splits
    train: Split  # copied samples, or frozen augmented copies of them
    augmentations: Augmentations
    preprocess: nn.Module
    device: torch.device

    def feed(self, part: Split, *, augmented: bool = False, once: bool = False) -> Feed:
        """Returns the split as the net takes it; with `once`, for a single pass, nothing is cached."""
        augmentations = self.augmentations if augmented else Augmentations((), (), ())
        batches = place_split(part, self.common.placement, self.device)
        return Feed(batches, len(part), self.preprocess, augmentations.before, augmentations.after, once=once)


def prepare_data(
    config: Config,
    device: torch.device,
    fitted: nn.Module | None,
    wanted: RequiredInputs | None,
    datasets: DatasetCache,
) -> Data:
    """Loads, splits, and fits on the training split. Raises ConfigError.

    Trained weights may come with a fitted preprocessing and the required form of the inputs.
    """
    seed, common = config.settings.seed, config.common["data"]()
    balance.check(common.balance, common.shuffle)
    source, splits, train = datasets.samples(config, common, wanted)
    samples = Samples(train.inputs, train.targets, len(source.classes))
    augmentations = Augmentations.build(config.tips["augmentation"], samples)
    augmentations.check_applicable(train)
    preprocess = fitted or fit_preprocessing(config.tip("preprocessing"), train.inputs, lacks_values(source))
    if common.expand:
        train, augmentations = augmentations.frozen(
            train, common.expand, lambda name, copy: seeds.generator(seed, "expand", name, copy)
        )
    return Data(common, source, splits, train, augmentations, preprocess.to(device), device)


def lacks_values(source: Source) -> bool:
    """Returns whether any number is missing (NaN); one such validation sample is enough."""
    parts = (source.inputs, source.val_inputs, source.test_inputs)
    return any(part is not None and part.is_floating_point() and bool(part.isnan().any()) for part in parts)


def fit_preprocessing(tip: Tip, train_inputs: Tensor, missing: bool) -> nn.Module:
    """Returns the fitted preprocessing; missing values are first replaced by their features' training means.

    Raises ConfigError.
    """
    fill = None
    if missing:
        fill = Fill(value=train_inputs.nanmean(0).nan_to_num(0.0))
        train_inputs = fill(train_inputs)
    fitted: nn.Module = tip(train_inputs)
    save(fitted)  # fails now if it cannot be stored in a checkpoint
    return fitted if fill is None else nn.Sequential(fill, *(fitted if isinstance(fitted, nn.Sequential) else [fitted]))


def epoch_order(common: DataKnobs, seed: int, train_split: Split, classes: int) -> Callable[[int], Tensor]:
    """Returns a function from an epoch to the order of its samples."""
    count, targets = len(train_split), train_split.targets
    if common.balance == "sampling":
        return lambda epoch: balance.balanced_order(targets, classes, seeds.generator(seed, "order", epoch=epoch))
    if common.shuffle:
        return lambda epoch: seeds.shuffled(seed, epoch, count)
    return lambda epoch: torch.arange(count)
