"""Cheap checks that run on every trial of a sweep before the first one starts."""

from __future__ import annotations

import torch

from dltips.config.validation import Config
from dltips.feed.augmentations import Augmentations
from dltips.feed.dataset_cache import DatasetCache
from dltips.tips.augmentation import Samples
from dltips.train import device as devices
from dltips.train.build import build_model, check_batch_size
from dltips.train.finetuning import pretrained as pretrained_nets
from dltips.train.parallel.group import SINGLE_PROCESS, refuse_devices
from dltips.train.summary import content_hash


class Checker:
    """Checks runs one by one; those with the same deciding settings are checked once."""

    def __init__(self, store: DatasetCache) -> None:
        self._store = store
        self._hashes: dict[str, tuple[torch.device, str, str | None]] = {}

    def content_hash(self, config: Config) -> str:
        """Returns the hash of all that the run's result depends on. Raises ConfigError if the run could not start."""
        apart = ("seed", "name", "log", "init", "optimizer", "schedule", "checkpoint")  # no check depends on them
        same = {key: value for key, value in config.resolved.items() if key not in apart}
        key = repr(sorted(same.items()))
        if key not in self._hashes:
            self._hashes[key] = _hashes(config, self._store)
        return content_hash(config, *self._hashes[key])


def _hashes(config: Config, store: DatasetCache) -> tuple[torch.device, str, str | None]:
    """Returns the device, and hashes of the data and of the initial weights. Raises ConfigError."""
    refuse_devices(config, SINGLE_PROCESS)
    device = devices.choose(config.settings.device)
    devices.autocast(config.settings.precision, device)
    common = config.common["data"]()
    pretrained = pretrained_nets.find(config)
    source, splits, train = store.samples(config, common, pretrained_nets.wanted(config, pretrained, None))
    check_batch_size(config, len(train) * max(1, common.expand))
    classes = len(source.classes)
    augmentations = Augmentations.build(config.tips["augmentation"], Samples(train.inputs, train.targets, classes))
    augmentations.check_applicable(train)
    if common.expand:
        augmentations.check_freezable()
    regularizations = [tip() for tip in config.tips["regularization"]]
    for part in regularizations:
        if hasattr(part, "plan"):
            part.plan(config.settings.epochs)
    build_model(config, tuple(train.inputs.shape[1:]), classes, regularizations)
    return device, splits.hash, pretrained.hash if pretrained else None
