"""Any folder of pictures, one folder per class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy

from dltips import free_memory
from dltips.catalog.cards import card
from dltips.catalog.registry import Size
from dltips.errors import ConfigError
from dltips.formatting import few
from dltips.tips.data.pictures import (
    Header,
    UnreadableError,
    is_hidden,
    list_pictures,
    map_in_threads,
    read_header,
    read_pixels,
)
from dltips.tips.data.source import Acquired, Source, cached, data

VERSION = "1"  # a new one makes every folder be read again
PARTS = {"train": "", "val": "val_", "valid": "val_", "validation": "val_", "test": "test_"}


@dataclass(frozen=True)
class PartFiles:
    """The pictures of one part, class by class, and the other files."""

    folder: Path
    files: Mapping[str, Sequence[Path]]
    notes: Sequence[str]


@dataclass(frozen=True)
class Sample:
    """A picture, its part, and its class number."""

    prefix: str
    file: Path
    target: int


@data
@card(
    when="your own pictures; with a few hundred per class a pretrained net does much better than one from scratch",
    formula="the largest centred square, resized to image_size (bilinear, antialiased); gray if all pictures are",
    source="the layout of torchvision's ImageFolder",
    costs="the first run decodes every picture, about 1 ms for one of 500x375 pixels; later runs map the arrays",
    try_with=("data.root=PATH",),
)
def image_folder(*, root: str | None, on_error: Literal["refuse", "skip"], image_size: Size | None) -> Source:
    """Any folder of pictures with one folder per class, perhaps within train/, val/ and test/; else split by seed.

    Pictures of any format, size and mode, nested at will: turned as EXIF says, of an animation the first frame,
    what is transparent white, all gray or all RGB. Each is cut to its largest centred square and resized to
    image_size; without it all must be of one size. Raises ConfigError; with on_error=skip what cannot be read is
    left out, and said.
    """
    base = _folder(root)
    parts = {prefix: _list_part(folder) for prefix, folder in _parts(base).items()}
    classes = _classes(base, parts)
    stamps = [_stamp(file, base) for part in parts.values() for files in part.files.values() for file in files]
    key = "\n".join([VERSION, str(base.resolve()), on_error, str(image_size), *parts, *stamps])
    source = cached("image_folder", key, lambda: _acquire(parts, classes, on_error, image_size, base))
    return replace(source, notes=(*(note for part in parts.values() for note in part.notes), *source.notes))


def _folder(root: str | None) -> Path:
    remedy = "give the folder that holds a folder of pictures per class, data.root=PATH"
    if root is None:
        raise ConfigError(f"data.root: is missing; {remedy}")
    base = Path(root).expanduser()
    if not base.is_dir():
        raise ConfigError(f"data.root: {base} {'is a file' if base.exists() else 'does not exist'}; {remedy}")
    return base


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not is_hidden(entry.name))
    except OSError as error:
        raise ConfigError(f"data.root: {folder} cannot be read ({error.strerror}); check its permissions") from error


def _parts(base: Path) -> dict[str, Path]:
    """Returns prefix of Source's tensors -> folder: all samples, or train/ with its official val/ and test/."""
    inner = {folder.name: folder for folder in _folders(base)}
    # a class may be called train, beside car and plane: then there are other names, or no folders in it
    if "train" not in inner or set(inner) - set(PARTS) or not _folders(inner["train"]):
        return {"": base}
    parts: dict[str, Path] = {}
    for name, folder in inner.items():
        if PARTS[name] in parts:
            raise ConfigError(f"data.root: {base} has both {parts[PARTS[name]].name}/ and {name}/; keep one")
        parts[PARTS[name]] = folder
    return {prefix: parts[prefix] for prefix in ("", "val_", "test_") if prefix in parts}


def _list_part(folder: Path) -> PartFiles:
    files, notes, others = {}, [], []
    for inner in _folders(folder):
        pictures, not_pictures = list_pictures(inner)
        others += not_pictures
        if pictures:
            files[inner.name] = pictures
        else:
            notes.append(f"data.root: {inner} holds no picture and is left out")
    if not files:
        has_files = any(not is_hidden(entry.name) and entry.is_file() for entry in folder.iterdir())
        problem = "has files, but no folders with pictures" if has_files else "holds no folders with pictures"
        raise ConfigError(f"data.root: {folder} {problem}; put the pictures of each class into a folder of its name")
    others += [entry for entry in sorted(folder.iterdir()) if entry.is_file() and not is_hidden(entry.name)]
    if others:
        names = few(other.relative_to(folder) for other in others)
        notes.append(f"data.root: {folder} has files that are not pictures of a class; left out: {names}")
    return PartFiles(folder, files, notes)


