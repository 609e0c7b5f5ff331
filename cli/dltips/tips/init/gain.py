"""Computes the gain by which a weight's standard deviation compensates for the activation."""

from __future__ import annotations

import copy
import math
from collections import Counter
from typing import Literal

import torch
from torch import nn
from torch.nn.modules import activation as kinds

from dltips.tips.activation import Maxout

# torch lists them among the activations, but they are not functions of a single number
NOT_ELEMENTWISE = (kinds.MultiheadAttention, kinds.Softmax, kinds.Softmax2d, kinds.LogSoftmax, kinds.Softmin, kinds.GLU)


def squared_gain(gain: float | Literal["relu", "activation"], model: nn.Module) -> float:
    """Returns a knob's value, squared: 2 for relu, which halves the second moment."""
    if gain == "activation":
        return gain_of(model) ** 2
    return 2.0 if gain == "relu" else gain**2


def gain_of(model: nn.Module) -> float:
    """Returns 1 / sqrt(E[f(z)^2]), z ~ N(0, 1), of the activation f that the model uses most; 1 without one."""
    found = [module for module in model.modules() if isinstance(module, Maxout) or _is_elementwise(module)]
    if not found:
        return 1.0
    usual, _ = Counter(repr(module) for module in found).most_common(1)[0]
    return 1 / math.sqrt(second_moment(next(module for module in found if repr(module) == usual)))


def _is_elementwise(module: nn.Module) -> bool:
    return type(module).__module__ == kinds.__name__ and not isinstance(module, NOT_ELEMENTWISE)


@torch.no_grad()
def second_moment(activation: nn.Module) -> float:
    """Returns E[f(z)^2] for z ~ N(0, 1), by the trapezoidal rule with nodes 0.001 apart; RReLU with its mean slope."""
    nodes = torch.linspace(-12, 12, 24001, dtype=torch.float64)
    density = torch.exp(-nodes.square() / 2) / math.sqrt(2 * math.pi)
    if isinstance(activation, Maxout):  # the largest of k independent normals has density k phi(z) Phi(z)^(k - 1)
        below = torch.special.ndtr(nodes)
        squares = nodes.square() * activation.pieces * below ** (activation.pieces - 1)
    else:
        # a copy, because an activation may work in place and may have a slope in single precision
        squares = copy.deepcopy(activation).double().eval()(nodes.clone()).square()
    return float((squares * density).sum()) * 0.001
