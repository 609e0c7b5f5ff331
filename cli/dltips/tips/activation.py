"""Activations: `(*, knobs) -> nn.Module`, a new one wherever the model wants one."""

from __future__ import annotations

from torch import nn

from dltips.registry import NonNegative, family

activation = family("activation")


@activation
def sigmoid() -> nn.Module:
    """1 / (1 + exp(-x)): saturates, kills gradients, is not zero-centred. The historical control."""
    return nn.Sigmoid()


@activation
def tanh() -> nn.Module:
    """tanh(x): zero-centred, but saturates as the sigmoid does."""
    return nn.Tanh()


@activation
def relu() -> nn.Module:
    """max(0, x): cheap, does not saturate, sparse; units can die at high rates (Nair and Hinton 2010)."""
    return nn.ReLU(inplace=True)


@activation
def leaky_relu(*, slope: NonNegative) -> nn.Module:
    """x where positive, slope * x elsewhere: no dead units (Maas et al. 2013)."""
    return nn.LeakyReLU(slope, inplace=True)


@activation
def prelu(*, start: NonNegative) -> nn.Module:
    """Leaky ReLU with a learned slope, one per layer (He et al. 2015, arXiv 1502.01852)."""
    return nn.PReLU(init=start)
