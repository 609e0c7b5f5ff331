"""What the models share: the family, and blocks to build from."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from torch import nn

from dltips.registry import family

model = family("model")

Activation = Callable[[], nn.Module]


def block(layer: nn.Module, norm: nn.Module | None, activation: nn.Module) -> nn.Sequential:
    """A weighted layer, its normalization and its activation, as one stage."""
    parts = OrderedDict([("layer", layer)])
    if norm is not None:
        parts["norm"] = norm
    parts["activation"] = activation
    return nn.Sequential(parts)
