"""Arrays from a NumPy archive: images or vectors, and their labels."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy

from dltips.catalog.cards import card
from dltips.errors import ConfigError
from dltips.tips.data.source import Acquired, Source, cached, data, file_stamp

VERSION = "1"  # a new one makes every file be read again
INPUTS = ("images", "inputs", "x")
TARGETS = ("labels", "targets", "y")
PARTS = {"": ("", "train"), "val_": ("val", "valid", "validation"), "test_": ("test",)}

Channels = Literal["auto", "first", "last"]


@data
@card(
    when="data that a program of yours has made, without a file for each sample",
    formula="numpy.savez('my.npz', images=images, labels=labels); or x_train, y_train, x_test, y_test",
    source="NumPy's .npz format; read without pickle, so that a file can run no code",
    costs="the first run reads the file, later ones map the arrays",
    try_with=("data.file=PATH",),
)
def npz(*, file: str | None, channels: Channels) -> Source:
    """A NumPy archive (.npz) with images or vectors, labels, and perhaps official val_ and test_ arrays.

    Inputs are called images, inputs or x, labels labels, targets or y; those of the parts test_images or x_test,
    and so on. Images are uint8 (N, H, W), (N, H, W, C) or (N, C, H, W), vectors (N, F) numbers, NaN where missing.
    Labels are whole numbers or texts, classes in sorted order; or they index an array called classes.
    Raises ConfigError.
    """
    path = given_file(file, "NumPy archive (.npz)")
    key = "\n".join([VERSION, file_stamp(path), channels])
    return cached("npz", key, lambda: _acquire(path, channels))


def given_file(file: str | None, what: str) -> Path:
    """Returns the path of data.file. Raises ConfigError."""
    if file is None:
        raise ConfigError(f"data.file: is missing; give the {what}, data.file=PATH")
    path = Path(file).expanduser()
    if not path.is_file():
        raise ConfigError(f"data.file: {path} {'is a folder' if path.exists() else 'does not exist'}; give the {what}")
    return path


def read_arrays(path: Path, where: str) -> dict[str, numpy.ndarray]:
    """Returns all arrays of an archive by their names. Raises ConfigError that starts with `where`."""
    try:
        with path.open("rb") as stream:
            if stream.read(2) != b"PK":
                raise ConfigError(f"{where}: {path} is not an .npz archive; write it with numpy.savez")
            stream.seek(0)
            archive = numpy.load(stream, allow_pickle=False)
            return {name: archive[name] for name in archive.files}
    except MemoryError as error:
        raise ConfigError(f"{where}: {path} does not fit into this machine's memory ({error}); split it") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, OSError, ValueError, NotImplementedError) as error:
        if "Object arrays" in str(error):
            raise ConfigError(
                f"{where}: {path} holds Python objects, which could run code and are not read; save plain arrays"
            ) from error
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise ConfigError(f"{where}: {path} is damaged ({reason}); write it again") from error


def find_inputs(arrays: Mapping[str, numpy.ndarray], part: str = "") -> str | None:
    """Returns the name of the array with a part's inputs, in any case."""
    return _find(arrays, part, INPUTS)


def as_inputs(array: numpy.ndarray, channels: Channels, where: str) -> numpy.ndarray:
    """Returns (N, C, H, W) uint8 images or (N, F) float32 vectors. Raises ConfigError that starts with `where`."""
    if array.dtype.kind not in "uif":
        raise ConfigError(f"{where} is of {array.dtype}; save numbers")
    if array.ndim == 2:
        return _vectors(array, where)
    if array.ndim not in (3, 4):
        raise ConfigError(
            f"{where} has the shape {array.shape}; images are (N, H, W), (N, H, W, C) or (N, C, H, W), vectors (N, F)"
        )
    if array.dtype.kind == "f":
        raise ConfigError(f"{where} is of {array.dtype}; save images as uint8, (255 * images).round().astype('uint8')")
    if array.dtype != numpy.uint8:
        if array.size and (array.min() < 0 or array.max() > 255):
            raise ConfigError(f"{where} has values from {array.min()} to {array.max()}; save images as uint8, 0 to 255")
        array = array.astype(numpy.uint8)
    if array.ndim == 3:
        return array[:, None]
    if channels == "auto":
        last, first = array.shape[3] in (1, 3), array.shape[1] in (1, 3)
        if last == first:
            raise ConfigError(
                f"data.channels: where they stand cannot be told from {where.rpartition(': ')[2]}, {array.shape}; write"
                " data.channels=first for (N, C, H, W), or last"
            )
        channels = "last" if last else "first"
    return numpy.ascontiguousarray(array.transpose(0, 3, 1, 2)) if channels == "last" else array


