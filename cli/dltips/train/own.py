"""Models that bring something of their own: weights and activations of a library, or a fit that needs no epochs.

Such a model says so by `keeps`, the families (`init`, `activation`) that it does not take, and `remedy`, how to have
them all the same; one that is fitted has `fit(inputs, targets)`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dltips import paths
from dltips.config import Config
from dltips.feed.batches import to_float
from dltips.feed.splits import Split
from dltips.registry import ConfigError

CHUNK = 1024  # samples preprocessed at a time


def kept(model: nn.Module) -> Sequence[str]:
    """The families that the model does not take."""
    families: Sequence[str] = getattr(model, "keeps", ())
    return families


def notes(model: nn.Module, config: Config) -> list[str]:
    """One line if the model keeps something. Errors: ConfigError if something else was chosen than the defaults."""
    families, name = kept(model), config.tip("model").name
    if not families:
        return []
    remedy = getattr(model, "remedy", "")
    for family in families:
        chosen = config.tip(family).name
        if chosen != _default(family):
            raise ConfigError(f"{family}: {chosen} cannot be had with model={name}, which keeps its own{remedy}")
    return [f"model={name} keeps its own {' and '.join(families)}{remedy}"]


def _default(family: str) -> str:
    from omegaconf import OmegaConf

    primary = OmegaConf.load(paths.shipped("configs") / "config.yaml")
    return next(str(entry[family]) for entry in primary.defaults if not isinstance(entry, str) and family in entry)


def fit(model: nn.Module, config: Config, preprocess: nn.Module, split: Split) -> None:
    """Hand the preprocessed training split to a model that is fitted. Errors: ConfigError."""
    augmentations = [tip.name for tip in config.tips["augmentation"] if tip.name != "none"]
    if augmentations and not config.common["data"]().expand:
        name = config.tip("model").name
        raise ConfigError(
            f"augmentation: model={name} is fitted once and sees no new draws; freeze copies with data.expand=4, or"
            " write augmentation=none"
        )
    device = next(preprocess.buffers()).device
    with torch.no_grad():
        parts: list[Tensor] = [
            preprocess(to_float(split.inputs[start : start + CHUNK].to(device))).cpu()
            for start in range(0, len(split), CHUNK)
        ]
    model.fit(torch.cat(parts), split.targets)  # type: ignore[operator]
