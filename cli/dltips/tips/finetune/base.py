"""What the strategies share: their view of a run, and the plan that they make."""

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
    """The source of the weights and the way to read them: the knobs that every strategy has."""

    source: str | None
    file: str | None
    min_match: Fraction
    keys: tuple[str, ...]
    mean: tuple[Annotated[float, Bounds(least=0, most=1)], ...]
    std: tuple[Positive, ...]
    freeze_norm: bool


@dataclass(frozen=True)
class Features:
    """A stage's outputs for the samples, averaged over positions or steps: (N, F) float32 with (N,) int64 classes."""

    train: Tensor
    train_targets: Tensor
    val: Tensor
    val_targets: Tensor


class PretrainedNet(Protocol):
    """A net with its weights, and the data to fit it to, as a strategy sees them."""

    stages: Sequence[str]  # from stem to head; the last is the head, which is new
    architecture: str  # as in messages: "resnet"
    epochs: int
    counts: Sequence[int]  # training samples per class
    seed: int

    def features(self, stages: Sequence[str]) -> Mapping[str, Features]:
        """Returns each of these stages' features, from one pass over the data, in eval mode, without augmentation."""
        ...


@dataclass(frozen=True)
class Phase:
    """From an epoch on (counted from 0): stage -> factor of its learning rate. All other stages are frozen."""

    epoch: int
    rates: Mapping[str, float]


@dataclass(frozen=True)
class ReplacedHead:
    """A fitted classifier of a stage's features, (N, F) -> (N, K), which replaces all later stages."""

    stage: str
    kernel: str
    module: nn.Module
    features: Features | None = None  # the features that it was fitted to; None if it was read from a checkpoint


@dataclass(frozen=True)
class FinetunePlan:
    """A strategy's plan for a run."""

    strategy: str
    phases: Sequence[Phase]  # the first begins with epoch 0
    views: int = 0  # number of augmented views per sample whose frozen-stage outputs are computed once; 0: none
    top: ReplacedHead | None = None
    notes: Sequence[str] = field(default=())  # for the user: the reasons, the chosen stage
