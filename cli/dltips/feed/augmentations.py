"""The augmentations of a run, ready to be called; some learn from the training split first."""

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
    """Those that see raw inputs, and those that come after the preprocessing; names in that order."""

    names: Sequence[str]
    before: Sequence[Augment]
    after: Sequence[Augment]

    @classmethod
    def build(cls, tips: Sequence[Tip], samples: Samples) -> Augmentations:
        """Classes are made from the samples, functions taken as they are. Errors: ConfigError."""
        chosen = [tip for tip in tips if tip.name != "none"]
        late = [tip for tip in chosen if getattr(tip.function, "after_preprocessing", False)]
        early = [tip for tip in chosen if tip not in late]
        return cls(
            [tip.name for tip in (*early, *late)],
            [_fitted(tip, samples) for tip in early],
            [_fitted(tip, samples) for tip in late],
        )

    def check_applicable(self, train_split: Split) -> None:
        """What cannot augment these data says so now, not in the first step. Errors: ConfigError."""
        inputs, targets = to_float(train_split.inputs[:3]), train_split.targets[:3]
        for augment in (*self.before, *self.after):
            inputs, targets = augment(inputs, targets, torch.Generator())

    def check_freezable(self) -> None:
        """Errors: ConfigError if no copy could hold what one of them does."""
        if self.after:
            late = self.names[len(self.before)]
            raise ConfigError(f"data.expand: {late} mixes the samples of a batch, which no copy can hold; leave it out")

    def frozen(
        self, train_split: Split, copies: int, generator_for: Callable[[str, int], Generator]
    ) -> tuple[Split, Augmentations]:
        """The split as so many augmented copies, and no augmentations any more. Errors: ConfigError.

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
