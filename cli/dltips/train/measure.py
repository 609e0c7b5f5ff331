"""The size of a net: parameters, megabytes, FLOPs per sample."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Size:
    parameters: int
    size_mb: float  # of the weights and buffers, in units of 10^6 bytes
    flops_per_sample: int  # of one forward pass: two per multiply-add in linear and convolution layers


def measure(model: nn.Module, input_shape: Sequence[int], device: torch.device) -> Size:
    """Count by forward hooks on one sample, in eval mode: changes nothing in the net."""
    total = 0

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        weight = layer.get_parameter("weight")
        places = output.numel() // output.shape[0] // weight.shape[0]
        total += 2 * weight.numel() * places

    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d)
    handles = [layer.register_forward_hook(count) for layer in model.modules() if isinstance(layer, kinds)]
    was_training = model.training
    try:
        with torch.inference_mode():
            model.eval()(torch.zeros((1, *input_shape), device=device))
    finally:
        model.train(was_training)
        for handle in handles:
            handle.remove()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    tensors = [*model.parameters(), *model.buffers()]
    size_mb = sum(math.prod(tensor.shape) * tensor.element_size() for tensor in tensors) / 1e6
    return Size(parameters, round(size_mb, 6), total)
