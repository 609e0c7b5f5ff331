"""What optimizers share: the state, the common knobs, rates layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from dltips.catalog.registry import NonNegative, check_value, family
from dltips.errors import ConfigError, suggest
from dltips.nets.flat import FlatModel

optimizer = family("optimizer")


@dataclass
class Optimizer:
    """An optimizer's state and step: `step(learning_rate)` updates the net; `state` goes to the checkpoint."""

    learning_rate: float
    step: Callable[[float], None]
    state: dict[str, Tensor] = field(default_factory=dict)


@optimizer.common
@dataclass(frozen=True, kw_only=True)
class OptimizerKnobs:
    """The knobs that every optimizer has: the reduction of a batch's gradients, and rates layer by layer."""

    reduction: Literal["mean", "sum"]
    rates: dict[str, Any]


def with_rates(
    rule: Optimizer,
    net: FlatModel,
    rates: Mapping[str, Any],
    stages: Mapping[str, float] | None = None,
    later: Sequence[str] = (),
) -> Optimizer:
    """Returns the optimizer with a factor per parameter on its steps: `{head: 10, stage1: 0.1, bias: 2}`.

    A key is a stage, a layer, a parameter, or `bias` for all biases; the longest name that fits a parameter decides,
    `bias` before all. `{stage1: {conv1: 2}}` is `{stage1.conv1: 2}`, as the command line writes it. 0 freezes. Exact
    for every rule whose step is proportional to the rate, as all are but torch's Rprop. Raises ConfigError for a name
    that fits nothing.

    `stages` are factors by parameter, of a fine-tuning strategy, which the others multiply; `later` are names of
    parameters that are frozen now and train later.
    """
    stages = stages or {}
    if not rates and all(factor == 1 for factor in stages.values()):
        return rule
    factors = torch.ones_like(net.parameters)
    for segment in net.segments:
        factors[segment.start : segment.stop] = stages.get(segment.name, 1.0)
    typed_factors = torch.ones_like(factors)
    checked = {key: check_value(f"optimizer.rates.{key}", value, NonNegative) for key, value in _flattened(rates)}
    for key in sorted(checked, key=lambda key: (key == "bias", len(key))):
        matching = [segment for segment in net.segments if _key_fits(segment.name, key)]
        if not matching and not any(_key_fits(name, key) for name in later):
            names = {prefix for segment in net.segments for prefix in _name_prefixes(segment.name)} | {"bias"}
            raise ConfigError(f"optimizer.rates.{key}: fits no parameter of this net{suggest(key, names)}")
        for segment in matching:
            typed_factors[segment.start : segment.stop] = checked[key]
    net.rate_factors = factors.mul_(typed_factors)

    def step(learning_rate: float) -> None:
        before = net.parameters.clone()
        rule.step(learning_rate)
        net.parameters.sub_(before).mul_(factors).add_(before)

    return Optimizer(rule.learning_rate, step, rule.state)


def _flattened(rates: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in rates.items():
        if isinstance(value, Mapping) and value:
            yield from _flattened(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _key_fits(name: str, key: str) -> bool:
    # bias, and a recurrent layer's bias_ih_l0
    is_bias = name.rpartition(".")[2].startswith("bias")
    return is_bias if key == "bias" else key in _name_prefixes(name)


def _name_prefixes(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts) + 1)]


def descend(net: FlatModel, direction: Tensor, rate: float) -> None:
    """w -= rate * direction"""
    net.parameters.add_(direction, alpha=-rate)


def zero_buffers(net: FlatModel, count: int) -> list[Tensor]:
    """Returns so many flat tensors of zeros."""
    return [torch.zeros_like(net.parameters) for _ in range(count)]


def check_nesterov(nesterov: bool, momentum: float) -> None:
    """Raises ConfigError for nesterov without momentum."""
    if nesterov and momentum == 0:
        raise ConfigError("optimizer.nesterov: true needs a momentum; set optimizer.momentum=0.9")


def two_below_one(key: str, values: tuple[float, ...]) -> tuple[float, float]:
    """Returns the two numbers. Raises ConfigError unless both are below 1."""
    if len(values) != 2 or max(values) >= 1:
        raise ConfigError(f"{key}: {list(values)} is not two numbers below 1")
    return values[0], values[1]
