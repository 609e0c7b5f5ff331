"""The mean of a stage's output over its places, tokens or steps, whichever axis holds the channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class Widths:
    """How many channels the net's layers put out, by the axis on which they have them."""

    first: frozenset[int]  # (N, C, ...)
    last: frozenset[int]  # (..., C)
    steps: bool  # whether (N, C, T) is what the net works on

    @classmethod
    def of(cls, model: nn.Module, heads: Sequence[nn.Module]) -> Widths:
        """Of all layers but the classifiers."""
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
        """Of a stage's output with more than two axes."""
        ahead, behind = shape[1] in self.first, shape[-1] in self.last
        if ahead != behind:
            return behind
        if len(shape) == 3:
            return not self.steps
        return shape[1] == shape[2] != shape[3]  # two sides of a square, then the channels


class Pool(nn.Module):
    """(N, C, H, W), (N, H, W, C), (N, T, C) or (N, C, T) to (N, C): told apart by the widths of a net's layers."""

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
    """The output itself, or the first of several, as a recurrent layer has them."""
    while isinstance(output, tuple | list):
        output = output[0]
    assert isinstance(output, Tensor)
    return output
