"""Builds a run's augmentations; some learn from the training split first."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Generator

from dltips.catalog.registry import Tip
from dltips.errors import ConfigError
from dltips.feed.batches import Augment, to_float
from dltips.feed.frozen_copies import expanded
from dltips.feed.splits import Split
from dltips.tips.augmentation import Samples


@dataclass(frozen=True)
class Augmentations:
    """Augmentations before the preprocessing, those after it, and their names in that order."""

    names: Sequence[str]
    before: Sequence[Augment]
    after: Sequence[Augment]

    @classmethod
    def build(cls, tips: Sequence[Tip], samples: Samples) -> Augmentations:
        """Makes classes from the samples, and takes functions as they are. Raises ConfigError."""
        chosen = [tip for tip in tips if tip.name != "none"]
        late = [tip for tip in chosen if getattr(tip.function, "after_preprocessing", False)]
        early = [tip for tip in chosen if tip not in late]
        return cls(
            [tip.name for tip in (*early, *late)],
            [_fitted(tip, samples) for tip in early],
            [_fitted(tip, samples) for tip in late],
        )

    def check_applicable(self, train_split: Split) -> None:
        """Tries each augmentation on three samples, so that it fails before the first step. Raises ConfigError."""
        inputs, targets = to_float(train_split.inputs[:3]), train_split.targets[:3]
        for augment in (*self.before, *self.after):
            inputs, targets = augment(inputs, targets, torch.Generator())

    def check_freezable(self) -> None:
        """Raises ConfigError if a frozen copy cannot hold the effect of one of them."""
        if self.after:
            late = self.names[len(self.before)]
            raise ConfigError(f"data.expand: {late} mixes the samples of a batch, which no copy can hold; leave it out")

    def frozen(
        self, train_split: Split, copies: int, generator_for: Callable[[str, int], Generator]
    ) -> tuple[Split, Augmentations]:
        """Returns the split as so many augmented copies, and an empty list of augmentations. Raises ConfigError.

        generator_for(augmentation's name, copy) gives the streams.
        """
        self.check_freezable()
        names = self.names
        grown = expanded(
            train_split,
            copies,
            self.before,
            lambda copy, number: generator_for(names[number], copy),
        )
        return grown, Augmentations((), (), ())


def _fitted(tip: Tip, samples: Samples) -> Augment:
    augment: Augment = tip(samples) if inspect.isclass(tip.function) else tip
    return augment
