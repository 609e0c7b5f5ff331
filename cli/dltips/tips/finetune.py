"""Fine-tuning strategies: `(model, feed, *, knobs) -> Plan`: what trains, from when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from dltips.card import card
from dltips.registry import family

finetune = family("finetune")


@dataclass(frozen=True)
class Plan:
    """The names of the parameters that stay as they are."""

    frozen: Sequence[str] = ()

    def apply(self, model: nn.Module) -> None:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name not in self.frozen)


@finetune
@card(
    when="enough data to learn all weights from them; as the control for the others",
    formula="every parameter trains",
    source="-",
    costs="nothing",
)
def none(model: nn.Module, train_inputs: Tensor) -> Plan:
    """No fine-tuning: every parameter trains, from the init scheme's weights."""
    return Plan()