def _classes(base: Path, parts: Mapping[str, PartFiles]) -> list[str]:
    classes = list(parts[""].files)
    if len(classes) < 2:
        raise ConfigError(f"data.root: {parts[''].folder} holds one class only ({classes[0]}); there must be two")
    for part in parts.values():
        for name in part.files:
            if name not in classes:
                raise ConfigError(
                    f"data.root: {part.folder / name} is of a class that {parts[''].folder} does not have;"
                    f" there is: {', '.join(classes)}"
                )
    return classes


def _stamp(file: Path, base: Path) -> str:
    try:
        status = file.stat()
    except OSError:  # a broken link: reading it reports that
        return f"{file.relative_to(base)} -"
    return f"{file.relative_to(base)} {status.st_size} {status.st_mtime_ns}"


def _acquire(
    parts: Mapping[str, PartFiles],
    classes: Sequence[str],
    on_error: Literal["refuse", "skip"],
    image_size: int | None,
    base: Path,
) -> Acquired:
    """Reads the files in two passes: sizes and modes from the headers, then the pixels. Raises ConfigError."""
    samples = [
        Sample(prefix, file, classes.index(name))
        for prefix, part in parts.items()
        for name, files in part.files.items()
        for file in files
    ]
    broken: list[str] = []
    headers = map_in_threads(read_header, [sample.file for sample in samples])
    readable = _readable(headers, samples, base, on_error, broken)
    samples = [sample for sample, is_readable in zip(samples, readable, strict=True) if is_readable]
    readable_headers = [each for each in headers if isinstance(each, Header)]
    size = _size(readable_headers, samples, image_size, base)
    gray = all(each.gray for each in readable_headers)
    free_memory.require_memory("data.image_size", len(samples) * (1 if gray else 3) * size[0] * size[1])
    inputs = numpy.empty((len(samples), 1 if gray else 3, *size), numpy.uint8)
    rows_of = {sample.file: row for row, sample in enumerate(samples)}

    def fill(file: Path) -> None:
        inputs[rows_of[file]] = read_pixels(file, gray, size)

    readable = _readable(map_in_threads(fill, list(rows_of)), samples, base, on_error, broken)
    targets = numpy.asarray([sample.target for sample in samples], dtype=numpy.int64)
    arrays: dict[str, numpy.ndarray] = {}
    for prefix, part in parts.items():
        chosen = readable & numpy.asarray([sample.prefix == prefix for sample in samples], dtype=bool)
        if not chosen.any():
            raise ConfigError(f"data.root: no picture in {part.folder} can be read, e.g. {broken[0]}")
        chosen_rows = numpy.flatnonzero(chosen)
        first, last = int(chosen_rows[0]), int(chosen_rows[-1]) + 1
        # parts follow each other: without a broken picture nothing is copied
        arrays[f"{prefix}inputs"] = inputs[first:last] if last - first == len(chosen_rows) else inputs[chosen]
        arrays[f"{prefix}targets"] = targets[chosen]
    counts = numpy.bincount(arrays["targets"], minlength=len(classes))
    if not counts.all():
        name = classes[int(counts.argmin())]
        raise ConfigError(f"data.root: no picture in {parts[''].folder / name} can be read; fix or delete them")
    notes = [f"data.root: pictures that cannot be read are left out, {len(broken)}: {few(broken)}"] if broken else []
    return Acquired(arrays, classes, {"kind": "image"}, notes)


def _size(headers: Sequence[Header], samples: Sequence[Sample], image_size: int | None, base: Path) -> tuple[int, int]:
    """Returns (H, W) of all pictures. Raises ConfigError."""
    if image_size is not None:
        return image_size, image_size
    sizes = {(read.height, read.width): sample.file for read, sample in zip(headers, samples, strict=True)}
    if len(sizes) > 1:
        texts = [f"{file.relative_to(base)} has {width}x{height} pixels" for (height, width), file in sizes.items()]
        raise ConfigError(f"data.image_size: the pictures differ in size ({few(texts, 2)}); write data.image_size=64")
    return next(iter(sizes), (1, 1))


def _readable(
    read: Sequence[object], samples: Sequence[Sample], base: Path, on_error: str, broken: list[str]
) -> numpy.ndarray:
    """Returns (N,) whether each file was readable; others are refused or added to the list of broken ones."""
    for result, sample in zip(read, samples, strict=True):
        if isinstance(result, UnreadableError):
            if on_error == "refuse":
                raise ConfigError(
                    f"data.root: {sample.file} cannot be read ({result}); fix or delete it, or write data.on_error=skip"
                ) from result
            broken.append(f"{sample.file.relative_to(base)} ({result})")
    return numpy.asarray([not isinstance(result, UnreadableError) for result in read], dtype=bool)
