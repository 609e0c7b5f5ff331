"""Schemes that depend on neither fan nor activation: the library's own, and the controls."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dltips.catalog.cards import card
from dltips.catalog.registry import NonNegative
from dltips.errors import ConfigError
from dltips.tips.init.base import Distribution, GeneratorFor, by_fans, init, weights_of, zero_biases


@init
@card(
    when="as a yardstick: what a script without an init scheme gets",
    formula="weights and biases uniform within 1 / sqrt(fan_in), so std = 1 / sqrt(3 fan_in); weights times init.scale",
    source="torch.nn.Linear and its like: kaiming_uniform_ with a = sqrt(5); LeCun et al. 1998, section 4.6",
    costs="nothing: once, before the first step",
)
@torch.no_grad()
def default(model: nn.Module, generator_for: GeneratorFor, inputs: Tensor, *, scale: NonNegative) -> None:
    """PyTorch's own: uniform weights and biases within 1 / sqrt(fan_in)."""
    for name, module in model.named_modules():
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(generator_for(name).initial_seed())
                _reset_contiguous(module, reset)
    if scale != 1:
        for weight in weights_of(model):
            for matrix in weight.matrices:
                matrix.mul_(scale)


def _reset_contiguous(module: nn.Module, reset: Callable[[], object]) -> None:
    """Resets contiguous parameters, then restores their layout: older torch (2.6) draws in the order of the memory."""
    layouts = {parameter: parameter.data for parameter in module.parameters(recurse=False)}
    for parameter in layouts:
        parameter.data = parameter.data.contiguous()
    reset()
    for parameter, data in layouts.items():
        parameter.data = data.copy_(parameter.data)


@init
@card(
    when="never, save to see that it fails: the units of a layer get equal gradients and stay equal",
    formula="weights 0, biases 0",
    source="tips K, S and T, which warn of it",
    costs="the whole training: accuracy stays at chance",
)
@torch.no_grad()
def zeros(model: nn.Module, generator_for: GeneratorFor, inputs: Tensor, *, scale: NonNegative) -> None:
    """Every weight 0: all units of a layer compute the same, and symmetry never breaks. The control."""
    if scale != 1:
        raise ConfigError(f"init.scale: {scale:g} times 0 is 0, so that it changes nothing; take another init scheme")
    by_fans(model, generator_for, lambda fan_in, fan_out: 0.0, "normal", 1.0)


@init
@card(
    when="never, save to see that it fails: as with zeros the units of a layer stay equal, though gradients do flow",
    formula="weights value * init.scale, biases 0",
    source="the symmetry that tips K, S and T warn of, away from 0; Goodfellow et al. 2016, Deep Learning, section 8.4",
    costs="the whole training: each layer is as good as one unit",
)
@torch.no_grad()
def constant(
    model: nn.Module, generator_for: GeneratorFor, inputs: Tensor, *, value: float, scale: NonNegative
) -> None:
    """Every weight the same value: the units of a layer stay identical, as with zeros. A control."""
    for weight in weights_of(model):
        for matrix in weight.matrices:
            matrix.fill_(value * scale)
    zero_biases(model)


@init
@card(
    when="shallow nets; with depth the signal dies, by a factor of fan_in * std^2 of its variance at each linear layer",
    formula="weights std * N(0, 1), or uniform of the same standard deviation, biases 0",
    source="tips K and S",
    recommends="0.001 * N(0, 1); uniform works about as well",
    costs="nothing: once, before the first step",
)
@torch.no_grad()
def small_random(
    model: nn.Module,
    generator_for: GeneratorFor,
    inputs: Tensor,
    *,
    std: NonNegative,
    distribution: Distribution,
    scale: NonNegative,
) -> None:
    """std * N(0, 1), the same for every layer: works shallow, the signal dies with depth."""
    by_fans(model, generator_for, lambda fan_in, fan_out: std, distribution, scale)
