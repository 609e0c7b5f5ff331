"""Noise in the net, in the targets, in the gradient."""

from __future__ import annotations

from functools import partial

from torch import nn

from dltips.net import weighted_layers
from dltips.registry import ConfigError, Fraction, Size
from dltips.tips.regularization.base import Criterion, Regularization, regularization


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
        return partial(criterion, label_smoothing=self.amount)
