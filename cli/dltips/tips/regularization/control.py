"""What watches over the training: the size of a step, and when to stop."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from dltips.metrics import Progress, Score
from dltips.net import Net
from dltips.registry import NonNegative, Positive, Size
from dltips.tips.regularization.base import Regularization, regularization


@regularization.named("clip_gradient")
class ClipGradient(Regularization):
    """Scales the gradient back to `norm`, over all parameters together (Pascanu et al. 2013)."""

    def __init__(self, *, norm: Positive) -> None:
        super().__init__()
        self.norm = norm

    def on_gradient(self, net: Net) -> None:
        # the buffers' gaps are zero and do not count
        norm = torch.linalg.vector_norm(net.gradients)
        net.gradients.mul_((self.norm / (norm + 1e-6)).clamp(max=1.0))


@regularization.named("early_stopping")
class EarlyStopping(Regularization):
    """Stops when the monitored score has not improved for `patience` epochs; the best weights are kept in any case."""

    def __init__(self, *, monitor: Score, patience: Size, min_delta: NonNegative) -> None:
        super().__init__()
        self.patience = patience
        self.progress = Progress(monitor, min_delta)
        self.state = self.progress.state

    def after_epoch(self, metrics: Mapping[str, float]) -> bool:
        return self.progress.epochs_without(metrics) >= self.patience
