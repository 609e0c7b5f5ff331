"""Averages of the weights over the training."""

from __future__ import annotations

from torch import Tensor

from dltips.catalog.cards import card
from dltips.catalog.registry import Fraction, Size
from dltips.errors import ConfigError
from dltips.nets.flat import FlatModel
from dltips.tips.regularization.base import Regularization, regularization


class Average(Regularization):
    """A running average of the weights and of batch norm's statistics, which replaces the net's in validations."""

    def mix_in(self, net: FlatModel, share: float) -> None:
        """Computes average += share * (net - average); the first call copies the net."""
        if "parameters" not in self.state:
            self.state["parameters"] = net.parameters.clone()
            self.state |= {name: buffer.clone() for name, buffer in self._buffers(net)}
            return
        self.state["parameters"].lerp_(net.parameters, share)
        for name, buffer in self._buffers(net):
            self.state[name].lerp_(buffer, share)

    def swap(self, net: FlatModel) -> None:
        """Exchanges the average with the net's own values; a second call exchanges them back."""
        if "parameters" in self.state:
            _exchange(self.state["parameters"], net.parameters)
            for name, buffer in self._buffers(net):
                _exchange(self.state[name], buffer)

    def on_unfreeze(self) -> None:
        for name in [name for name, value in self.state.items() if isinstance(value, Tensor)]:
            del self.state[name]

    @staticmethod
    def _buffers(net: FlatModel) -> list[tuple[str, Tensor]]:
        return [
            (name, buffer)
            for name, buffer in net.module.named_buffers()
            if buffer.is_floating_point() and name not in net.constant
        ]


@regularization.named("ema")
@card(
    when="nearly always at the end of a training with a high rate: the average is calmer than any single step's"
    " weights",
    formula="average = decay * average + (1 - decay) * w after each step",
    source="Polyak and Juditsky 1992, Acceleration of Stochastic Approximation by Averaging; Tarvainen and Valpola"
    " 2017, arXiv 1703.01780",
    recommends="a decay of 0.99 while the net learns quickly, 0.999 later (Tarvainen and Valpola)",
    costs="a second copy of the weights, one pass over them per step",
    avoid={
        "regularization=swa": "both take the net's place in validations, and the later one in the list wins; take one"
    },
)
class ExponentialMovingAverage(Average):
    """Validates and keeps an exponential moving average of the weights and of batch norm's statistics."""

    def __init__(self, *, decay: Fraction) -> None:
        super().__init__()
        self.decay = decay

    def after_step(self, net: FlatModel) -> None:
        self.mix_in(net, 1 - self.decay)


@regularization.named("swa")
@card(
    when="the last quarter of a training whose rate stays up: the epochs' weights lie around a flat optimum, their mean"
    " in it",
    formula="average = mean of w over the ends of the epochs from number `start` on; batch norm's statistics are"
    " averaged likewise, not computed anew over the training set as in the paper",
    source="Izmailov et al. 2018, arXiv 1803.05407",
    recommends="start after 75 % of the epochs, at a constant or cyclical rate",
    costs="a second copy of the weights, one pass over them per epoch",
    avoid={
        "schedule=cosine": "the rate falls to 0, so that the epochs that are averaged hardly differ; take"
        " schedule=constant or step",
        "schedule=linear": "the rate falls to 0, so that the epochs that are averaged hardly differ; take"
        " schedule=constant or step",
        "schedule=one_cycle": "the rate falls to 0, so that the epochs that are averaged hardly differ; take"
        " schedule=constant or step",
    },
)
class StochasticWeightAveraging(Average):
    """Validates and keeps the mean of the weights at the ends of epochs, from epoch `start` on (Izmailov 2018).

    Without a start it is the last quarter of the run, as it was planned first: a resumed run keeps its start.
    """

    def __init__(self, *, start: Size | None) -> None:
        super().__init__()
        self.start = start or 1
        self.is_given = start is not None

    def plan(self, epochs: int) -> None:
        """Sets the default start. Raises ConfigError for a start after the last epoch."""
        if not self.is_given:
            self.start = max(1, epochs * 3 // 4)
        if 0 < epochs < self.start:
            raise ConfigError(
                f"regularization.swa.start: epoch {self.start} comes after the last of {epochs}; write"
                f" regularization.swa.start={max(1, epochs * 3 // 4)}"
            )

    def on_unfreeze(self) -> None:
        super().on_unfreeze()
        self.state["start"] = max(self.state.get("start", self.start), self.state.get("epochs", 0) + 1)

    def end_epoch(self, net: FlatModel) -> None:
        self.state["epochs"] = self.state.get("epochs", 0) + 1
        start = self.state.setdefault("start", self.start)
        if self.state["epochs"] >= start:
            self.mix_in(net, 1 / (self.state["epochs"] - start + 1))


def _exchange(a: Tensor, b: Tensor) -> None:
    kept = a.clone()
    a.copy_(b)
    b.copy_(kept)
