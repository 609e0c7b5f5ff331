"""Controls the training: the size of a step, and early stopping."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from dltips.catalog.cards import card
from dltips.catalog.registry import NonNegative, Positive, Score, Size
from dltips.metrics import PatienceCounter
from dltips.nets.flat import FlatModel
from dltips.tips.regularization.base import Regularization, regularization


@regularization.named("clip_gradient")
@card(
    when="recurrent nets, and losses that jump: one steep step cannot throw the net away",
    formula="g *= min(1, norm / |g|), |g| over all parameters together",
    source="Pascanu et al. 2013, arXiv 1211.5063",
    costs="two passes over the gradient per step",
    avoid={
        "optimizer.reduction=sum": "the norm of a sum over the batch grows with batch_size; multiply"
        " regularization.clip_gradient.norm by it, or write optimizer.reduction=mean",
    },
)
class ClipGradient(Regularization):
    """Scales the gradient back to `norm`, over all parameters together (Pascanu et al. 2013)."""

    def __init__(self, *, norm: Positive) -> None:
        super().__init__()
        self.norm = norm

    def on_gradient(self, net: FlatModel) -> None:
        # the buffers' gaps are zero and do not count
        norm = torch.linalg.vector_norm(net.gradients)
        net.gradients.mul_((self.norm / (norm + 1e-6)).clamp(max=1.0))


@regularization.named("early_stopping")
@card(
    when="nets that overfit, and when time is short; with patience, since single epochs' scores jump",
    formula="stop when `monitor` has not improved by more than min_delta for `patience` epochs",
    source="tip T; Prechelt 1998, Early Stopping - But When?",
    recommends="as soon as the validation error rises (T): patience 1",
    costs="nothing: it saves epochs",
    avoid={
        "schedule=cosine": "the best epochs of this schedule are its last ones, and stopping early misses them; take"
        " fewer epochs instead",
        "schedule=linear": "the best epochs of this schedule are its last ones, and stopping early misses them; take"
        " fewer epochs instead",
        "schedule=one_cycle": "the best epochs of this schedule are its last ones, and stopping early misses them; take"
        " fewer epochs instead",
    },
)
class EarlyStopping(Regularization):
    """Stops when the monitored score has not improved for `patience` epochs; the best weights are kept in any case."""

    def __init__(self, *, monitor: Score, patience: Size, min_delta: NonNegative) -> None:
        super().__init__()
        self.patience = patience
        self.progress = PatienceCounter(monitor, min_delta)
        self.state = self.progress.state

    def on_unfreeze(self) -> None:
        self.state["waited"] = 0  # newly trained parameters get the full patience

    def after_epoch(self, metrics: Mapping[str, float]) -> bool:
        return self.progress.epochs_without(metrics) >= self.patience
