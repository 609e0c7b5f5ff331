"""Maps other libraries' tensor names to ours: a record above the model's function, beside its card."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True, kw_only=True)
class KeyMap:
    """One library's names for a model's tensors, and the images that its weights were trained on.

    It is its own decorator: `@model` above `@KeyMap(...)` above `@card(...)` above the function.
    """

    name: str  # "torchvision"
    # (pattern, replacement) as re.sub takes them, each applied to every key in turn: from their names to ours
    renames: Sequence[tuple[str, str | Callable[[re.Match[str]], str]]]
    size: int  # pixels a side
    # the switches of the nets that have these names, as far as one record can tell: `model.depth`, `activation`
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, function: Function) -> Function:
        _key_maps.setdefault(function, []).insert(0, self)
        return function

    def ours(self, key: str) -> str:
        """Returns our name of one of their tensors."""
        for pattern, replacement in self.renames:
            key = re.sub(pattern, replacement, key)
        return key

    def translated(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns their tensors under our names. A bias before a batch norm, which ours lack, moves into its mean."""
        ours = {self.ours(key): tensor for key, tensor in state.items()}
        for bias in [key for key in ours if key.endswith(".layer.bias")]:
            mean = bias.removesuffix("layer.bias") + "norm.running_mean"
            if mean in ours:
                ours[mean] = ours[mean] - ours.pop(bias)
        return ours


_key_maps: dict[Any, list[KeyMap]] = {}


def key_maps_of(function: Callable[..., Any]) -> Sequence[KeyMap]:
    """Returns the key maps of a model's function, in order; our own names need none."""
    return tuple(_key_maps.get(function, ()))
