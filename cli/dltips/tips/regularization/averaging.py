"""Averages of the weights over the training."""

from __future__ import annotations

from torch import Tensor

from dltips.net import Net
from dltips.registry import Fraction
from dltips.tips.regularization.base import Regularization, regularization


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
