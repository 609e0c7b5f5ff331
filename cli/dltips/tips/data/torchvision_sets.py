"""Acquires MNIST, Fashion-MNIST, CIFAR-10 and CIFAR-100 through torchvision with its checksums."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy

from dltips import paths
from dltips.catalog.cards import card
from dltips.errors import ConfigError
from dltips.tips.data.source import Acquired, Source, cached, data

IDX_FILES = tuple(f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1"))
CIFAR10_FILES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta")


@data
@card(
    when="to compare with the literature; too easy to tell good nets from better ones",
    formula="60,000 training and 10,000 test samples (1, 28, 28), light on dark",
    source="LeCun, Bottou, Bengio and Haffner 1998, Gradient-based learning applied to document recognition",
    costs="12 MB to download; 55 MB in memory",
)
def mnist(*, root: str | None, download: bool) -> Source:
    """Handwritten digits, 70,000 gray images of 28x28, 10 classes, official test set (LeCun et al. 1998)."""
    return _load("mnist", "MNIST", "MNIST/raw", IDX_FILES, root, download)


@data
@card(
    when="the size and the form of MNIST, and harder: nets and tips can be told apart in minutes on a CPU",
    formula="60,000 training and 10,000 test samples (1, 28, 28), light on dark",
    source="Xiao, Rasul and Vollgraf 2017, arXiv 1708.07747",
    costs="31 MB to download; 55 MB in memory",
)
def fashion_mnist(*, root: str | None, download: bool) -> Source:
    """Articles of clothing, 70,000 gray images of 28x28, 10 classes, official test set (Xiao et al. 2017)."""
    return _load("fashion_mnist", "FashionMNIST", "FashionMNIST/raw", IDX_FILES, root, download)


@data
@card(
    when="the usual yardstick for small convolutional nets; minutes on a GPU",
    formula="50,000 training and 10,000 test samples (3, 32, 32), 6,000 of each class",
    source="Krizhevsky 2009, Learning multiple layers of features from tiny images",
    costs="170 MB to download; 184 MB in memory",
)
def cifar10(*, root: str | None, download: bool) -> Source:
    """Small photographs, 60,000 RGB images of 32x32, 10 classes, official test set (Krizhevsky 2009)."""
    return _load("cifar10", "CIFAR10", "cifar-10-batches-py", CIFAR10_FILES, root, download)


@data
@card(
    when="many classes with few samples each, so that regularization and augmentation count",
    formula="50,000 training and 10,000 test samples (3, 32, 32), 600 of each class",
    source="Krizhevsky 2009, Learning multiple layers of features from tiny images",
    costs="169 MB to download; 184 MB in memory",
)
def cifar100(*, root: str | None, download: bool) -> Source:
    """Small photographs, 60,000 RGB images of 32x32, 100 classes, official test set (Krizhevsky 2009)."""
    return _load("cifar100", "CIFAR100", "cifar-100-python", ("train", "test", "meta"), root, download)


def _load(name: str, cls: str, folder: str, files: Sequence[str], root: str | None, download: bool) -> Source:
    """Returns the source, from the cache if the files are unchanged, else by torchvision. Raises ConfigError."""
    base = paths.data() if root is None else Path(root).expanduser()
    where = f"data.root: {base}"
    if root is not None and not base.exists():
        raise ConfigError(f"{where} does not exist; create it, or leave data.root out to use {paths.data()}")
    if base.exists() and not base.is_dir():
        raise ConfigError(f"{where} is a file; give the folder that holds {folder}")
    if base.exists() and not os.access(base, os.R_OK | os.X_OK):
        raise ConfigError(f"{where} is not readable; check its permissions")
    present = [base / folder / file for file in files]
    missing = [file for file in present if not _readable(where, file)]
    if missing:
        _download(name, cls, base, missing[0], download)
    stamps = [f"{file.name} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in present]
    return cached(name, "\n".join(["3", str(base.resolve()), *stamps]), lambda: _acquire(name, cls, base, present))


def _readable(where: str, file: Path) -> bool:
    try:
        with file.open("rb"):
            return True
    except FileNotFoundError:
        return False
    except OSError as error:
        raise ConfigError(f"{where}: {file} cannot be read ({error.strerror}); check its permissions") from error


def _download(name: str, cls: str, base: Path, missing: Path, download: bool) -> None:
    remedy = f"put it there, or set data.root (or DLTIPS_DATA) to the folder that holds {missing.parent.name}"
    if not download:
        raise ConfigError(f"data={name}: {missing} is missing and data.download=false; {remedy}")
    try:
        base.mkdir(parents=True, exist_ok=True)
        _torchvision_class(cls)(root=str(base), download=True)
    except Exception as error:  # torchvision raises RuntimeError, URLError, OSError and more
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"data={name}: {missing} is missing and cannot be downloaded ({reason}); {remedy}") from error
    if not missing.is_file():
        raise ConfigError(f"data={name}: {missing} is missing after the download; {remedy}")


def _torchvision_class(cls: str) -> Any:
    import torchvision.datasets

    return getattr(torchvision.datasets, cls)


def _acquire(name: str, cls: str, base: Path, present: Sequence[Path]) -> Acquired:
    """Reads all images into arrays (N, C, H, W) uint8. Raises ConfigError naming the damaged file."""
    for file in present:
        _check_against_gzip(name, file)
    kind = _torchvision_class(cls)
    try:
        train, test = kind(root=str(base), train=True), kind(root=str(base), train=False)
    except Exception as error:
        damaged = _damaged(kind, present)
        raise ConfigError(
            f"data={name}: {damaged} is damaged ({' '.join(str(error).split())}); delete it, and it is fetched again"
        ) from error
    arrays: dict[str, numpy.ndarray] = {}
    for prefix, part in (("", train), ("test_", test)):
        images = numpy.asarray(part.data)
        images = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
        arrays[f"{prefix}inputs"] = numpy.ascontiguousarray(images)
        arrays[f"{prefix}targets"] = numpy.asarray(part.targets, dtype=numpy.int64)
        if len(images) != len(arrays[f"{prefix}targets"]):
            raise ConfigError(
                f"data={name}: {present[0].parent} holds {len(images)} images, but another number of labels"
            )
        targets = arrays[f"{prefix}targets"]
        if targets.min() < 0 or targets.max() >= len(train.classes):
            # CIFAR's files have passed their checksums: this one is of MNIST's layout
            file = present[0].parent / f"{'t10k' if prefix else 'train'}-labels-idx1-ubyte"
            raise ConfigError(
                f"data={name}: {file} is damaged (label {targets.max()} of {len(train.classes)} classes);"
                " delete it, and it is fetched again"
            )
    return Acquired(arrays, [str(label) for label in train.classes], {"kind": "image"})


def _check_against_gzip(name: str, file: Path) -> None:
    """Compares with the .gz beside the file, which holds the length and the CRC of the content (RFC 1952)."""
    packed = file.with_name(file.name + ".gz")
    if not packed.is_file():
        return
    content = file.read_bytes()
    trailer = packed.read_bytes()[-8:]
    crc, length = int.from_bytes(trailer[:4], "little"), int.from_bytes(trailer[4:], "little")
    if len(content) != length or zlib.crc32(content) != crc:
        try:
            gzip.decompress(packed.read_bytes())
        except (OSError, EOFError, zlib.error) as error:
            raise ConfigError(
                f"data={name}: {packed} is damaged ({error}); delete it, and it is fetched again"
            ) from error
        raise ConfigError(f"data={name}: {file} is damaged; delete it, and it is unpacked again from {packed.name}")


def _damaged(kind: Any, present: Sequence[Path]) -> Path:
    """Returns the first file whose checksum is not torchvision's; the folder if none can be named."""
    from torchvision.datasets.utils import check_integrity

    sums = dict([*getattr(kind, "train_list", []), *getattr(kind, "test_list", [])])
    meta = getattr(kind, "meta", {})
    if meta:
        sums[meta["filename"]] = meta["md5"]
    for file in present:
        if file.name in sums and not check_integrity(str(file), sums[file.name]):
            return file
    for file in present:
        if file.name.endswith("-ubyte") and not _whole_idx(file):
            return file
    return present[0].parent


def _whole_idx(file: Path) -> bool:
    """Returns whether an idx file is as long as its header says."""
    with file.open("rb") as stream:
        header = stream.read(16)
    if len(header) < 16 or header[:3] != b"\x00\x00\x08" or header[3] not in (1, 3):
        return False
    sizes = [int.from_bytes(header[4 + 4 * i : 8 + 4 * i], "big") for i in range(header[3])]
    return file.stat().st_size == 4 + 4 * header[3] + int(numpy.prod(sizes))
