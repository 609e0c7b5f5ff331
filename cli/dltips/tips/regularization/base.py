"""What regularizations share, and the one that does nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from dltips.catalog.cards import card
from dltips.catalog.registry import family

regularization = family("regularization")

Criterion = Callable[..., Tensor]  # (outputs (N, K), targets (N,) or shares (N, K)) -> mean loss


class Regularization:
    """The base of every regularization: tensors and numbers saved with the checkpoint."""

    state: dict[str, Any]

    def __init__(self) -> None:
        self.state = {}

    def on_unfreeze(self) -> None:
        """Resets the state kept per parameter: other parameters train from now on."""


@regularization.named("none")
@card(
    when="first, to see the gap between training and validation; a net that does not overfit needs no more",
    formula="objective = mean loss",
    source="the control",
    costs="nothing",
)
class Nothing(Regularization):
    """No regularization."""
