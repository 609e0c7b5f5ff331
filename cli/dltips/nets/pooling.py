"""Averages a stage's output over its positions, tokens or steps, whichever axis holds the channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class Widths:
    """The layers' numbers of output channels, by the axis that holds them."""

    first: frozenset[int]  # (N, C, ...)
    last: frozenset[int]  # (..., C)
    steps: bool  # whether the net works on (N, C, T)

    @classmethod
    def of(cls, model: nn.Module, heads: Sequence[nn.Module]) -> Widths:
        """Returns the widths of all layers but the classifiers."""
        first: set[int] = set()
        last: set[int] = set()
        steps = False
        for part in model.modules():
            if any(part is head for head in heads):
                continue
            steps = steps or isinstance(part, nn.Conv1d)
            if isinstance(part, nn.Conv1d | nn.Conv2d | nn.Conv3d):
                first.add(part.out_channels)
            elif isinstance(part, nn.modules.batchnorm._BatchNorm):
                first.add(part.num_features)
            elif isinstance(part, nn.GroupNorm):
                first.add(part.num_channels)
            elif isinstance(part, nn.Linear):
                last.add(part.out_features)
            elif isinstance(part, nn.LayerNorm):
                last.add(part.normalized_shape[-1])
        return cls(frozenset(first), frozenset(last), steps)

    def channels_last(self, shape: Sequence[int]) -> bool:
        """Returns whether a stage's output with more than two axes has its channels last."""
        ahead, behind = shape[1] in self.first, shape[-1] in self.last
        if ahead != behind:
            return behind
        if len(shape) == 3:
            return not self.steps
        return shape[1] == shape[2] != shape[3]  # two equal sides, then the channels


class Pool(nn.Module):
    """Pools (N, C, H, W), (N, H, W, C), (N, T, C) or (N, C, T) to (N, C); the layers' widths tell the axes."""

    def __init__(self, widths: Widths) -> None:
        super().__init__()
        self.widths = widths

    def forward(self, output: Any) -> Tensor:
        tensor = tensor_of(output)
        if tensor.dim() < 3:
            return tensor
        if self.widths.channels_last(tensor.shape):
            return tensor.flatten(1, -2).mean(1)
        return tensor.flatten(2).mean(2)


def tensor_of(output: Any) -> Tensor:
    """Returns the output itself, or the first of several, as a recurrent layer has them."""
    while isinstance(output, tuple | list):
        output = output[0]
    assert isinstance(output, Tensor)
    return output
