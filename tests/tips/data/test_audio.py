"""Recordings: files written by scipy and by Python's own module are read back, cut, resampled and turned to images."""

import os
import re
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from scipy.io import wavfile

from dltips.errors import ConfigError
from dltips.nets.spectrogram import LogMel
from dltips.tips.data import Source
from dltips.tips.data.audio import UnreadableError, audio_folder, read_audio, read_wav, spoken_digits

REAL = os.environ.get("DLTIPS_TEST_DATA")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def tone(frequency: float = 440, samples: int = 800, rate: int = 8000, height: float = 0.5) -> numpy.ndarray:
    return height * numpy.sin(2 * numpy.pi * frequency * numpy.arange(samples) / rate + 0.3)


def write(file: Path, samples: numpy.ndarray, rate: int = 8000, bits: int = 16) -> None:
    """PCM by Python's own module: samples (T,) or (T, channels) in [-1, 1)."""
    file.parent.mkdir(parents=True, exist_ok=True)
    whole = numpy.rint(samples * 2 ** (bits - 1)).astype(numpy.int64)
    stored = (whole + 128 if bits == 8 else whole)[..., None] >> (8 * numpy.arange(bits // 8)) & 255
    with wave.open(str(file), "wb") as stream:
        stream.setnchannels(samples.shape[1] if samples.ndim == 2 else 1)
        stream.setsampwidth(bits // 8)
        stream.setframerate(rate)
        stream.writeframes(stored.astype(numpy.uint8).tobytes())


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """Two speakers, digits 3 and 7, recordings 3 to 6; each of a tone and a length of its own."""
    for digit in (3, 7):
        for speaker in ("ann", "bob"):
            for index in range(3, 7):
                write(tmp_path / f"data/{digit}_{speaker}_{index}.wav", tone(100 * digit + index, 500 + 100 * index))
    return tmp_path / "data"


def read_digits(root: Path, **knobs: Any) -> Source:
    return spoken_digits(**{"root": str(root), "features": "waveform", "seconds": 0.1, "mels": None, **knobs})


def read_folder(root: Path | None, **knobs: Any) -> Source:
    usual = {"features": "waveform", "sample_rate": 8000, "seconds": 0.1, "mels": None, "on_error": "refuse"}
    return audio_folder(**{"root": None if root is None else str(root), **usual, **knobs})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three classes with recordings that differ in rate, length, channels and depth."""
    write(tmp_path / "sounds/high/a.wav", tone(1500, 1600))
    write(tmp_path / "sounds/high/deep/b.WAV", tone(1500, 400), bits=24)
    write(tmp_path / "sounds/low/a.wav", tone(200, 4000, 16000), 16000)
    write(tmp_path / "sounds/low/c.wav", numpy.stack([tone(200), numpy.zeros(800)], 1), bits=8)
    write(tmp_path / "sounds/quiet/a.wav", tone(200, height=0.001))
    (tmp_path / "sounds/readme.txt").write_text("")
    (tmp_path / "sounds/high/._a.wav").write_text("")
    return tmp_path / "sounds"


@pytest.mark.parametrize(("bits", "steps"), [(8, 128), (16, 2**15), (24, 2**23), (32, 2**31)])
def test_pcm_of_any_depth_is_read_to_half_a_step(tmp_path: Path, bits: int, steps: int) -> None:
    write(tmp_path / "a.wav", tone(), 11025, bits)
    samples, rate = read_wav(tmp_path / "a.wav")
    assert rate == 11025 and samples.dtype == numpy.float32
    numpy.testing.assert_allclose(samples, tone(), atol=0.5 / steps + 1e-7)


@pytest.mark.parametrize("dtype", [numpy.uint8, numpy.int16, numpy.int32, numpy.float32, numpy.float64])
def test_files_of_scipy_are_read_as_it_reads_them(tmp_path: Path, dtype: type) -> None:
    scale = 1 if issubclass(dtype, numpy.floating) else numpy.iinfo(dtype).max // (2 if dtype == numpy.uint8 else 1)
    stored = numpy.stack([tone(), tone(300)], 1) * scale + (128 if dtype == numpy.uint8 else 0)
    wavfile.write(tmp_path / "a.wav", 8000, (stored if scale == 1 else numpy.rint(stored)).astype(dtype))
    samples, _ = read_wav(tmp_path / "a.wav")
    numpy.testing.assert_allclose(samples, (tone() + tone(300)) / 2, atol=0.01 if dtype == numpy.uint8 else 1e-4)


def test_other_chunks_are_passed_over_and_the_extensible_header_is_read(tmp_path: Path) -> None:
    write(tmp_path / "a.wav", tone())
    content = (tmp_path / "a.wav").read_bytes()
    form, rest = content[20:36], content[36:]
    extensible = b"\xfe\xff" + form[2:] + b"\x16\0" + b"\x10\0\0\0\0\0" + form[:2] + bytes(14)
    odd = b"LIST\x03\0\0\0abc\0"
    (tmp_path / "b.wav").write_bytes(content[:12] + odd + b"fmt \x28\0\0\0" + extensible + odd + rest)
    numpy.testing.assert_array_equal(read_wav(tmp_path / "b.wav")[0], read_wav(tmp_path / "a.wav")[0])


def spoilt(change: Callable[[bytearray], bytes | bytearray]) -> Callable[[Path], None]:
    def write_spoilt(file: Path) -> None:
        write(file, tone())
        file.write_bytes(change(bytearray(file.read_bytes())))

    return write_spoilt


def set_bytes(place: int, value: bytes) -> Callable[[bytearray], bytes]:
    return lambda content: bytes(content[:place] + value + content[place + len(value) :])


BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "empty": (spoilt(lambda content: b""), "an empty file"),
    "text": (spoilt(lambda content: b"no sound at all"), "no RIFF/WAVE file"),
    "cut": (spoilt(lambda content: content[:-100]), "ends after 1500 of 1600 bytes of sound"),
    "header alone": (spoilt(lambda content: content[:36]), "holds no sound"),
    "cut header": (spoilt(lambda content: content[:30]), "its header is damaged"),
    "no samples": (lambda file: write(file, tone()[:0]), "holds no sound"),
    "no channel": (spoilt(set_bytes(22, b"\0\0")), "its header is damaged"),
    "no rate": (spoilt(set_bytes(24, b"\0\0\0\0")), "its sample rate, 0, is not from 1000 to 768000"),
    "mu-law": (
        spoilt(set_bytes(20, b"\x07\0")),
        "its encoding, number 7 with 16 bits, is neither PCM nor floats",
    ),
    "nan": (lambda file: wavfile.write(file, 8000, numpy.full(5, numpy.nan)), "holds values that are not finite"),
    "folder": (lambda file: file.mkdir(), "Is a directory"),
    "nowhere": (lambda file: file.symlink_to("nothing"), "No such file or directory"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_gives_no_sound_says_why(tmp_path: Path, case: str) -> None:
    make, reason = BROKEN[case]
    make(tmp_path / "a.wav")
    with pytest.raises(UnreadableError) as caught:
        read_wav(tmp_path / "a.wav")
    assert str(caught.value) == reason


def test_a_header_that_says_nothing_of_the_length_takes_the_whole_file(tmp_path: Path) -> None:
    spoilt(set_bytes(40, b"\xff\xff\xff\xff"))(tmp_path / "a.wav")
    assert len(read_wav(tmp_path / "a.wav")[0]) == 800


def test_the_official_test_recordings_are_kept_apart(digits: Path) -> None:
    source = read_digits(digits)
    assert source.test_inputs is not None and source.test_targets is not None
    assert source.classes == tuple("0123456789")
    # files in the order of their names; 3 and 4 belong to the test
    for inputs, targets, indices in (
        (source.inputs, source.targets, (5, 6)),
        (source.test_inputs, source.test_targets, (3, 4)),
    ):
        names = [(d, s, i) for d in (3, 7) for s in ("ann", "bob") for i in indices]
        assert targets.tolist() == [digit for digit, _, _ in names]
        assert inputs.shape == (8, 1, 800) and inputs.dtype == torch.float32
        for clip, (digit, speaker, index) in zip(inputs, names, strict=True):
            samples, _ = read_wav(digits / f"{digit}_{speaker}_{index}.wav")
            missing = 800 - len(samples)
            expected = numpy.pad(samples, (max(0, missing) // 2, max(0, missing) - max(0, missing) // 2))
            start = (len(expected) - 800) // 2
            numpy.testing.assert_array_equal(clip[0], expected[start : start + 800])


def test_the_recordings_are_found_in_a_copy_of_the_repository_and_under_the_data_folder(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = read_digits(digits).hash
    (tmp_path / "all/spoken_digits").mkdir(parents=True)
    digits.rename(tmp_path / "all/spoken_digits/recordings")
    assert read_digits(tmp_path / "all/spoken_digits").hash == expected
    monkeypatch.setenv("DLTIPS_DATA", str(tmp_path / "all"))
    assert spoken_digits(root=None, features="waveform", seconds=0.1, mels=None).hash == expected


def test_log_mel_is_the_spectrogram_as_an_image(digits: Path) -> None:
    waveforms, images = read_digits(digits), read_digits(digits, features="log_mel", mels=20)
    assert images.inputs.dtype == torch.uint8 and images.inputs.shape == (8, 1, 20, 7)
    expected = LogMel(8000, 20, "data")(waveforms.inputs)
    assert float((images.inputs / 255 - expected).abs().max()) <= 0.5 / 255 + 1e-6
    assert (images.inputs.amax((1, 2, 3)) == 255).all()
    assert read_digits(digits, features="log_mel").inputs.shape[2] == 40


@pytest.mark.parametrize("features", ["waveform", "log_mel"])
def test_the_reader_reads_a_file_as_the_source_holds_it(digits: Path, folder: Path, features: str) -> None:
    source = read_digits(digits, features=features)
    assert source.reader["kind"] == "audio"
    assert torch.equal(read_audio(source.reader, digits / "3_ann_5.wav"), source.inputs[0])
    source = read_folder(folder, features=features)
    assert torch.equal(read_audio(source.reader, folder / "low/a.wav"), source.inputs[2])


def test_a_file_that_the_reader_cannot_read_is_named(digits: Path, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_text("words")
    with pytest.raises(ConfigError) as caught:
        read_audio(read_digits(digits).reader, tmp_path / "a.wav")
    assert str(caught.value) == f"{tmp_path}/a.wav: cannot be read (no RIFF/WAVE file); give a .wav file"


def test_a_folder_of_mixed_recordings_becomes_one_set(folder: Path) -> None:
    source = read_folder(folder)
    assert source.classes == ("high", "low", "quiet")
    assert source.targets.tolist() == [0, 0, 1, 1, 2]
    assert source.inputs.shape == (5, 1, 800)
    high, short, low, mixed, quiet = source.inputs[:, 0].double().numpy()
    numpy.testing.assert_allclose(high, tone(1500, 1600)[400:1200], atol=1e-4)  # the middle of 1600
    numpy.testing.assert_allclose(short, numpy.pad(tone(1500, 400), 200), atol=1e-6)
    # 4000 samples at 16 kHz are 2000 at 8 kHz; the tone stays the tone
    numpy.testing.assert_allclose(low, tone(200, 2000)[600:1400], atol=2e-3)
    numpy.testing.assert_allclose(mixed, tone(200) / 2, atol=1 / 128)
    numpy.testing.assert_allclose(quiet, tone(200, height=0.001), atol=1e-4)


def test_resampling_lets_no_high_tone_come_back_as_a_low_one(tmp_path: Path) -> None:
    for name, frequency in (("audible", 1000), ("beyond", 5000)):  # half of 8 kHz is 4 kHz
        write(tmp_path / f"x/{name}/a.wav", tone(frequency, 1600, 16000), 16000)
    audible, beyond = read_folder(tmp_path / "x").inputs[:, 0, 100:-100]
    assert float(audible.square().mean().sqrt()) == pytest.approx(0.5 / 2**0.5, rel=0.01)
    assert float(beyond.square().mean().sqrt()) < 0.005


def test_train_val_and_test_folders_are_official_splits(folder: Path, tmp_path: Path) -> None:
    whole = read_folder(folder)
    for part in ("train", "validation", "test"):
        (tmp_path / "parts").mkdir(exist_ok=True)
        os.symlink(folder, tmp_path / "parts" / part)
    source = read_folder(tmp_path / "parts")
    for inputs, targets in (
        (source.inputs, source.targets),
        (source.val_inputs, source.val_targets),
        (source.test_inputs, source.test_targets),
    ):
        assert inputs is not None and targets is not None
        assert torch.equal(inputs, whole.inputs) and torch.equal(targets, whole.targets)


def test_classes_may_be_called_train_and_test(tmp_path: Path) -> None:
    for name in ("train", "bus"):
        write(tmp_path / f"a/{name}/a.wav", tone())
    for name in ("train", "test"):  # with recordings right within, these are no splits
        write(tmp_path / f"b/{name}/a.wav", tone())
    assert read_folder(tmp_path / "a").classes == ("bus", "train")
    assert read_folder(tmp_path / "b").classes == ("test", "train")


def test_a_corrupt_file_is_refused_by_name_or_skipped_and_said(folder: Path) -> None:
    whole = read_folder(folder)
    (folder / "high/b.wav").write_text("words")
    with pytest.raises(ConfigError, match=rf"^data\.root: {folder}/high/b\.wav .*RIFF.*; .*data\.on_error=skip$"):
        read_folder(folder)
    for _ in range(2):  # the cache says it too
        source = read_folder(folder, on_error="skip")
        (note,) = source.notes
        assert re.search(r"^data\.root: .*left out, 1: high/b\.wav \(.*RIFF", note)
        assert source.hash == whole.hash


def test_a_corrupt_digit_is_refused_by_name(digits: Path) -> None:
    (digits / "3_ann_5.wav").write_text("")
    with pytest.raises(ConfigError, match=rf"^data\.root: {digits}/3_ann_5\.wav .*empty.*; .*delete it$"):
        read_digits(digits)


def test_a_changed_file_or_knob_is_read_again(folder: Path) -> None:
    first = read_folder(folder)
    assert read_folder(folder, seconds=0.05).inputs.shape == (5, 1, 400)
    assert read_folder(folder, sample_rate=4000).inputs.shape == (5, 1, 400)
    write(folder / "quiet/a.wav", tone(300))
    assert read_folder(folder).hash != first.hash


def refusals(tmp_path: Path) -> dict[str, tuple[Callable[[], Source], str]]:
    empty, one, more = tmp_path / "empty", tmp_path / "one", tmp_path / "more"
    empty.mkdir()
    write(one / "only/a.wav", tone())
    for name in ("train/a", "train/b", "val/c"):
        write(more / name / "a.wav", tone())
    give = r"give the folder .*\.wav"
    return {
        "no root": (lambda: read_folder(None), rf"data\.root: .*missing; {give}"),
        "nowhere": (lambda: read_folder(tmp_path / "no"), rf"data\.root: {tmp_path}/no does not exist; {give}"),
        "a file": (lambda: read_folder(one / "only/a.wav"), rf"data\.root: {one}/only/a\.wav .*file; {give}"),
        "empty": (lambda: read_folder(empty), rf"data\.root: {empty} .*\.wav files; .*folder of its name$"),
        "one class": (lambda: read_folder(one), rf"data\.root: {one} .*one class.* \(only\); .*two$"),
        "a new class": (lambda: read_folder(more), rf"data\.root: {more}/val/c .*: a, b$"),
        "no digits": (
            lambda: read_digits(empty),
            f"data=spoken_digits: {empty} .*digit-dataset.*data.root",
        ),
        "mels of a waveform": (
            lambda: read_digits(empty, mels=30),
            r"data\.mels: 30 .*data\.features=log_mel; .*write model\.mels=30$",
        ),
        "too short": (lambda: read_digits(empty, seconds=0.00001), r"data\.seconds: 1e-05 .*; raise it$"),
        "too long": (
            lambda: read_folder(folder_of_two(tmp_path), seconds=1e15),
            r"data\.seconds: 2 clips of 1e\+15 s .*; lower it$",
        ),
    }


def folder_of_two(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        write(tmp_path / "two" / name / "a.wav", tone())
    return tmp_path / "two"


def test_what_gives_no_data_set_is_refused_with_a_remedy(tmp_path: Path) -> None:
    for read, message in refusals(tmp_path).values():
        with pytest.raises(ConfigError, match=f"^{message}"):
            read()


@pytest.mark.skipif(REAL is None, reason="DLTIPS_TEST_DATA names no folder with the real data sets")
def test_the_real_recordings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLTIPS_DATA", str(REAL))
    source = spoken_digits(root=None, features="log_mel", seconds=1.0, mels=None)
    assert source.inputs.shape == (2700, 1, 40, 63)
    assert torch.bincount(source.targets).tolist() == [270] * 10
    assert source.test_targets is not None and torch.bincount(source.test_targets).tolist() == [30] * 10
