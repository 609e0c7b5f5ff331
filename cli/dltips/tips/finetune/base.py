"""What the strategies share: what they are told of a run, and the plan that they make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Protocol

from torch import Tensor, nn

from dltips.catalog.registry import Bounds, Fraction, Positive, family

finetune = family("finetune")


@finetune.common
@dataclass(frozen=True, kw_only=True)
class FinetuneKnobs:
    """Where the weights come from, and how they are read: the knobs that every strategy has."""

    source: str | None
    file: str | None
    min_match: Fraction
    keys: tuple[str, ...]
    mean: tuple[Annotated[float, Bounds(least=0, most=1)], ...]
    std: tuple[Positive, ...]
    freeze_norm: bool


@dataclass(frozen=True)
class Features:
    """What a stage makes of the samples, averaged over places or steps: (N, F) float32 with (N,) int64 classes."""

    train: Tensor
    train_targets: Tensor
    val: Tensor
    val_targets: Tensor


class PretrainedNet(Protocol):
    """A net with its weights, and the data that it is to be fitted to, as a strategy sees them."""

    stages: Sequence[str]  # from stem to head; the last is the head, which is new
    architecture: str  # as messages name it: "resnet"
    epochs: int
    counts: Sequence[int]  # training samples per class
    seed: int

    def features(self, stages: Sequence[str]) -> Mapping[str, Features]:
        """Each of these stages' features, from one pass over the data, in eval mode, without augmentation."""
        ...


@dataclass(frozen=True)
class Phase:
    """From an epoch on (counted from 0): stage -> what its learning rate is multiplied by. All other stages rest."""

    epoch: int
    rates: Mapping[str, float]


@dataclass(frozen=True)
class ReplacedHead:
    """A fitted classifier of a stage's features, (N, F) -> (N, K): it takes the place of all that comes after."""

    stage: str
    kernel: str
    module: nn.Module
    features: Features | None = None  # that it was fitted to; None for a top that was read from a checkpoint


@dataclass(frozen=True)
class FinetunePlan:
    """What a strategy wants of a run."""

    strategy: str
    phases: Sequence[Phase]  # the first begins with epoch 0
    views: int = 0  # the resting stages' output is computed once, for so many augmented views of each sample; 0: never
    top: ReplacedHead | None = None
    notes: Sequence[str] = field(default=())  # what the person should hear of: the reasons, the stage that won
