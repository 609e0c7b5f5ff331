"""Statistics per layer and epoch on one fixed probe batch: what later says which layer is dead, saturated or still."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch.nn import functional

from dltips.net import Net, weighted_layers

SATURATED = 0.01  # a bounded activation within 1 % of its range from a bound


class LayerStatistics:
    """Watches a net, or the part of it that trains, in eval mode; it leaves gradients zero and changes no bit of them.

    layers/<layer>/mean and variance of the output; for activations dead (share of units that are 0 for every sample)
    and, where the activation is bounded, saturated (share of outputs at a bound); for weighted layers gradient_norm
    (of the weight, on the probe batch) and update_ratio (norm of the epoch's last update over the weight's norm).
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

    def before_last_step(self, net: Net) -> None:
        """Keep the weights, to see how far the epoch's last step moves them."""
        self.before = net.parameters.clone()

    def measure(self, net: Net) -> dict[str, float]:
        """All statistics of the net as it is now."""
        names: list[str] = []
        values: list[Tensor] = []

        def add(layer: str, statistic: str, value: Tensor) -> None:
            names.append(f"layers/{layer}/{statistic}")
            values.append(value.detach().float())

        def watch(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
            def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
                output = output.detach().float()
                # one by one: var_mean takes three times as long as both
                add(name, "mean", output.mean())
                add(name, "variance", output.var(correction=0))
                if name in self.activations:
                    # per unit; of a channel, at every place
                    alive = torch.count_nonzero(output, (0, *range(2, output.dim())))
                    add(name, "dead", (alive == 0).float().mean())
                    saturated = _saturated(module, output)
                    if saturated is not None:
                        add(name, "saturated", saturated)

            return hook

        watched = {**self.layers, **self.activations}
        handles = [module.register_forward_hook(watch(name)) for name, module in watched.items()]
        weights = [
            (self.names[id(segment.parameter)], segment, view)
            for segment, view in net.views(net.parameters)
            if id(segment.parameter) in self.names
        ]
        was_training = self.model.training
        try:
            net.gradients.zero_()
            with self.autocast():
                outputs = self.model.eval()(self.inputs)
            functional.cross_entropy(outputs.float(), self.targets).backward()  # type: ignore[no-untyped-call]
            for name, segment, _ in weights:
                add(name, "gradient_norm", torch.linalg.vector_norm(net.gradients[segment.start : segment.stop]))
            if self.before is not None:
                difference = net.parameters - self.before
                for name, segment, weight in weights:
                    moved = torch.linalg.vector_norm(difference[segment.start : segment.stop])
                    add(name, "update_ratio", moved / torch.linalg.vector_norm(weight).clamp(min=1e-12))
        finally:
            for handle in handles:
                handle.remove()
            net.gradients.zero_()
            if was_training:
                net.train()
        return dict(zip(names, torch.stack(values).tolist(), strict=True)) if values else {}


def _saturated(module: nn.Module, output: Tensor) -> Tensor | None:
    bounds = {nn.Sigmoid: (0.0, 1.0), nn.Tanh: (-1.0, 1.0)}.get(type(module))
    if bounds is None:
        return None
    low, high = bounds
    margin = SATURATED * (high - low)
    return ((output < low + margin) | (output > high - margin)).float().mean()
