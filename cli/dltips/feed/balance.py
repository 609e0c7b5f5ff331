"""Classes that are rare: drawn as often as the others, or given as much weight."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from dltips.registry import ConfigError


def class_weights(targets: Tensor, classes: int) -> Tensor:
    """(K,) N / (K * N_k): 1 on average over the samples; 0 for a class that is not there."""
    counts = torch.bincount(targets, minlength=classes)
    present = int((counts > 0).sum())
    return torch.where(counts > 0, len(targets) / (present * counts.clamp(min=1)), 0.0)


def balanced_order(targets: Tensor, classes: int, generator: Generator) -> Tensor:
    """An epoch's samples drawn with replacement, each class with the same probability. (N,) int64"""
    weights = class_weights(targets, classes).double()[targets]
    # torch.multinomial takes at most 2^24 categories
    cumulated = weights.cumsum(0)
    drawn = torch.rand(len(targets), generator=generator, dtype=torch.float64) * cumulated[-1]
    return torch.searchsorted(cumulated, drawn, right=True).clamp(max=len(targets) - 1)


def check(balance: str, shuffle: bool) -> None:
    """Errors: ConfigError."""
    if balance == "sampling" and not shuffle:
        raise ConfigError("data.shuffle: false contradicts data.balance=sampling, which draws; use data.balance=loss")
