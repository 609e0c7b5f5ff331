"""Lets models bring something of their own: weights and activations of a library, or a fit without epochs.

Such a model declares `keeps`, the families (`init`, `activation`) that it does not take, and `remedy`, the way to use
them anyway; a fitted one has `fit(inputs, targets)`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dltips import paths
from dltips.config.plain import to_plain
from dltips.config.validation import Config
from dltips.errors import ConfigError
from dltips.feed.batches import to_float
from dltips.feed.splits import Split

PREPROCESS_CHUNK = 1024  # samples preprocessed at a time


def kept_families(model: nn.Module) -> Sequence[str]:
    """Returns the families that the model does not take."""
    families: Sequence[str] = getattr(model, "keeps", ())
    return families


def notes(model: nn.Module, config: Config) -> list[str]:
    """Returns one line if the model ignores families. Raises ConfigError if a non-default option was chosen for one."""
    families, name = kept_families(model), config.tip("model").name
    if not families:
        return []
    remedy = getattr(model, "remedy", "")
    for family in families:
        refuse(config, family, f"model={name}{remedy}")
    return [f"model={name} takes {' and '.join(f'no {family}' for family in families)}{remedy}"]


def refuse(config: Config, family: str, beside: str) -> None:
    """Raises ConfigError if a non-default option was chosen, which does not work `beside` the named one."""
    chosen, (default, knobs) = config.tip(family), _default(family)
    if chosen.name != default:
        raise ConfigError(f"{family}: {chosen.name} cannot be combined with {beside}")
    for knob, value in chosen.knobs.items():
        if value != knobs[knob]:
            raise ConfigError(f"{family}.{knob}: {value} cannot be combined with {beside}")


def _default(family: str) -> tuple[str, Mapping[str, Any]]:
    """Returns the family's default option and its knobs."""
    from omegaconf import OmegaConf

    folder = paths.shipped("configs")
    defaults = OmegaConf.load(folder / "config.yaml").defaults
    name = next(str(entry[family]) for entry in defaults if not isinstance(entry, str) and family in entry)
    return name, to_plain(OmegaConf.load(folder / family / f"{name}.yaml"))


def fit(model: nn.Module, config: Config, preprocess: nn.Module, split: Split) -> None:
    """Passes the preprocessed training split to a model that is fitted. Raises ConfigError."""
    name, common = config.tip("model").name, config.common["data"]()
    augmentations = [tip.name for tip in config.tips["augmentation"] if tip.name != "none"]
    if augmentations and not common.expand:
        raise ConfigError(
            f"augmentation: model={name} is fitted once and sees no new draws; freeze copies with data.expand=4, or"
            " write augmentation=none"
        )
    if common.balance != "none":
        raise ConfigError(
            f"data.balance: model={name} is fitted to the samples as they are, not to {common.balance}; write"
            " data.balance=none"
        )
    device = next(preprocess.buffers()).device
    with torch.no_grad():
        parts: list[Tensor] = [
            preprocess(to_float(split.inputs[start : start + PREPROCESS_CHUNK].to(device))).cpu()
            for start in range(0, len(split), PREPROCESS_CHUNK)
        ]
    model.fit(torch.cat(parts), split.targets)  # type: ignore[operator]
