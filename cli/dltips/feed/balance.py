"""Balances rare classes: draws them as often as the others, or weights their loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn import functional

from dltips.errors import ConfigError


def class_weights(targets: Tensor, classes: int) -> Tensor:
    """Returns (K,) N / (K * N_k): 1 on average over the samples; 0 for a missing class."""
    counts = torch.bincount(targets, minlength=classes)
    present = int((counts > 0).sum())
    return torch.where(counts > 0, len(targets) / (present * counts.clamp(min=1)), 0.0)


def balanced_order(targets: Tensor, classes: int, generator: Generator) -> Tensor:
    """Returns an epoch's samples drawn with replacement, each class with the same probability. (N,) int64"""
    weights = class_weights(targets, classes).double()[targets]
    # torch.multinomial takes at most 2^24 categories
    cumulated = weights.cumsum(0)
    drawn = torch.rand(len(targets), generator=generator, dtype=torch.float64) * cumulated[-1]
    return torch.searchsorted(cumulated, drawn, right=True).clamp(max=len(targets) - 1)


def weighted_loss(weights: Tensor) -> Callable[..., Tensor]:
    """Returns the cross-entropy, each sample times its class's weight, as the mean over the samples.

    Not torch's weighted mean, which divides by the weights of the batch's samples: parts of a batch would not add up.
    """

    def loss(outputs: Tensor, targets: Tensor, **options: Any) -> Tensor:
        return functional.cross_entropy(outputs, targets, weight=weights, reduction="none", **options).mean()

    return loss


def check(balance: str, shuffle: bool) -> None:
    """Raises ConfigError if sampling is combined with an unshuffled order."""
    if balance == "sampling" and not shuffle:
        raise ConfigError("data.shuffle: false contradicts data.balance=sampling, which draws; use data.balance=loss")
