"""Any architecture of timm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from dltips.catalog.cards import card
from dltips.catalog.registry import Fraction
from dltips.errors import ConfigError, suggest
from dltips.nets.blocks import Activation, model, require_images

if TYPE_CHECKING:
    from types import ModuleType

REMEDY = "; it has its own, unless model.swap=true puts the chosen ones in their place"

# classes of timm and torch that a chosen activation can replace; a gate (a sigmoid) is not one
ACTIVATIONS = (
    *("relu", "relu6", "leakyrelu", "prelu", "elu", "celu", "selu", "gelu", "gelutanh", "quickgelu", "silu", "swish"),
    *("mish", "hardswish", "hardswishme"),
)


@model.named("timm")
@card(
    when="an architecture from the literature, as its authors trained it, for images",
    formula="that of the architecture",
    source="Wightman 2019, github.com/huggingface/pytorch-image-models; each architecture's own paper",
    costs="what the architecture costs; two seconds to import timm, which comes by pip install 'dltips[timm]'",
    try_with=("model.architecture=test_efficientnet",),
)
def timm_net(
    input_shape: tuple[int, ...],
    num_classes: int,
    activation: Activation,
    *,
    architecture: str,
    drop_rate: Fraction,
    drop_path_rate: Fraction,
    swap: bool,
) -> nn.Module:
    """Any timm architecture by name, not pretrained, for the input's channels and size.

    It keeps the init and the activation of its authors, unless swap=true puts the chosen ones in their place.
    """
    require_images("timm", input_shape)
    timm = _import_timm()
    known = timm.list_models()
    if architecture not in known:
        hint = suggest(architecture, known).or_else(f"; timm.list_models() has the {len(known)} that there are")
        raise ConfigError(
            f"model.architecture: {architecture!r} is not an architecture of timm {timm.__version__}{hint}"
        )
    settings: dict[str, Any] = {"num_classes": num_classes, "in_chans": input_shape[0]}
    rates = {"drop_rate": drop_rate, "drop_path_rate": drop_path_rate}
    settings |= {name: rate for name, rate in rates.items() if rate > 0}
    if timm.get_pretrained_cfg(architecture).fixed_input_size:
        settings["img_size"] = input_shape[1:]
    net = _create(timm, architecture, settings, input_shape)
    if swap:
        _swap(net, architecture, activation)
    else:
        net.keeps = ("init", "activation")  # type: ignore[assignment]
        net.remedy = REMEDY  # type: ignore[assignment]
    return net


def _import_timm() -> ModuleType:
    try:
        import timm
    except ImportError as error:
        raise ConfigError(
            f"model: timm cannot be imported ({error}); write pip install 'dltips[timm]', or take model=resnet"
        ) from error
    return timm


def _create(timm: ModuleType, architecture: str, settings: dict[str, Any], input_shape: tuple[int, ...]) -> nn.Module:
    """Returns the net, after a forward pass of an image of this size. Raises ConfigError."""
    try:
        net: nn.Module = timm.create_model(architecture, **settings)
        with torch.inference_mode():
            net.eval()(torch.zeros(1, *input_shape))
    except TypeError as error:
        refused = [name for name in settings if f"'{name}'" in str(error)]
        if not refused:
            raise
        raise ConfigError(f"model.{refused[0]}: {architecture} has no such setting; leave it out") from error
    except (RuntimeError, AssertionError, ValueError, ZeroDivisionError) as error:
        if "memory" in str(error):  # the caller reports that
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        size = "x".join(str(side) for side in input_shape[1:])
        raise ConfigError(
            f"model.architecture: {architecture} does not take {size} pixels ({reason}); write data.image_size=224"
        ) from error
    return net.train()


def _swap(net: nn.Module, architecture: str, activation: Activation) -> None:
    """Replaces the net's own activations by the chosen one. Raises ConfigError if it has none as a module."""
    found = [
        (parent, name)
        for parent in net.modules()
        for name, child in parent.named_children()
        if type(child).__name__.lower() in ACTIVATIONS
    ]
    if not found:
        raise ConfigError(
            f"model.swap: {architecture} has no activation that could be replaced; write model.swap=false"
        )
    for parent, name in found:
        setattr(parent, name, activation())
