"""Regularizations: small classes with any of the hooks below; the loop calls the lists, built once.

prepare(model) before training; criterion(loss function) -> loss function; on_gradient(net) before and after_step(net)
after each step; swap(net) around each validation; after_epoch(metrics) -> stop. `state` goes to the checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dltips.metrics import Progress, Score
from dltips.net import Net, weighted_layers
from dltips.registry import ConfigError, Fraction, NonNegative, Positive, Size, family

regularization = family("regularization")

Criterion = Callable[[Tensor, Tensor], Tensor]


class Regularization:
    """What every regularization has: tensors and numbers to be saved with the checkpoint."""

    state: dict[str, Any]

    def __init__(self) -> None:
        self.state = {}


@regularization.named("none")
class Nothing(Regularization):
    """No regularization."""


@regularization.named("l1")
class L1(Regularization):
    """Adds strength * sum |w| over the weights to the objective, by its gradient: many weights end near 0."""

    def __init__(self, *, strength: NonNegative) -> None:
        super().__init__()
        self.strength = strength
        self.mask: Tensor | None = None

    def on_gradient(self, net: Net) -> None:
        if self.mask is None:
            self.mask = net.decay_mask(spare=True).mul_(self.strength)
        net.gradients.addcmul_(net.parameters.sign(), self.mask)


@regularization.named("l2")
class L2(Regularization):
    """Adds strength / 2 * sum w^2 over the weights to the objective, by its gradient: prefers diffuse weights."""

    def __init__(self, *, strength: NonNegative) -> None:
        super().__init__()
        self.strength = strength
        self.mask: Tensor | None = None

    def on_gradient(self, net: Net) -> None:
        if self.mask is None:
            self.mask = net.decay_mask(spare=True).mul_(self.strength)
        net.gradients.addcmul_(net.parameters, self.mask)


@regularization.named("weight_decay")
class WeightDecay(Regularization):
    """Decoupled decay: w *= 1 - rate * strength at each step, whatever the optimizer (Loshchilov and Hutter 2019)."""

    def __init__(self, *, strength: NonNegative, spare: bool) -> None:
        super().__init__()
        self.strength = strength
        self.spare = spare
        self.mask: Tensor | None = None

    def on_gradient(self, net: Net) -> None:
        if self.mask is None:
            self.mask = net.decay_mask(spare=self.spare).mul_(self.strength)
        net.parameters.addcmul_(net.parameters, self.mask, value=-net.learning_rate)


@regularization.named("max_norm")
class MaxNorm(Regularization):
    """Each unit's incoming weights are scaled back to norm `limit` after each step (Srebro and Shraibman 2005)."""

    def __init__(self, *, limit: Positive) -> None:
        super().__init__()
        self.limit = limit
        self.views: list[Tensor] | None = None

    def after_step(self, net: Net) -> None:
        if self.views is None:
            self.views = [view for segment, view in net.views(net.parameters) if segment.is_weight]
        for weight in self.views:
            norms = torch.linalg.vector_norm(weight, dim=list(range(1, weight.dim())), keepdim=True)
            weight.mul_((self.limit / norms.clamp(min=1e-12)).clamp(max=1.0))


@regularization.named("dropout")
class Dropout(Regularization):
    """Zeroes a share p of the outputs while training, after hidden layers with at least min_units (Srivastava 2014)."""

    def __init__(self, *, p: Fraction, min_units: Size) -> None:
        super().__init__()
        self.p = p
        self.min_units = min_units

    def prepare(self, model: nn.Module) -> None:
        layers = weighted_layers(model)[:-1]
        large = [name for name, layer in layers if layer.get_parameter("weight").shape[0] >= self.min_units]
        blocks = {name.rpartition(".")[0] for name in large}
        for name in blocks:
            place = model.get_submodule(name)
            if not isinstance(place, nn.Sequential) or not name:
                raise ConfigError("regularization.dropout: this model has no blocks after which it could be placed")
            place.add_module("dropout", nn.Dropout(self.p))
        if not blocks:
            widest = max((layer.get_parameter("weight").shape[0] for _, layer in layers), default=0)
            raise ConfigError(
                f"regularization.dropout.min_units: {self.min_units} is reached by no hidden layer (the widest has"
                f" {widest} outputs); write regularization.dropout.min_units={widest}, or widen the model"
            )


@regularization.named("label_smoothing")
class LabelSmoothing(Regularization):
    """Trains towards 1 - amount for the right class, the rest spread over all (Szegedy et al. 2016)."""

    def __init__(self, *, amount: Fraction) -> None:
        super().__init__()
        self.amount = amount

    def criterion(self, criterion: Criterion) -> Criterion:
        return partial(functional.cross_entropy, label_smoothing=self.amount)


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


@regularization.named("ema")
class ExponentialMovingAverage(Regularization):
    """Validates and keeps an exponential moving average of the weights and of batch norm's statistics."""

    def __init__(self, *, decay: Fraction) -> None:
        super().__init__()
        self.decay = decay

    def after_step(self, net: Net) -> None:
        if not self.state:
            self.state["parameters"] = net.parameters.clone()
            self.state |= {name: buffer.clone() for name, buffer in self._buffers(net)}
            return
        self.state["parameters"].lerp_(net.parameters, 1 - self.decay)
        for name, buffer in self._buffers(net):
            self.state[name].lerp_(buffer, 1 - self.decay)

    def swap(self, net: Net) -> None:
        """Exchange the average with the net's own values; a second call exchanges them back."""
        if self.state:
            _exchange(self.state["parameters"], net.parameters)
            for name, buffer in self._buffers(net):
                _exchange(self.state[name], buffer)

    @staticmethod
    def _buffers(net: Net) -> list[tuple[str, Tensor]]:
        return [(name, buffer) for name, buffer in net.module.named_buffers() if buffer.is_floating_point()]


def _exchange(a: Tensor, b: Tensor) -> None:
    kept = a.clone()
    a.copy_(b)
    b.copy_(kept)


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
