"""Reads new files as samples for predict, as a trained run's source read its own; errors name the file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from dltips.errors import ConfigError, suggest
from dltips.tips.data.npz import as_inputs, find_inputs, read_arrays
from dltips.tips.data.pictures import Form, UnreadableError, is_hidden, list_pictures, map_in_threads, read_pixels
from dltips.tips.data.table import encode, read_table

WHERE = "predict"  # the start of error messages

Reader = Mapping[str, Any]
Samples = tuple[Tensor, list[str]]


def read_samples(reader: Reader, input_shape: Sequence[int], path: Path) -> Samples:
    """Returns the samples of a file or folder, (N, *input_shape) as the source would hold them, and a name for each.

    Names are the file's path, with the sample's number (my.npz[3]) or line (my.csv:4) where there are several.
    Raises ConfigError.
    """
    readers: dict[str, Callable[[Reader, Sequence[int], Path], Samples]] = {
        "image": _images,
        "vector": _vectors,
        "csv": _table,
        "audio": _audio,
    }
    if reader.get("kind") not in readers:
        raise ConfigError(
            f"{WHERE}: the data source of this run does not say how new files are read; train with another"
        )
    if not path.exists():
        raise ConfigError(f"{WHERE}: {path} does not exist; give a file or a folder")
    inputs, names = readers[reader["kind"]](reader, input_shape, path)
    if tuple(inputs.shape[1:]) != tuple(input_shape):
        raise ConfigError(
            f"{WHERE}: {path} has samples of the shape {tuple(inputs.shape[1:])}, but the net was trained on"
            f" {tuple(input_shape)}"
        )
    return inputs, names


def _images(reader: Reader, input_shape: Sequence[int], path: Path) -> Samples:
    if path.suffix.lower() == ".npz":
        images, names = _archive(path, reader)
        if images.dim() != 4:
            raise ConfigError(f"{WHERE}: {path} holds vectors, but the net was trained on images")
        return _as_net_takes(images, input_shape), names
    files = [path]
    if path.is_dir():
        files, _ = list_pictures(path)
        if not files:
            raise ConfigError(f"{WHERE}: {path} holds no pictures")
    channels, height, width = input_shape
    if channels not in (1, 3):
        raise ConfigError(
            f"{WHERE}: the net was trained on {channels} channels, which no picture has; give an .npz file"
        )
    read = map_in_threads(lambda file: read_pixels(file, channels == 1, (height, width)), files)
    for file, result in zip(files, read, strict=True):
        if isinstance(result, UnreadableError):
            raise ConfigError(f"{WHERE}: {file} cannot be read ({result}); give pictures, or an .npz file") from result
    return torch.from_numpy(numpy.stack([array for array in read if isinstance(array, numpy.ndarray)])), _names(files)


def _vectors(reader: Reader, input_shape: Sequence[int], path: Path) -> Samples:
    if path.suffix.lower() != ".npz":
        raise ConfigError(f"{WHERE}: {path} is no .npz file, from which this net's vectors are read")
    return _archive(path, reader)


def _archive(path: Path, reader: Reader) -> Samples:
    arrays = read_arrays(path, WHERE)
    name = find_inputs(arrays) or find_inputs(arrays, "test_")
    if name is None:
        raise ConfigError(
            f"{WHERE}: {path} has no inputs called images or inputs or x; there is: {', '.join(sorted(arrays))}"
        )
    inputs = as_inputs(arrays[name], reader.get("channels", "auto"), f"{WHERE}: {path}: {name}")
    return torch.from_numpy(inputs), [f"{path}[{number}]" for number in range(len(inputs))]


def _table(reader: Reader, input_shape: Sequence[int], path: Path) -> Samples:
    table = read_table(path, reader["delimiter"], WHERE)
    for name in reader["columns"]:
        if name not in table.columns:
            raise ConfigError(f"{WHERE}: {path} has no column {name!r}{suggest(name, table.columns)}")
    inputs = torch.from_numpy(encode(table, reader["columns"], reader["categories"], WHERE))
    rows = inputs.isnan().any(1).nonzero()
    if len(rows) and not reader["missing"]:  # else preprocessing has means for missing values
        line = table.lines[int(rows[0])]
        raise ConfigError(f"{WHERE}: {path}, line {line} lacks a number, which training never saw; fill it in")
    return inputs, [f"{path}:{line}" for line in table.lines]


def _audio(reader: Reader, input_shape: Sequence[int], path: Path) -> Samples:
    from dltips.tips.data.audio import read_audio

    files = [path]
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() == ".wav" and not is_hidden(file.name))
        if not files:
            raise ConfigError(f"{WHERE}: {path} holds no .wav files")
    recordings = torch.stack([read_audio(reader, file) for file in files])
    if recordings.dtype == torch.uint8:  # spectrograms, to which data.image_size applies too
        recordings = _as_net_takes(recordings, input_shape)
    return recordings, _names(files)


def _as_net_takes(images: Tensor, input_shape: Sequence[int]) -> Tensor:
    """Returns images of the sides and channels that the net takes, gray as RGB or RGB as gray."""
    channels, height, width = input_shape
    convertible = {images.shape[1], channels} == {1, 3}
    return Form(channels if convertible else images.shape[1], (height, width))(images)


def _names(files: Sequence[Path]) -> list[str]:
    return [str(file) for file in files]
