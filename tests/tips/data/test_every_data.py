"""Each data source hands on, value by value, what its files or its formula hold: small files of the real layouts."""

import csv
import hashlib
import pickle
import wave
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
import torch
import torchvision
from PIL import Image
from sklearn.datasets import load_digits

from dltips.catalog import registry
from dltips.tips.data import Source
from dltips.tips.data.audio import audio_folder, spoken_digits
from dltips.tips.data.digits import digits
from dltips.tips.data.image_folder import image_folder
from dltips.tips.data.npz import npz
from dltips.tips.data.synthetic import synthetic
from dltips.tips.data.table import csv as table
from dltips.tips.data.torchvision_sets import cifar10, cifar100, fashion_mnist, mnist

RANDOM = numpy.random.default_rng(0)
Patch = pytest.MonkeyPatch


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def holds(source: Source, inputs: numpy.ndarray, targets: list[int], classes: int) -> None:
    numpy.testing.assert_array_equal(source.inputs.numpy(), inputs)
    assert source.targets.tolist() == targets and source.targets.dtype == torch.int64
    assert len(source.classes) == classes


def of_digits(folder: Path, patch: Patch) -> None:
    theirs = load_digits()
    holds(digits(), numpy.rint(theirs.images * 255 / 16)[:, None], theirs.target.tolist(), 10)


def of_mnist(load: Callable[..., Source], name: str) -> Callable[[Path, Patch], None]:
    """Two files of images and two of labels: a header of big-endian sizes, then bytes."""

    def check(folder: Path, patch: Patch) -> None:
        raw = folder / name / "raw"
        raw.mkdir(parents=True)
        written = {}
        for part, count in (("train", 20), ("t10k", 10)):
            images, labels = RANDOM.integers(0, 256, (count, 28, 28), numpy.uint8), numpy.arange(count) % 10
            written[part] = images
            for kind, array in (("images-idx3", images), ("labels-idx1", labels.astype(numpy.uint8))):
                sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
                (raw / f"{part}-{kind}-ubyte").write_bytes(bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes())
        source = load(root=str(folder), download=False)
        holds(source, written["train"][:, None], [index % 10 for index in range(20)], 10)
        assert source.test_inputs is not None and source.test_targets is not None
        assert source.test_inputs.numpy().tobytes() == written["t10k"].tobytes()
        assert source.test_targets.tolist() == list(range(10))

    return check


def of_cifar(load: Callable[..., Source], cls: str, folder_name: str, label: str) -> Callable[[Path, Patch], None]:
    """Pickled batches of rows of 3,072 bytes, all red values first."""

    def check(folder: Path, patch: Patch) -> None:
        kind = getattr(torchvision.datasets, cls)
        base = folder / folder_name
        base.mkdir()
        parts: dict[str, list[numpy.ndarray]] = {"train_list": [], "test_list": []}
        for part, rows in parts.items():
            files = []
            for name, _ in getattr(kind, part):
                rows.append(RANDOM.integers(0, 256, (4, 3072), numpy.uint8))
                content = pickle.dumps({"data": rows[-1], label: [0, 1, 2, 3]})
                (base / name).write_bytes(content)
                files.append([name, hashlib.md5(content).hexdigest()])
            patch.setattr(kind, part, files)
        names = [f"name{index}" for index in range(100 if cls == "CIFAR100" else 10)]
        content = pickle.dumps({kind.meta["key"]: names})
        (base / kind.meta["filename"]).write_bytes(content)
        patch.setattr(kind, "meta", kind.meta | {"md5": hashlib.md5(content).hexdigest()})
        source = load(root=str(folder), download=False)
        batches = len(parts["train_list"])
        holds(source, numpy.concatenate(parts["train_list"]).reshape(-1, 3, 32, 32), [0, 1, 2, 3] * batches, len(names))
        assert source.test_inputs is not None and source.classes == tuple(names)
        assert source.test_inputs.numpy().tobytes() == parts["test_list"][0].tobytes()

    return check


def of_pictures(folder: Path, patch: Patch) -> None:
    pictures = RANDOM.integers(0, 256, (6, 5, 4, 3), numpy.uint8)
    for index, picture in enumerate(pictures):
        file = folder / f"kind{index // 3}" / f"{index}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(picture).save(file)
    source = image_folder(root=str(folder), on_error="refuse", image_size=None)
    holds(source, pictures.transpose(0, 3, 1, 2), [0, 0, 0, 1, 1, 1], 2)


