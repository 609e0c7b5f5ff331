"""Measures each layer per epoch on one fixed probe batch, to recognize dead, saturated or stalled layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch.nn import functional

from dltips.nets.flat import FlatModel, weighted_layers

FLOAT32_NORM_NUMBERS = 2**16  # numbers whose norm is right to five digits in float32; of ten million it is off by 0.4 %
SATURATED = 0.01  # a bounded activation within 1 % of its range from a bound
# A weight or an activation up to 1 % of its layer's root mean square: 0.8 % of normally distributed numbers. Relative
# to the layer's scale, since a factor may be moved between two layers of ReLUs without changing the net.
NEAR_ZERO = 0.01
TINY = 1e-30  # distinguishes 0 from what is above, for weights of any scale


class LayerStatistics:
    """Measures a net, or its trainable part, in eval mode; leaves gradients zero and changes no bit of them.

    layers/<layer>/mean and variance of the output; for activations dead (share of units that are 0 for every sample),
    sparsity (share of outputs that are 0, or NEAR_ZERO) and, where the activation is bounded, saturated (share of
    outputs at a bound); for weighted layers gradient_norm (of the weight, on the probe batch), update_ratio (norm of
    the epoch's last update over the weight's norm), near_zero and positive (shares of the weights), and
    unit_norm_spread (standard deviation over mean of the norms of the units' weight vectors).
    """

    def __init__(
        self, inputs: Tensor, targets: Tensor, model: nn.Module, autocast: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self.inputs = inputs
        self.targets = targets
        self.autocast = autocast
        self.model = model
        self.layers = dict(weighted_layers(model))
        self.activations = {
            name: module
            for name, module in model.named_modules()
            if type(module).__module__ == "torch.nn.modules.activation"
        }
        self.names = {id(layer.weight): name for name, layer in self.layers.items()}
        self.before: Tensor | None = None

    def before_last_step(self, net: FlatModel) -> None:
        """Copies the weights, to measure the epoch's last update."""
        self.before = net.parameters.clone()

    def measure(self, net: FlatModel) -> dict[str, float]:
        """Returns all statistics of the net's current state."""
        readings = _Readings()
        handles = [module.register_forward_hook(self._watch(name, readings)) for name, module in self._watched()]
        was_training = self.model.training
        try:
            if was_training:  # else a validation came before, and traversing all modules again takes time
                self.model.eval()
            with self.autocast():
                outputs = self.model(self.inputs)
            self._weights(net, functional.cross_entropy(outputs.float(), self.targets), readings)
        finally:
            for handle in handles:
                handle.remove()
            if was_training:
                net.train()
        return readings.values()

    def _watched(self) -> Iterable[tuple[str, nn.Module]]:
        return {**self.layers, **self.activations}.items()

    def _watch(self, name: str, readings: _Readings) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        is_activation = name in self.activations

        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            output = output.detach().float()
            count = output.numel()
            total = output.sum()
            readings.add(name, "mean", total, lambda total: total / count)
            if count > FLOAT32_NORM_NUMBERS:
                readings.add(name, "variance", output.var(correction=0))
            else:  # half as slow as var
                deviation = torch.linalg.vector_norm(output.sub(total, alpha=1 / count))
                readings.add(name, "variance", deviation, lambda norm: norm * norm / count)
            if is_activation:
                # per unit; of a channel, at every place
                magnitudes = output.abs()
                largest = magnitudes.amax((0, *range(2, output.dim())))
                units = largest.numel()
                readings.add(name, "dead", torch.count_nonzero(largest), lambda alive: (units - alive) / units)
                far = _far_from_0(magnitudes, torch.linalg.vector_norm(output))
                readings.add(name, "sparsity", far, lambda signs: (count - signs) / (2 * count))
                at_bound = _at_bound(module, output)
                if at_bound is not None:
                    readings.add(name, "saturated", torch.count_nonzero(at_bound), lambda hits: hits / count)

        return hook

    def _weights(self, net: FlatModel, loss: Tensor, readings: _Readings) -> None:
        """Records the norms of the gradients and of the last update, weight by weight."""
        weights = [
            (self.names[id(segment.parameter)], segment)
            for segment in net.segments
            if id(segment.parameter) in self.names
        ]
        if not weights:
            return
        gradients = torch.autograd.grad(loss, [segment.parameter for _, segment in weights], materialize_grads=True)
        for (name, _), gradient in zip(weights, gradients, strict=True):
            readings.add(name, "gradient_norm", torch.linalg.vector_norm(gradient))
        moved = None if self.before is None else net.parameters - self.before
        for name, segment in weights:
            weight = segment.parameter.detach()
            norm = torch.linalg.vector_norm(weight)
            if moved is not None:
                step = torch.linalg.vector_norm(moved[segment.start : segment.stop])
                readings.add(name, "update_ratio", step / norm.clamp(min=1e-12))
            self._weight_shares(name, weight, norm, readings)

    def _weight_shares(self, name: str, weight: Tensor, norm: Tensor, readings: _Readings) -> None:
        """Records the shares of weights near 0 and of positive ones, and the spread of the units' norms."""
        count = weight.numel()
        readings.add(name, "near_zero", _far_from_0(weight.abs(), norm), lambda signs: (count - signs) / (2 * count))
        # the sum of the signs, where 0 counts as negative
        signs = weight.sub(TINY).sign_().sum()
        readings.add(name, "positive", signs, lambda signs: (count + signs) / (2 * count))
        units = torch.linalg.vector_norm(weight, dim=tuple(range(1, weight.dim())))
        deviation, mean = torch.std_mean(units, correction=0)
        readings.add(name, "unit_norm_spread", deviation / mean.clamp(min=1e-12))


class _Readings:
    """Collects numbers on the device: one transfer at the end, the remaining arithmetic in Python."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.tensors: list[Tensor] = []
        self.finishes: list[Callable[[float], float]] = []

    def add(
        self, layer: str, statistic: str, value: Tensor, finish: Callable[[float], float] = lambda value: value
    ) -> None:
        self.names.append(f"layers/{layer}/{statistic}")
        self.tensors.append(value)
        self.finishes.append(finish)

    def values(self) -> dict[str, float]:
        if not self.tensors:
            return {}
        values = torch.stack(self.tensors).tolist()
        return {name: finish(value) for name, finish, value in zip(self.names, self.finishes, values, strict=True)}


def _far_from_0(magnitudes: Tensor, norm: Tensor) -> Tensor:
    """Returns how many magnitudes are not NEAR_ZERO minus how many are, given their norm; overwrites the magnitudes.

    A comparison and its count take 10 us for 16,384 weights on a CPU, signs and their sum 5.
    """
    share = NEAR_ZERO / math.sqrt(magnitudes.numel())
    return magnitudes.sub_(norm + TINY, alpha=share).sign_().sum()


def _at_bound(module: nn.Module, output: Tensor) -> Tensor | None:
    bounds = {nn.Sigmoid: (0.0, 1.0), nn.Tanh: (-1.0, 1.0)}.get(type(module))
    if bounds is None:
        return None
    low, high = bounds
    margin = SATURATED * (high - low)
    return (output < low + margin) | (output > high - margin)
