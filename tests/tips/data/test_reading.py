"""A new file is read as the source read its own: what training saw comes back bit for bit."""

import wave
from dataclasses import replace
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image

from dltips.errors import ConfigError
from dltips.tips.data import Source
from dltips.tips.data.digits import digits
from dltips.tips.data.image_folder import image_folder
from dltips.tips.data.npz import npz
from dltips.tips.data.pictures import resize
from dltips.tips.data.reading import read_samples
from dltips.tips.data.synthetic import synthetic
from dltips.tips.data.table import csv

RANDOM = numpy.random.default_rng(0)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def shape(source: Source) -> tuple[int, ...]:
    return tuple(source.inputs.shape[1:])


def picture(path: Path, height: int, width: int, mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RANDOM.integers(0, 256, (height, width, 3), dtype=numpy.uint8)).convert(mode).save(path)
    return path


def refused(source: Source, path: Path, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^predict: {message}$"):
        read_samples(source.reader, shape(source), path)


# Images.


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_the_pictures_of_an_image_folder_come_back_as_training_saw_them(tmp_path: Path, mode: str) -> None:
    files = [picture(tmp_path / "p" / f"{name}.png", *size, mode) for name, size in (("a/1", (9, 20)), ("b/2", (8, 8)))]
    source = image_folder(root=str(tmp_path / "p"), on_error="refuse", image_size=8)
    inputs, names = read_samples(source.reader, shape(source), tmp_path / "p")
    assert torch.equal(inputs, source.inputs)
    assert names == [str(file) for file in files]
    for number, file in enumerate(files):
        inputs, names = read_samples(source.reader, shape(source), file)
        assert torch.equal(inputs, source.inputs[number : number + 1]) and names == [str(file)]


def test_a_coloured_picture_becomes_a_gray_one_of_the_digits_size(tmp_path: Path) -> None:
    source = digits()
    inputs, _ = read_samples(source.reader, shape(source), picture(tmp_path / "three.png", 20, 30))
    assert inputs.shape == (1, 1, 8, 8) and inputs.dtype == torch.uint8


def test_a_digit_saved_as_a_picture_is_that_digit_also_after_a_resize(tmp_path: Path) -> None:
    inputs = resize(digits().inputs, (16, 16))  # as data.image_size=16 does
    source = replace(digits(), inputs=inputs)
    Image.fromarray(digits().inputs[5, 0].numpy()).save(tmp_path / "5.png")
    inputs, _ = read_samples(source.reader, shape(source), tmp_path / "5.png")
    assert int((inputs[0].int() - source.inputs[5].int()).abs().max()) <= 1  # Pillow's and torch's rounding


def test_a_folder_is_read_recursively_in_order_and_hidden_files_are_left_out(tmp_path: Path) -> None:
    files = [picture(tmp_path / name, 8, 8) for name in ("a/deep/2.png", "a/x.jpg", "b.bmp")]
    (tmp_path / ".hidden.png").write_text("x")
    (tmp_path / "notes.txt").write_text("x")
    _, names = read_samples({"kind": "image"}, (3, 8, 8), tmp_path)
    assert names == [str(file) for file in files]


def test_the_images_of_an_archive_are_resized_as_training_resized_them(tmp_path: Path) -> None:
    images = RANDOM.integers(0, 256, (5, 12, 9, 3), dtype=numpy.uint8)
    numpy.savez(tmp_path / "a.npz", images=images, labels=numpy.arange(5) % 2)
    source = npz(file=str(tmp_path / "a.npz"), channels="auto")
    inputs, names = read_samples(source.reader, (3, 6, 6), tmp_path / "a.npz")
    assert torch.equal(inputs, resize(source.inputs, (6, 6)))
    assert names[3] == f"{tmp_path / 'a.npz'}[3]" and len(names) == 5


def test_where_the_channels_stood_is_remembered(tmp_path: Path) -> None:
    numpy.savez(tmp_path / "a.npz", images=numpy.zeros((4, 3, 5, 3), numpy.uint8), labels=[0, 1, 0, 1])
    source = npz(file=str(tmp_path / "a.npz"), channels="first")
    inputs, _ = read_samples(source.reader, shape(source), tmp_path / "a.npz")
    assert torch.equal(inputs, source.inputs)


def test_what_gives_no_image_is_refused(tmp_path: Path) -> None:
    source = digits()
    refused(source, tmp_path / "no.png", rf"{tmp_path}/no\.png does not exist; .*file or a folder")
    refused(source, tmp_path, f"{tmp_path} .*no pictures")
    (tmp_path / "a.txt").write_text("no picture")
    refused(source, tmp_path / "a.txt", rf"{tmp_path}/a\.txt .*\(.*\); give pictures, or an \.npz file")
    numpy.savez(tmp_path / "v.npz", x=numpy.zeros((2, 5)))
    refused(source, tmp_path / "v.npz", rf"{tmp_path}/v\.npz .*vectors.* images")
    numpy.savez(tmp_path / "c.npz", x=numpy.zeros((2, 2, 8, 8), numpy.uint8))
    refused(
        replace(source, reader={"kind": "image", "channels": "first"}),
        tmp_path / "c.npz",
        rf"{tmp_path}/c\.npz .*\(2, 8, 8\).* \(1, 8, 8\)",
    )


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_gray_and_colour_become_what_the_net_takes(tmp_path: Path, mode: str, channels: int) -> None:
    own = numpy.asarray(Image.open(picture(tmp_path / "a.png", 8, 8, mode)))
    numpy.savez(tmp_path / "a.npz", images=own[None])
    expected = numpy.asarray(Image.fromarray(own).convert("L" if channels == 1 else "RGB")).reshape(8, 8, channels)
    for name in ("a.png", "a.npz"):
        inputs, _ = read_samples({"kind": "image", "channels": "auto"}, (channels, 8, 8), tmp_path / name)
        assert inputs.shape == (1, channels, 8, 8) and inputs.dtype == torch.uint8
        assert torch.equal(inputs[0].permute(1, 2, 0), torch.from_numpy(expected.copy()))


def test_two_channels_are_no_picture_s(tmp_path: Path) -> None:
    source = replace(digits(), inputs=torch.zeros(1, 2, 8, 8, dtype=torch.uint8))
    refused(
        source,
        picture(tmp_path / "a.png", 8, 8),
        r".*2 channels.*; give an \.npz file",
    )


# Vectors and tables.


def test_vectors_come_from_archives(tmp_path: Path) -> None:
    source = synthetic(kind="vector", classes=3, samples=9, size=4, noise=0.1, imbalance=1.0, seed=0)
    numpy.savez(tmp_path / "a.npz", x_test=source.inputs.numpy())
    inputs, names = read_samples(source.reader, shape(source), tmp_path / "a.npz")
    assert torch.equal(inputs, source.inputs) and names[8] == f"{tmp_path / 'a.npz'}[8]"
    numpy.savez(tmp_path / "b.npz", z=1)
    refused(source, tmp_path / "b.npz", rf"{tmp_path}/b\.npz .*images or inputs or x; .*: z")
    (tmp_path / "c.csv").write_text("a\n1\n")
    refused(source, tmp_path / "c.csv", rf"{tmp_path}/c\.csv .*\.npz file.*")


@pytest.fixture
def table(tmp_path: Path) -> Source:
    (tmp_path / "a.csv").write_text("id,age,city,kind\n7,30,Oslo,a\n8,41,Rome,b\n9,42,,b\n")
    return csv(file=str(tmp_path / "a.csv"), label="kind", categorical=None, ignore=("id",), delimiter=None)


def test_a_table_comes_back_whatever_the_order_of_its_columns(tmp_path: Path, table: Source) -> None:
    inputs, names = read_samples(table.reader, shape(table), tmp_path / "a.csv")
    assert torch.equal(inputs, table.inputs)
    assert names == [f"{tmp_path / 'a.csv'}:{line}" for line in (2, 3, 4)]
    (tmp_path / "b.csv").write_text("city;more;age\n;x;1\nRome;y;2\n")  # no label, another order, another delimiter
    inputs, _ = read_samples(table.reader, shape(table), tmp_path / "b.csv")
    assert inputs.tolist() == [[1, 1, 0, 0], [2, 0, 0, 1]]


def test_a_category_that_is_missing_and_never_was_is_zeros(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("city,kind\nOslo,a\nRome,b\n")
    source = csv(file=str(tmp_path / "a.csv"), label="kind", categorical=None, ignore=(), delimiter=None)
    (tmp_path / "b.csv").write_text("city,more\n,x\nRome,x\n")
    assert read_samples(source.reader, shape(source), tmp_path / "b.csv")[0].tolist() == [[0, 0], [0, 1]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("age,town\n1,Oslo\n", "{file} .*'city'; .*: age, town"),
        (
            "age,city\n1,Oslo\n2,Room\n",
            r"{file}, line 3: city is 'Room', .*; did you mean Rome\?",
        ),
        ("age,city\nx,Oslo\n", "{file}, line 2: age is 'x', .*number; .*empty the cell"),
        ("age,city\n1,Oslo\n,Oslo\n", "{file}, line 3 .*number.*; fill it in"),
        ("age,city\n", "{file} .*no rows"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(tmp_path: Path, table: Source, content: str, message: str) -> None:
    (tmp_path / "b.csv").write_text(content)
    refused(table, tmp_path / "b.csv", message.format(file=tmp_path / "b.csv"))


def test_numbers_may_be_missing_where_they_were_in_training(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("age,size,kind\n,1,a\n2,2,b\n")
    source = csv(file=str(tmp_path / "a.csv"), label="kind", categorical=None, ignore=(), delimiter=None)
    inputs, _ = read_samples(source.reader, shape(source), tmp_path / "a.csv")
    assert inputs.isnan().tolist() == [[True, False], [False, False]]


# The others.


@pytest.mark.parametrize(("features", "expected"), [("waveform", (1, 800)), ("log_mel", None)])
def test_recordings_are_read_by_the_audio_module(
    tmp_path: Path, features: str, expected: tuple[int, ...] | None
) -> None:
    from dltips.tips.data.audio import read_audio

    reader = {"kind": "audio", "features": features, "sample_rate": 8000, "seconds": 0.1, "mels": None}
    for name in ("b.wav", "a.wav"):
        with wave.open(str(tmp_path / name), "wb") as file:
            file.setparams((1, 2, 8000, 800, "NONE", ""))
            file.writeframes(RANDOM.integers(-9999, 9999, 800).astype("<i2").tobytes())
    one = read_audio(reader, tmp_path / "a.wav")
    assert expected is None or one.shape == expected
    if features == "log_mel":  # into a net of RGB
        inputs, _ = read_samples(reader, (3, *one.shape[1:]), tmp_path)
        assert torch.equal(inputs[0], one.expand(3, -1, -1))
    inputs, names = read_samples(reader, tuple(one.shape), tmp_path)
    assert torch.equal(inputs[0], one) and names == [str(tmp_path / "a.wav"), str(tmp_path / "b.wav")]


def test_a_source_without_a_reader_says_so(tmp_path: Path) -> None:
    refused(
        replace(digits(), reader={}),
        tmp_path,
        ".*data source.*; train with another",
    )
