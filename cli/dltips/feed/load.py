"""A run's source, with what data.image_size asks for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from dltips.registry import ConfigError
from dltips.tips.data import Common, Source

CHUNK = 1024  # images resized at a time


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
        inputs=resize(source.inputs, size),
        val_inputs=None if source.val_inputs is None else resize(source.val_inputs, size),
        test_inputs=None if source.test_inputs is None else resize(source.test_inputs, size),
        hash=f"{source.hash}-{size}",
    )


def resize(images: Tensor, size: int) -> Tensor:
    """(N, C, H, W) uint8 images at size x size pixels, bilinear, antialiased where they shrink."""
    resized = torch.empty((*images.shape[:2], size, size), dtype=images.dtype)
    for start in range(0, len(images), CHUNK):
        part = images[start : start + CHUNK].float()
        part = functional.interpolate(part, (size, size), mode="bilinear", antialias=True)
        resized[start : start + CHUNK] = part.round_().clamp_(0, 255)
    return resized
