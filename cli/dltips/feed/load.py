"""Loads a run's source, as data.only_classes, data.image_size and a pretrained net require."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from dltips.catalog.registry import Tip
from dltips.errors import ConfigError, suggest
from dltips.tips.data import DataKnobs, Source
from dltips.tips.data.pictures import Form


@dataclass(frozen=True)
class RequiredInputs:
    """The inputs that a pretrained net requires; None where it takes the data as they are."""

    channels: int | None  # of images
    sides: tuple[int, int] | None  # (H, W) of images
    shape: tuple[int, ...] | None  # exact shape of a sample; only data.image_size may ask for other sides


def load(tip: Any, common: DataKnobs, wanted: RequiredInputs | None = None) -> Source:
    """Loads the source and the form that its images still have to get; notes report the net's requirements.

    Raises ConfigError.
    """
    wanted = wanted or RequiredInputs(None, None, None)
    if wanted.shape is not None and len(wanted.shape) == 3:
        wanted = RequiredInputs(wanted.shape[0], (wanted.shape[1], wanted.shape[2]), wanted.shape)
    source = _of_classes(_acquired(tip, common, wanted), common.only_classes)
    if source.inputs.dim() == 4 and source.inputs.dtype == torch.uint8:
        return _formed(source, common, wanted)
    shape = tuple(source.inputs.shape[1:])
    if common.image_size is not None:
        raise ConfigError(f"data.image_size: is for images, but a sample's shape is {shape}; leave it out")
    if wanted.shape is not None and shape != wanted.shape:
        raise _shape_error(shape, str(wanted.shape))
    if wanted.shape is None and (wanted.channels, wanted.sides) != (None, None):
        raise _shape_error(shape, "images")
    return source


def _acquired(tip: Any, common: DataKnobs, wanted: RequiredInputs) -> Source:
    """Loads the source; pictures resized while they are read (image_folder) get the net's size at once.

    Only for square sides, because reading crops to a square; others are resized afterwards.
    """
    if (
        wanted.sides is None
        or wanted.sides[0] != wanted.sides[1]
        or common.image_size is not None
        or not isinstance(tip, Tip)
        or "image_size" not in tip.knobs
    ):
        source: Source = tip()
        return source
    source = replace(tip, knobs={**tip.knobs, "image_size": wanted.sides[0]})()
    return _with_note(source, f"data: pictures are read at {_sides_text(wanted.sides)}, as the pretrained net wants")


def _of_classes(source: Source, classes: Sequence[int | str] | None) -> Source:
    """Returns the samples of these classes only, in all parts; class k is the k-th given. Raises ConfigError."""
    if classes is None:
        return source
    chosen = [_class_index(name, source.classes) for name in classes]
    for number, position in enumerate(chosen):
        if position in chosen[:number]:
            raise ConfigError(f"data.only_classes: {source.classes[position]} is listed twice; give each class once")
    if len(chosen) < 2:
        raise ConfigError(
            "data.only_classes: fewer than two leave nothing to tell apart; give two or more, or null for all"
        )
    if chosen == list(range(len(source.classes))):
        return source
    numbers = torch.full((len(source.classes),), -1)
    numbers[chosen] = torch.arange(len(chosen))
    parts: dict[str, Any] = {}
    for part in ("", "val_", "test_"):
        inputs, targets = getattr(source, f"{part}inputs"), getattr(source, f"{part}targets")
        if inputs is not None:
            renumbered = numbers[targets]
            rows = (renumbered >= 0).nonzero().flatten()
            # the only copy: samples that are left out need not be read from the disk
            parts |= {f"{part}inputs": inputs.index_select(0, rows), f"{part}targets": renumbered[rows]}
    return replace(
        source,
        **parts,
        classes=tuple(source.classes[position] for position in chosen),
        hash=hashlib.sha256(f"{source.hash} {chosen}".encode()).hexdigest()[:16],
    )


def _class_index(name: int | str, classes: Sequence[str]) -> int:
    if str(name) in classes:
        return classes.index(str(name))
    if isinstance(name, str):
        raise ConfigError(f"data.only_classes: {name!r} is not a class of these data{suggest(name, classes)}")
    if not 0 <= name < len(classes):
        raise ConfigError(
            f"data.only_classes: {name} is neither the name of a class nor a position from 0 to {len(classes) - 1}"
            f"{suggest(str(name), classes)}"
        )
    return name


def _formed(source: Source, common: DataKnobs, wanted: RequiredInputs) -> Source:
    """Returns the source with the form that its images still have to get, if it differs. Raises ConfigError."""
    channels, height, width = source.inputs.shape[1:]
    if wanted.shape is not None and len(wanted.shape) != 3:
        raise _shape_error((channels, height, width), str(wanted.shape))
    size, given = common.image_size, (height, width)
    sides = (size, size) if size is not None else wanted.sides or given
    form = Form(wanted.channels or channels, sides)
    if form.channels != channels and {form.channels, channels} != {1, 3}:
        raise _shape_error((channels, height, width), f"images of {form.channels} channels")
    if size is not None and wanted.sides is not None and sides != wanted.sides:
        source = _with_note(
            source,
            f"data: images are of {_sides_text(sides)}, as data.image_size says, though the pretrained net was made for"
            f" {_sides_text(wanted.sides)}",
        )
    elif sides != given and size is None:
        source = _with_note(
            source,
            f"data: images of {_sides_text(given)} are resized to {_sides_text(sides)}, as the pretrained net wants",
        )
    if form.channels > channels:
        source = _with_note(source, "data: gray pictures are repeated to 3 channels, as the pretrained net wants")
    elif form.channels < channels:
        source = _with_note(source, "data: RGB pictures become gray ones (ITU-R 601), as the pretrained net wants")
    if form == Form(channels, given):
        return source
    changes = [str(size) if sides == (size, size) else _sides_text(sides)] if sides != given else []
    changes += [f"{form.channels}c"] if form.channels != channels else []
    return replace(source, form=form, hash="-".join([source.hash, *changes]))


def _sides_text(sides: tuple[int, int]) -> str:
    """Formats (H, W) as users write it, the width first."""
    return f"{sides[1]}x{sides[0]}"


def _with_note(source: Source, note: str) -> Source:
    return replace(source, notes=(*source.notes, note))


def _shape_error(shape: Sequence[int], takes: str) -> ConfigError:
    return ConfigError(
        f"data: a sample's shape is {tuple(shape)}, but the pretrained net takes {takes}; choose other data, or other"
        " weights with finetune.source"
    )
