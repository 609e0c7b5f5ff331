"""A run's source, with what data.image_size asks for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from dltips.registry import ConfigError
from dltips.tips.data import Common, Source
from dltips.tips.data.pictures import resize


def load(tip: Any, common: Common) -> Source:
    """Acquire the source, and bring its images to one size if asked. Errors: ConfigError."""
    source: Source = tip()
    size = common.image_size
    if size is None or tuple(source.inputs.shape[2:]) == (size, size):
        return source
    if source.inputs.dim() != 4 or source.inputs.dtype != torch.uint8:
        shape = tuple(source.inputs.shape[1:])
        raise ConfigError(f"data.image_size: is for images, but a sample's shape is {shape}; leave it out")
    return replace(
        source,
        inputs=resize(source.inputs, (size, size)),
        val_inputs=None if source.val_inputs is None else resize(source.val_inputs, (size, size)),
        test_inputs=None if source.test_inputs is None else resize(source.test_inputs, (size, size)),
        hash=f"{source.hash}-{size}",
    )
