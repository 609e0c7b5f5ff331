"""What a data source gives, and the cache of plain arrays that spares the next run the library it came through."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy
import torch
from torch import Tensor

from dltips import paths
from dltips.registry import Count, Fraction, Size, family

data = family("data")


@data.common
@dataclass(frozen=True, kw_only=True)
class Common:
    """The knobs that every source has: how it is split, ordered and placed."""

    split_seed: Count
    val_fraction: Fraction
    test_fraction: Fraction
    shuffle: bool
    subset: Size | None
    placement: Literal["auto", "resident", "stream"]


@dataclass(frozen=True)
class Source:
    """Samples with their labels; the official test set, if there is one, is kept apart."""

    inputs: Tensor  # (N, C, H, W) uint8 images, or (N, F) float32 vectors
    targets: Tensor  # (N,) int64
    classes: tuple[str, ...]
    test_inputs: Tensor | None
    test_targets: Tensor | None
    hash: str  # of the samples and labels


Arrays = Mapping[str, numpy.ndarray]


def cached(name: str, key: str, acquire: Callable[[], tuple[Arrays, tuple[str, ...]]]) -> Source:
    """The arrays `inputs`, `targets` and perhaps `test_inputs`, `test_targets`, acquired once, then memory-mapped.

    The key must change whenever what would be acquired changes: a version, or the files' sizes and times. A cache
    that cannot be written costs time, no more.
    """
    folder = paths.cache() / "arrays" / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    source = _read(folder)
    if source is not None:
        return source
    arrays, classes = acquire()
    digest = _digest(arrays)
    try:
        _write(folder, arrays, {"arrays": sorted(arrays), "classes": list(classes), "hash": digest})
    except OSError:
        return _source(arrays, classes, digest)
    return _read(folder) or _source(arrays, classes, digest)


def _source(arrays: Arrays, classes: tuple[str, ...], digest: str) -> Source:
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    return Source(
        tensors["inputs"], tensors["targets"], classes, tensors.get("test_inputs"), tensors.get("test_targets"), digest
    )


def _read(folder: Path) -> Source | None:
    try:
        meta = json.loads((folder / "meta.json").read_text())
        # copy-on-write: nothing is read before it is used, and nobody can change the file
        arrays = {
            name: numpy.load(folder / f"{name}.npy", mmap_mode="c", allow_pickle=False) for name in meta["arrays"]
        }
        return _source(arrays, tuple(meta["classes"]), meta["hash"])
    except (OSError, EOFError, ValueError, KeyError, TypeError):
        return None  # not there yet, or damaged: acquire again


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
