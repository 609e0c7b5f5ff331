"""Defines what a data source returns, and caches its arrays, which spares the next run the library behind it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy
import torch
from torch import Tensor

from dltips import paths
from dltips.catalog.registry import Count, Fraction, Size, family
from dltips.errors import ConfigError
from dltips.tips.data.pictures import Form

data = family("data")


@data.common
@dataclass(frozen=True, kw_only=True)
class DataKnobs:
    """The knobs that every source has: split, order, alterations for an experiment, placement."""

    split_seed: Count
    val_fraction: Fraction
    test_fraction: Fraction
    shuffle: bool
    subset: Size | None
    per_class: Size | None
    only_classes: tuple[int | str, ...] | None
    image_size: Size | None
    label_noise: Fraction
    balance: Literal["none", "sampling", "loss"]
    expand: Count
    placement: Literal["auto", "resident", "stream"]

    def __post_init__(self) -> None:
        if self.subset is not None and self.per_class is not None:
            raise ConfigError(
                f"data.per_class: {self.per_class} and data.subset={self.subset} both say how many samples to train on;"
                " leave one out"
            )


@dataclass(frozen=True)
class Source:
    """Samples with their labels; official validation and test sets, if there are some, are kept apart."""

    inputs: Tensor  # (N, C, H, W) uint8 images and spectrograms, (N, 1, T) float32 waveforms, or (N, F) float32 vectors
    targets: Tensor  # (N,) int64
    classes: tuple[str, ...]
    hash: str  # of the samples and labels
    test_inputs: Tensor | None = None
    test_targets: Tensor | None = None
    val_inputs: Tensor | None = None
    val_targets: Tensor | None = None
    # how `dltips predict` turns a new file into a sample: plain data, saved with the checkpoint
    reader: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()  # for the user: files that were skipped
    # the form that images still have to get; a split resizes the samples that are requested
    form: Form | None = None


Arrays = Mapping[str, numpy.ndarray]


@dataclass(frozen=True)
class Acquired:
    """Arrays that a source has read, by the names of Source's tensors, and their metadata."""

    arrays: Arrays
    classes: Sequence[str]
    reader: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()


def cached(name: str, key: str, acquire: Callable[[], Acquired]) -> Source:
    """Returns the arrays `inputs`, `targets`, perhaps `test_inputs`, ..., acquired once, then memory-mapped.

    The key must change whenever the arrays would change: a version, or the files' sizes and times. A cache that cannot
    be written only costs time.
    """
    folder = paths.cache() / "arrays" / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    source = _read(folder)
    if source is not None:
        return source
    acquired = acquire()
    meta = _meta(acquired)
    try:
        _write(folder, acquired.arrays, meta)
    except OSError:
        return _source(acquired.arrays, meta)
    return _read(folder) or _source(acquired.arrays, meta)


def uncached(acquired: Acquired) -> Source:
    """Returns arrays that are made more quickly than read."""
    return _source(acquired.arrays, _meta(acquired))


def _meta(acquired: Acquired) -> dict[str, Any]:
    return {
        "arrays": sorted(acquired.arrays),
        "classes": list(acquired.classes),
        "hash": _digest(acquired.arrays),
        "reader": dict(acquired.reader),
        "notes": list(acquired.notes),
    }


def stamp(file: Path) -> str:
    """Returns a text that changes with the file."""
    status = file.stat()
    return f"{file.resolve()} {status.st_size} {status.st_mtime_ns}"


def _source(arrays: Arrays, meta: Mapping[str, Any]) -> Source:
    tensors: dict[str, Any] = {name: torch.from_numpy(array) for name, array in arrays.items()}
    return Source(
        **tensors,
        classes=tuple(meta["classes"]),
        hash=meta["hash"],
        reader=meta["reader"],
        notes=tuple(meta["notes"]),
    )


def _read(folder: Path) -> Source | None:
    try:
        meta = json.loads((folder / "meta.json").read_text())
        # copy-on-write: pages are read when they are used, and the file cannot be changed
        arrays = {
            name: numpy.load(folder / f"{name}.npy", mmap_mode="c", allow_pickle=False) for name in meta["arrays"]
        }
        return _source(arrays, meta)
    except (OSError, EOFError, ValueError, KeyError, TypeError):
        return None  # missing or damaged: acquire again


def _write(folder: Path, arrays: Arrays, meta: Mapping[str, object]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        for name, array in arrays.items():
            numpy.save(temporary / f"{name}.npy", array, allow_pickle=False)
        (temporary / "meta.json").write_text(json.dumps(meta))
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _digest(arrays: Arrays) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = numpy.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.data)
    return digest.hexdigest()[:16]