def of_arrays(folder: Path, patch: Patch) -> None:
    vectors = RANDOM.standard_normal((6, 3)).astype(numpy.float32)
    numpy.savez(folder / "set.npz", x=vectors, y=numpy.arange(6) % 2)
    holds(npz(file=str(folder / "set.npz"), channels="auto"), vectors, [0, 1] * 3, 2)


def of_table(folder: Path, patch: Patch) -> None:
    with (folder / "set.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["size", "colour", "kind"], [1.5, "red", "b"], [-2, "blue", "a"], ["", "red", "b"]])
    source = table(file=str(folder / "set.csv"), label="kind", categorical=None, ignore=(), delimiter=None)
    holds(source, numpy.array([[1.5, 0, 1], [-2, 1, 0], [numpy.nan, 0, 1]], numpy.float32), [1, 0, 1], 2)


def recording(file: Path) -> numpy.ndarray:
    """800 samples at 8 kHz; (1, T) float32, as they are written."""
    file.parent.mkdir(parents=True, exist_ok=True)
    samples = RANDOM.integers(-9999, 9999, 800, numpy.int16)
    with wave.open(str(file), "wb") as writer:
        writer.setparams((1, 2, 8000, 0, "NONE", ""))
        writer.writeframes(samples.tobytes())
    return samples[None].astype(numpy.float32) / 2**15


def of_spoken_digits(folder: Path, patch: Patch) -> None:
    """The recordings 0 to 4 of a speaker and a digit are the test set."""
    files = [f"{digit}_ann_{index}.wav" for digit in (3, 7) for index in (2, 5, 6)]
    written = {name: recording(folder / name) for name in files}
    source = spoken_digits(root=str(folder), features="waveform", seconds=0.1, mels=None)
    train = [name for name in files if not name.endswith("_2.wav")]
    holds(source, numpy.stack([written[name] for name in train]), [3, 3, 7, 7], 10)
    assert source.test_inputs is not None and source.test_targets is not None
    assert source.test_inputs.numpy().tobytes() == numpy.stack([written[name] for name in files[::3]]).tobytes()
    assert source.test_targets.tolist() == [3, 7]


def of_recordings(folder: Path, patch: Patch) -> None:
    written = [recording(folder / f"kind{index // 2}/{index}.wav") for index in range(4)]
    source = audio_folder(
        root=str(folder), features="waveform", sample_rate=8000, seconds=0.1, mels=None, on_error="refuse"
    )
    holds(source, numpy.stack(written), [0, 0, 1, 1], 2)


def of_the_formula(folder: Path, patch: Patch) -> None:
    """Without noise a vector is its class's signal, and the classes are as large as they should be."""
    source = synthetic(kind="vector", classes=3, samples=12, size=5, noise=0.0, imbalance=1.0, seed=0)
    holds(source, numpy.eye(5, dtype=numpy.float32)[source.targets.numpy()], source.targets.tolist(), 3)
    assert torch.bincount(source.targets).tolist() == [4, 4, 4]


CASES: dict[str, Callable[[Path, Patch], None]] = {
    "digits": of_digits,
    "mnist": of_mnist(mnist, "MNIST"),
    "fashion_mnist": of_mnist(fashion_mnist, "FashionMNIST"),
    "cifar10": of_cifar(cifar10, "CIFAR10", "cifar-10-batches-py", "labels"),
    "cifar100": of_cifar(cifar100, "CIFAR100", "cifar-100-python", "fine_labels"),
    "image_folder": of_pictures,
    "npz": of_arrays,
    "csv": of_table,
    "spoken_digits": of_spoken_digits,
    "audio_folder": of_recordings,
    "synthetic": of_the_formula,
}


@pytest.mark.parametrize("name", registry.load()["data"].tips)
def test_the_samples_are_what_the_files_hold(name: str, tmp_path: Path, monkeypatch: Patch) -> None:
    assert name in CASES, (
        f"data={name} has no case: write a function here that makes a small set of its layout and asserts its samples"
        f" and labels, and add it to CASES as {name!r}"
    )
    folder = tmp_path / "set"
    folder.mkdir()
    CASES[name](folder, monkeypatch)
