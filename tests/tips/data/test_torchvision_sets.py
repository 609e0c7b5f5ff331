"""The official data sets: real ones where there are some (DLTIPS_TEST_DATA), small ones of the same layout besides."""

import gzip
import os
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
import torch

from dltips.errors import ConfigError
from dltips.tips.data.torchvision_sets import cifar10, fashion_mnist, mnist

REAL = os.environ.get("DLTIPS_TEST_DATA")
needs_real_data = pytest.mark.skipif(REAL is None, reason="DLTIPS_TEST_DATA names no folder with the real data sets")


def idx(array: numpy.ndarray) -> bytes:
    """The file format of MNIST."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.astype(numpy.uint8).tobytes()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data set of MNIST's layout with 30 training and 10 test images."""
    raw = tmp_path / "data/MNIST/raw"
    raw.mkdir(parents=True)
    random = numpy.random.default_rng(0)
    for part, count in (("train", 30), ("t10k", 10)):
        images, labels = random.integers(0, 256, (count, 28, 28)), numpy.arange(count) % 10
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            (raw / f"{part}-{kind}-ubyte").write_bytes(idx(array))
    return tmp_path / "data"


def test_images_and_labels_are_what_the_files_hold(root: Path) -> None:
    source = mnist(root=str(root), download=False)
    raw = (root / "MNIST/raw/train-images-idx3-ubyte").read_bytes()[16:]
    assert source.inputs.shape == (30, 1, 28, 28) and source.inputs.dtype == torch.uint8
    assert source.inputs.numpy().tobytes() == raw
    assert source.targets.tolist() == [index % 10 for index in range(30)]
    assert source.test_inputs is not None and source.test_inputs.shape == (10, 1, 28, 28)
    assert len(source.classes) == 10


def test_a_changed_file_is_read_again(root: Path) -> None:
    before = mnist(root=str(root), download=False)
    file = root / "MNIST/raw/train-images-idx3-ubyte"
    content = bytearray(file.read_bytes())
    content[100] ^= 255
    file.write_bytes(content)
    after = mnist(root=str(root), download=False)
    assert after.hash != before.hash
    assert int((after.inputs != before.inputs).sum()) == 1


def test_a_truncated_file_is_named(root: Path) -> None:
    file = root / "MNIST/raw/t10k-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ConfigError, match=f"{file} is damaged.*delete it"):
        mnist(root=str(root), download=False)


def test_a_flipped_bit_is_found_by_the_checksum_of_the_packed_file(root: Path) -> None:
    file = root / "MNIST/raw/train-images-idx3-ubyte"
    file.with_name(file.name + ".gz").write_bytes(gzip.compress(file.read_bytes()))
    content = bytearray(file.read_bytes())
    content[5000] ^= 1
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=f"{file} is damaged"):
        mnist(root=str(root), download=False)


def test_a_missing_file_is_named_with_the_remedy(root: Path) -> None:
    file = root / "MNIST/raw/t10k-labels-idx1-ubyte"
    file.unlink()
    with pytest.raises(ConfigError, match=f"{file} is missing and data.download=false; put it there, or set data.root"):
        mnist(root=str(root), download=False)


@needs_real_data
@pytest.mark.parametrize(
    ("load", "shape", "mean"),
    [(mnist, (1, 28, 28), 0.1307), (fashion_mnist, (1, 28, 28), 0.2860), (cifar10, (3, 32, 32), 0.4734)],
)
def test_the_real_sets(load: object, shape: tuple[int, ...], mean: float) -> None:
    assert callable(load)
    source = load(root=REAL, download=False)
    count = 50_000 if shape[0] == 3 else 60_000
    assert source.inputs.shape == (count, *shape)
    # the means of the training images that everybody normalizes with
    assert float(source.inputs.float().mean()) / 255 == pytest.approx(mean, abs=5e-5)
    assert torch.bincount(source.test_targets).tolist() == [1000] * 10 or load is mnist


@needs_real_data
def test_the_second_run_imports_no_torchvision() -> None:
    code = (
        "import sys; from dltips.tips.data.torchvision_sets import fashion_mnist;"
        f"fashion_mnist(root={REAL!r}, download=False); print('torchvision' in sys.modules)"
    )
    answers = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
        for _ in range(2)
    ]
    assert answers[1] == "False"
