"""NumPy archives: the usual names and layouts are understood, anything else is one clear line."""

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

from dltips.errors import ConfigError
from dltips.tips.data import Source
from dltips.tips.data.npz import npz, read_arrays

RANDOM = numpy.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (10, 5, 7, 3), dtype=numpy.uint8)
LABELS = numpy.arange(10) % 3
VECTORS = RANDOM.standard_normal((10, 4))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "my.npz"


def load(file: Path, channels: Any = "auto", **arrays: Any) -> Source:
    if arrays:
        numpy.savez(file, **arrays)
    return npz(file=str(file), channels=channels)


@pytest.mark.parametrize(
    "names", [("images", "labels"), ("inputs", "targets"), ("x", "y"), ("X", "y"), ("x_train", "y_train")]
)
def test_the_usual_names(file: Path, names: tuple[str, str]) -> None:
    source = load(file, **{names[0]: IMAGES, names[1]: LABELS})
    assert torch.equal(source.inputs, torch.from_numpy(IMAGES).permute(0, 3, 1, 2))
    assert source.inputs.is_contiguous()
    assert source.targets.tolist() == LABELS.tolist() and source.targets.dtype == torch.int64
    assert source.classes == ("0", "1", "2")
    assert source.val_inputs is None and source.test_inputs is None


@pytest.mark.parametrize("form", ["test_images", "images_test", "x_test", "TEST_X"])
def test_official_parts(file: Path, form: str) -> None:
    labels = form.replace("images", "labels").replace("x_", "y_").replace("X", "Y")
    source = load(
        file, images=IMAGES, labels=LABELS, val_x=IMAGES[:3], val_y=LABELS[:3], **{form: IMAGES[4:], labels: LABELS[4:]}
    )
    assert source.val_inputs is not None and source.test_inputs is not None and source.test_targets is not None
    assert torch.equal(source.val_inputs, source.inputs[:3])
    assert torch.equal(source.test_inputs, source.inputs[4:])
    assert source.test_targets.tolist() == LABELS[4:].tolist()


@pytest.mark.parametrize(
    ("array", "channels", "expected"),
    [
        (IMAGES[..., 0], "auto", IMAGES[..., 0][:, None]),
        (IMAGES, "auto", IMAGES.transpose(0, 3, 1, 2)),
        (IMAGES.transpose(0, 3, 1, 2), "auto", IMAGES.transpose(0, 3, 1, 2)),
        (IMAGES[..., :1], "auto", IMAGES[..., :1].transpose(0, 3, 1, 2)),
        (IMAGES[:, :3], "first", IMAGES[:, :3]),
        (IMAGES[:, :3], "last", IMAGES[:, :3].transpose(0, 3, 1, 2)),
        (IMAGES[:, :, :, :2], "last", IMAGES[:, :, :, :2].transpose(0, 3, 1, 2)),
        (IMAGES.astype(numpy.int64), "auto", IMAGES.transpose(0, 3, 1, 2)),
    ],
)
def test_layouts(file: Path, array: Any, channels: str, expected: Any) -> None:
    source = load(file, channels, images=array, labels=LABELS)
    assert source.inputs.dtype == torch.uint8
    numpy.testing.assert_array_equal(source.inputs.numpy(), expected)


@pytest.mark.parametrize("array", [IMAGES[:, :3], IMAGES[..., :2]])
def test_channels_that_could_be_either_are_asked_for(file: Path, array: Any) -> None:
    with pytest.raises(
        ConfigError, match=r"^data\.channels: where they stand cannot be told from images, \(10, .*first"
    ):
        load(file, images=array, labels=LABELS)


def test_vectors_are_floats_with_nan_where_missing(file: Path) -> None:
    vectors = VECTORS.copy()
    vectors[2, 1] = numpy.nan
    source = load(file, x=vectors, y=LABELS)
    assert source.inputs.dtype == torch.float32
    numpy.testing.assert_array_equal(source.inputs.numpy(), vectors.astype(numpy.float32))
    assert load(file, x=numpy.arange(40).reshape(10, 4), y=LABELS).inputs[2].tolist() == [8, 9, 10, 11]


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (numpy.array([7, -3, 30] * 3 + [7]), ("-3", "7", "30")),
        (numpy.array(["b", "a", "c"] * 3 + ["b"]), ("a", "b", "c")),
        (numpy.array([1.0, 0.0, 2.0] * 3 + [1.0]), ("0", "1", "2")),
        (numpy.array([[1], [0], [2]] * 3 + [[1]], dtype=numpy.uint8), ("0", "1", "2")),
    ],
)
def test_labels_of_any_kind_are_classes_in_sorted_order(file: Path, labels: Any, classes: tuple[str, ...]) -> None:
    source = load(file, x=VECTORS, y=labels)
    assert source.classes == classes
    assert source.targets.tolist() == [1, 0, 2] * 3 + [1]


def test_true_and_false_are_labels(file: Path) -> None:
    assert load(file, x=VECTORS, y=LABELS > 0).classes == ("False", "True")


