"""The steps of a preprocessing, which a checkpoint can hold, and Fill, the step for missing values."""

from __future__ import annotations

import inspect
from typing import ClassVar

import torch
from torch import Tensor, nn

from dltips.catalog.registry import family
from dltips.errors import ConfigError, suggest

preprocessing = family("preprocessing")


class Step(nn.Module):
    """One fitted step, made from its buffers alone, so that a checkpoint can save and restore it."""

    kinds: ClassVar[dict[str, type[Step]]] = {}

    def __init_subclass__(cls) -> None:
        Step.kinds[cls.__name__] = cls

    def __init__(self, **buffers: Tensor) -> None:
        super().__init__()
        for name, value in buffers.items():
            self.register_buffer(name, value.float())


class Fill(Step):
    """Replaces missing values (NaN) by `value`: the training split's mean, per feature."""

    value: Tensor

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.where(inputs.isnan(), self.value, inputs)


Saved = list[tuple[str, dict[str, Tensor]]]


def save(module: nn.Module) -> Saved:
    """Returns the steps of a fitted preprocessing, one or an nn.Sequential of them, as plain tensors."""
    steps = list(module) if isinstance(module, nn.Sequential) else [module]
    for step in steps:
        if not isinstance(step, Step):
            raise ConfigError(
                f"preprocessing: {type(step).__name__} is not a Step, so that no checkpoint could hold it;"
                " derive it from dltips.tips.preprocessing.Step"
            )
    return [(type(step).__name__, dict(step.named_buffers())) for step in steps]


def restore(saved: Saved) -> nn.Module:
    """Returns the saved preprocessing. Raises ConfigError for an unknown step, or missing tensors."""
    for kind, _ in saved:
        if kind not in Step.kinds:
            raise ConfigError(f"preprocessing: the checkpoint has a step {kind!r}{suggest(kind, Step.kinds)}")
    for kind, buffers in saved:
        declared = set(inspect.get_annotations(Step.kinds[kind]))
        if not declared <= set(buffers) or not all(isinstance(value, Tensor) for value in buffers.values()):
            raise ConfigError(f"preprocessing: the checkpoint's step {kind} lacks its statistics; take another one")
    steps = [Step.kinds[kind](**buffers) for kind, buffers in saved]
    return steps[0] if len(steps) == 1 else nn.Sequential(*steps)
