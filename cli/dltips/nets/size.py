"""Measures a net: parameters, megabytes, FLOPs per sample, and the receptive field."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dltips.nets.blocks import Concat, PaddedShortcut, Residual
from dltips.nets.flat import is_norm

COUNTED_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.LSTM, nn.GRU)


@dataclass(frozen=True)
class Size:
    parameters: int
    size_mb: float  # of the weights and buffers, in units of 10^6 bytes
    flops_per_sample: int  # of one forward pass: two per multiply-add in the layers with weights
    receptive_field: tuple[int, ...] | None  # of a unit of the last feature map, per axis; None: unknown


def measure(model: nn.Module, input_shape: Sequence[int], device: torch.device) -> Size:
    """Measures with one sample, in eval mode; changes nothing in the net."""
    was_training = [(module, module.training) for module in model.modules()]
    try:
        with torch.inference_mode():
            flops = _flops(model.eval(), torch.zeros((1, *input_shape), device=device))
    finally:
        for module, training in was_training:
            module.training = training
    parameters = sum(parameter.numel() for parameter in model.parameters())
    tensors = [*model.parameters(), *model.buffers()]
    size_mb = sum(math.prod(tensor.shape) * tensor.element_size() for tensor in tensors) / 1e6
    return Size(parameters, round(size_mb, 6), flops, receptive_field(model))


def _flops(model: nn.Module, sample: Tensor) -> int:
    """Returns the FLOPs, by hooks on the layers; by torch's own counter (1.5 s) for nets that compute elsewhere."""
    if any(_computes_unseen(module) for module in model.modules()):
        return _flops_of_operations(model, sample)
    total = 0

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
        nonlocal total
        if isinstance(layer, nn.LSTM | nn.GRU):
            # every matrix once per time step; (N, T, F), or (T, N, F)
            steps = inputs[0].shape[1 if layer.batch_first else 0]
            total += 2 * steps * sum(weight.numel() for weight in layer.parameters() if weight.dim() == 2)
        elif hasattr(layer, "flops_per_sample"):
            total += int(layer.flops_per_sample)  # type: ignore[arg-type]
        else:
            weight = layer.weight
            assert isinstance(weight, Tensor)
            total += 2 * weight.numel() * (output.numel() // output.shape[0] // weight.shape[0])

    layers = [layer for layer in model.modules() if _is_counted(layer)]
    handles = [layer.register_forward_hook(count) for layer in layers]
    try:
        model(sample)
    finally:
        for handle in handles:
            handle.remove()
    return total


def _is_counted(module: nn.Module) -> bool:
    """Returns whether it is a layer with weights, a convolution by another name, or declares its own FLOPs."""
    convolves = hasattr(module, "kernel_size") and hasattr(module, "weight")
    return isinstance(module, COUNTED_LAYERS) or convolves or hasattr(module, "flops_per_sample")


def _computes_unseen(module: nn.Module) -> bool:
    """Returns whether a module multiplies matrices outside of hooked layers: attention, or matrices of its own."""
    if _is_counted(module) or is_norm(module):
        return False
    matrices = any(parameter.dim() >= 2 for parameter in module.parameters(recurse=False))
    return matrices or "attention" in type(module).__name__.lower()


def _flops_of_operations(model: nn.Module, sample: Tensor) -> int:
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    # the counter does not know every fused kernel, but the products that they stand for
    with counter, sdpa_kernel(SDPBackend.MATH):
        model(sample)
    return int(counter.get_total_flops())


class _UnknownLayer(Exception):
    """A module whose receptive field only a forward pass would show."""


@dataclass(frozen=True)
class _FieldOfView:
    """The receptive field per axis, and its shift between neighbouring units."""

    field: tuple[int, ...] = ()
    jump: tuple[int, ...] = ()
    ended: bool = False  # a unit of the following layers sees everything

    def through(self, kernel: Any, stride: Any, dilation: Any, axes: int) -> _FieldOfView:
        field, jump = self.field or (1,) * axes, self.jump or (1,) * axes
        kernel, stride, dilation = (_per_axis(setting, axes) for setting in (kernel, stride, dilation))
        return _FieldOfView(
            tuple(r + (k - 1) * d * j for r, k, d, j in zip(field, kernel, dilation, jump, strict=True)),
            tuple(j * s for j, s in zip(jump, stride, strict=True)),
        )


def receptive_field(model: nn.Module) -> tuple[int, ...] | None:
    """Returns the pixels per axis that a unit of the last feature map before the head sees, padding included.

    None without a convolution, or for a net that is not a chain of known layers. The statistics of norms, which see the
    whole input, are not counted.
    """
    try:
        return _field_after(model, _FieldOfView()).field or None
    except _UnknownLayer:
        return None


def _field_after(module: nn.Module, view: _FieldOfView) -> _FieldOfView:
    if isinstance(module, nn.Sequential):
        for child in module:
            if view.ended:
                break
            view = _field_after(child, view)
        return view
    if isinstance(module, Residual | Concat):
        branches = [module.body, module.shortcut] if isinstance(module, Residual) else list(module.children())
        views = [_field_after(branch, view) for branch in branches]
        fields = [seen.field for seen in views if seen.field]
        return _FieldOfView(tuple(map(max, zip(*fields, strict=True))), max(seen.jump for seen in views))
    if isinstance(module, PaddedShortcut):
        return view.through(1, module.stride, 1, 2)
    if hasattr(module, "kernel_size") and hasattr(module, "stride"):
        axes = 1 if isinstance(module, nn.Conv1d | nn.MaxPool1d | nn.AvgPool1d) else 2
        return view.through(module.kernel_size, module.stride, getattr(module, "dilation", 1), axes)
    if isinstance(module, GLOBAL_LAYERS):
        return _FieldOfView(view.field, view.jump, ended=True)
    if is_norm(module) or isinstance(module, nn.Identity) or _defining_module(module) in ELEMENTWISE:
        return view
    raise _UnknownLayer


GLOBAL_LAYERS = (
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool1d,
    nn.AdaptiveMaxPool2d,
    nn.Flatten,
    nn.Linear,
)
ELEMENTWISE = ("torch.nn.modules.activation", "torch.nn.modules.dropout", "dltips.tips.activation")


def _defining_module(module: nn.Module) -> str:
    return type(module).__module__


def _per_axis(setting: Any, axes: int) -> tuple[int, ...]:
    return tuple(setting) if isinstance(setting, tuple) else (int(setting),) * axes