def _vectors(array: numpy.ndarray, where: str) -> numpy.ndarray:
    with numpy.errstate(over="ignore"):  # numbers too large for float32 become infinite
        vectors = array.astype(numpy.float32)
    infinite = numpy.argwhere(numpy.isinf(vectors))
    if len(infinite):
        row, column = infinite[0]
        raise ConfigError(f"{where} is infinite in row {row}, column {column}; use NaN for what is missing")
    return vectors


def _find(arrays: Mapping[str, numpy.ndarray], part: str, names: Sequence[str]) -> str | None:
    folded = {name.casefold(): name for name in arrays}
    for prefix in PARTS[part]:
        for name in names:
            for key in (f"{prefix}_{name}", f"{name}_{prefix}") if prefix else (name,):
                if key in folded:
                    return folded[key]
    return None


def _acquire(path: Path, channels: Channels) -> Acquired:
    where = f"data.file: {path}"
    arrays = read_arrays(path, "data.file")
    samples_of: dict[str, numpy.ndarray] = {}
    labels_of: dict[str, numpy.ndarray] = {}
    for part in PARTS:
        inputs, targets = find_inputs(arrays, part), _find(arrays, part, TARGETS)
        if inputs is None and targets is None and part:
            continue
        for array_name, kind, usual_names in ((inputs, "inputs", INPUTS), (targets, "labels", TARGETS)):
            if array_name is None:
                expected = " or ".join(part + name for name in usual_names)
                raise ConfigError(f"{where} has no {kind} called {expected}; there is: {_names(arrays)}")
        assert inputs is not None and targets is not None
        samples_of[part] = as_inputs(arrays[inputs], channels, f"{where}: {inputs}")
        labels_of[part] = _as_labels(arrays[targets], f"{where}: {targets}")
        if len(samples_of[part]) != len(labels_of[part]):
            raise ConfigError(
                f"{where}: {inputs} has {len(samples_of[part])} samples, but {targets} {len(labels_of[part])} labels"
            )
        if not len(labels_of[part]):
            raise ConfigError(f"{where}: {inputs} has no samples")
        if samples_of[part].shape[1:] != samples_of[""].shape[1:]:
            raise ConfigError(
                f"{where}: the samples of {inputs} have the shape {samples_of[part].shape[1:]}, those of the training"
                f" set {samples_of[''].shape[1:]}"
            )
    classes = _classes(arrays, labels_of[""], where)
    numbers = {label: index for index, label in enumerate(classes)}
    result: dict[str, numpy.ndarray] = {}
    for part in samples_of:
        unknown = set(labels_of[part].tolist()) - set(numbers)
        if unknown:
            raise ConfigError(f"{where}: the label {min(unknown)!r} is not one of the {len(classes)} classes")
        result[f"{part}inputs"] = samples_of[part]
        result[f"{part}targets"] = numpy.asarray([numbers[label] for label in labels_of[part].tolist()], numpy.int64)
    reader: dict[str, Any] = {"kind": "vector" if samples_of[""].ndim == 2 else "image", "channels": channels}
    names = arrays["classes"].tolist() if "classes" in arrays else classes
    return Acquired(result, [str(name) for name in names], reader)


def _names(arrays: Mapping[str, numpy.ndarray]) -> str:
    return ", ".join(sorted(arrays)) or "nothing"


def _as_labels(array: numpy.ndarray, where: str) -> numpy.ndarray:
    """Returns (N,) whole numbers or texts. Raises ConfigError."""
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        remedy = "; save the class of each, labels.argmax(1)" if array.ndim == 2 else ""
        raise ConfigError(f"{where} has the shape {array.shape}, but labels are (N,){remedy}")
    if array.dtype.kind == "f" and numpy.isfinite(array).all() and (array == numpy.rint(array)).all():
        array = array.astype(numpy.int64)
    if array.dtype.kind not in "biuU":
        raise ConfigError(f"{where} is of {array.dtype}; labels are whole numbers or texts")
    return array


def _classes(arrays: Mapping[str, numpy.ndarray], labels: numpy.ndarray, where: str) -> list[Any]:
    """Returns the labels by the number of their class. Raises ConfigError."""
    if "classes" not in arrays:
        classes = sorted(set(labels.tolist()))
        if len(classes) < 2:
            raise ConfigError(f"{where} holds one class only ({classes[0]}); there must be two")
        return classes
    names = arrays["classes"]
    if names.ndim != 1 or len(names) < 2 or len(set(names.tolist())) < len(names):
        raise ConfigError(f"{where}: classes must be a list of at least two different names")
    return list(names.tolist()) if labels.dtype.kind == "U" else list(range(len(names)))