def test_named_classes_are_indexed_by_numbers_and_found_by_texts(file: Path) -> None:
    names = numpy.array(["zebra", "ant", "cat", "never"])
    source = load(file, x=VECTORS, y=LABELS, classes=names)
    assert source.classes == ("zebra", "ant", "cat", "never")
    assert source.targets.tolist() == LABELS.tolist()
    assert load(file, x=VECTORS, y=names[LABELS], classes=names).targets.tolist() == LABELS.tolist()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"pictures": IMAGES, "labels": LABELS}, r"images or inputs or x; .*: labels, pictures$"),
        ({"images": IMAGES}, r"labels or targets or y; .*: images$"),
        ({"x": VECTORS, "y": LABELS, "test_x": VECTORS}, r"test_labels or test_targets or test_y; "),
        ({"images": IMAGES / 255, "labels": LABELS}, r"images is of float64; .*uint8, \(255 \* images\)"),
        (
            {"images": IMAGES.astype(int) * 9, "labels": LABELS},
            r"images .*0 to 2295; .*uint8",
        ),
        ({"images": IMAGES > 9, "labels": LABELS}, r"images is of bool; save numbers$"),
        ({"images": IMAGES[0, 0, 0], "labels": LABELS[:3]}, r"images .*\(3,\); .*\(N, H, W\)"),
        ({"images": IMAGES, "labels": LABELS[:9]}, r"images .*10 samples.* labels 9 labels$"),
        ({"images": IMAGES[:0], "labels": LABELS[:0]}, r"images .*no samples$"),
        ({"x": VECTORS, "y": LABELS * 0}, r"one class.* \(0\); .*two$"),
        ({"x": VECTORS, "y": numpy.eye(10)}, r"y .*\(10, 10\).*\(N,\); save the class"),
        ({"x": VECTORS, "y": LABELS / 2}, r"y is of float64; .*whole numbers or texts$"),
        (
            {"x": VECTORS, "y": LABELS, "test_x": VECTORS[:, :2], "test_y": LABELS},
            r"test_x .*\(2,\)",
        ),
        ({"x": VECTORS, "y": LABELS, "test_x": VECTORS, "test_y": LABELS + 7}, r"label 7 .*3 classes$"),
        ({"x": VECTORS, "y": LABELS, "classes": ["a", "b"]}, r"label 2 .*2 classes$"),
        ({"x": VECTORS, "y": LABELS, "classes": ["a", "a", "b"]}, r"classes .*at least two different"),
        ({"x": VECTORS + numpy.inf, "y": LABELS}, r"x .*row 0, column 0; use NaN"),
    ],
)
def test_what_does_not_fit_is_refused(file: Path, arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=rf"^data\.file: {file}.*{message}") as caught:
        load(file, **arrays)
    assert "\n" not in str(caught.value)


class Exploding:
    """Running it would be the end of the test."""

    def __reduce__(self) -> Any:
        return (exit, (1,))


def test_python_objects_are_never_read(file: Path) -> None:
    with pytest.raises(ConfigError, match=r"^data\.file: .*Python objects.*; save plain arrays$"):
        load(file, images=numpy.array([Exploding()] * 10, dtype=object), labels=LABELS)
    file.write_bytes(pickle.dumps(Exploding()))
    with pytest.raises(ConfigError, match=r"^data\.file: .*; write it with numpy\.savez$"):
        load(file)


@pytest.mark.parametrize("kept", [2, 100, 600, -1, -30])
def test_an_archive_that_breaks_off_is_damaged(file: Path, kept: int) -> None:
    numpy.savez_compressed(file, images=IMAGES, labels=LABELS)
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(ConfigError, match=rf"^data\.file: {file} is damaged \(.*\); write it again$"):
        load(file)


def test_a_flipped_bit_is_found(file: Path) -> None:
    numpy.savez(file, images=IMAGES, labels=LABELS)
    content = bytearray(file.read_bytes())
    content[500] ^= 1
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"is damaged .*CRC"):
        load(file)


def test_no_file(file: Path, tmp_path: Path) -> None:
    for value, message in (
        (None, r"is missing; .*\.npz.*data\.file=PATH$"),
        (str(file), rf"{file} does not exist; .*\.npz"),
        (str(tmp_path), rf"{tmp_path} is a folder; .*\.npz"),
    ):
        with pytest.raises(ConfigError, match=rf"^data\.file: {message}"):
            npz(file=value, channels="auto")


def test_a_changed_file_is_read_again(file: Path) -> None:
    first = load(file, x=VECTORS, y=LABELS).hash
    assert load(file).hash == first
    assert load(file, x=VECTORS + 1, y=LABELS).hash != first


def test_an_array_that_does_not_fit_is_refused_by_what_its_header_says(tmp_path: Path) -> None:
    header = io.BytesIO()
    numpy.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (10**14,)})
    file = tmp_path / "lie.npz"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("images.npy", header.getvalue())
    with pytest.raises(ConfigError, match=r"lie.npz does not fit into this machine's memory|lie.npz is damaged"):
        read_arrays(file, "data.file")
