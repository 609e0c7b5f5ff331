"""Recordings of sound: the spoken digits, and any folder of .wav files; as waveforms or log-mel spectrograms."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy
import torch
from torch import Tensor

from dltips import paths
from dltips.catalog.cards import card
from dltips.catalog.registry import Positive, Size
from dltips.errors import ConfigError
from dltips.nets.spectrogram import LogMel
from dltips.tips.data.source import Acquired, Source, cached, data

VERSION = "1"  # a new one makes every recording be read again
CLIPS_PER_CHUNK = 256  # clips turned into spectrograms at a time
SAMPLE_RATES = range(1_000, 768_001)  # samples per second that a recording may have
DEFAULT_MELS = 40  # of a spectrogram, if no number is given
RECORDING_NAME = re.compile(r"(\d)_(.+)_(\d+)\.wav")  # DIGIT_SPEAKER_INDEX.wav
TEST_INDICES = range(5)  # the data set's official test split: the first 5 of the 50 recordings per speaker and digit
SPOKEN_DIGITS_RATE = 8000
PARTS = {"train": "", "val": "val_", "valid": "val_", "validation": "val_", "test": "test_"}
UNKNOWN_SIZE = 0xFFFFFFFF  # the size written by programs that cannot return to the header

Features = Literal["waveform", "log_mel"]


class UnreadableError(Exception):
    """The reason why a file gives no sound."""


@dataclass(frozen=True)
class Clip:
    """The conversion of a recording into a sample."""

    features: Features
    sample_rate: int
    seconds: float
    mels: int | None

    def __post_init__(self) -> None:
        if self.features == "waveform" and self.mels is not None:
            raise ConfigError(
                f"data.mels: {self.mels} is for data.features=log_mel; of waveforms the net makes the spectrogram, so"
                f" write model.mels={self.mels}"
            )
        if self.samples < 1:
            raise ConfigError(f"data.seconds: {self.seconds:g} is less than one sample; raise it")

    @property
    def samples(self) -> int:
        return round(self.seconds * self.sample_rate)

    @property
    def reader(self) -> dict[str, Any]:
        return {"kind": "audio", **asdict(self)}


@data
@card(
    when="voice data for a first try: whoever runs it hears at once what the net has to tell apart",
    formula="(1, T) float32 in [-1, 1], or (1, M, frames) uint8: 255 (1 + dB / 80), dB relative to the clip's loudest",
    source="tip B's voice data; github.com/Jakobovski/free-spoken-digit-dataset",
    costs="21 MB of files, read once; 96 MB of waveforms of one second, 8 MB of their spectrograms",
)
def spoken_digits(*, root: str | None, features: Features, seconds: Positive, mels: Size | None) -> Source:
    """Spoken digits, 3,000 recordings at 8 kHz by 6 speakers, 10 classes, official test set (Jackson et al. 2018).

    Each clip is cut, or padded with zeros, to so many seconds, its middle in the middle. The test set are the
    recordings 0 to 4 of each speaker and digit: of the same speakers, whom the net has heard. Raises ConfigError.
    """
    folder = paths.data() / "spoken_digits" if root is None else Path(root).expanduser()
    if (folder / "recordings").is_dir():  # a copy of the repository
        folder = folder / "recordings"
    clip = Clip(features, SPOKEN_DIGITS_RATE, seconds, mels)
    parts: dict[str, list[tuple[Path, int]]] = {"": [], "test_": []}
    for file in sorted(_entries(folder)) if folder.is_dir() else []:
        match = RECORDING_NAME.fullmatch(file.name)
        if match:
            parts["test_" if int(match[3]) in TEST_INDICES else ""].append((file, int(match[1])))
    if not parts[""]:
        raise ConfigError(
            f"data=spoken_digits: {folder} holds no recordings like 7_george_12.wav; get them from"
            " github.com/Jakobovski/free-spoken-digit-dataset and set data.root to their folder"
        )
    return _source("spoken_digits", folder, {k: v for k, v in parts.items() if v}, "0123456789", clip, None)


@data
@card(
    when="your own recordings, one folder per class; log_mel unless an augmentation wants the waveform",
    formula="(1, T) float32 in [-1, 1], or (1, M, frames) uint8: 255 (1 + dB / 80), dB relative to the clip's loudest",
    source="the layout of torchvision's ImageFolder; spectrograms: Davis and Mermelstein 1980",
    costs="the first run reads every file; a second at 16 kHz takes 64 KB as a waveform, 2.5 KB as a spectrogram",
    try_with=("data.root=PATH",),
)
def audio_folder(
    *,
    root: str | None,
    features: Features,
    sample_rate: Size,
    seconds: Positive,
    mels: Size | None,
    on_error: Literal["refuse", "skip"],
) -> Source:
    """Any folder of .wav files with one folder per class, perhaps within train/, val/ and test/; else split by seed.

    PCM of 8 to 32 bits or floats, of any rate (resampled) and length (cut or padded with zeros, its middle in the
    middle), channels averaged. Raises ConfigError; with on_error=skip what cannot be read is left out, and said.
    """
    clip = Clip(features, sample_rate, seconds, mels)
    base = _folder(root)
    files_by_part = {prefix: _recordings(folder) for prefix, folder in _parts(base).items()}
    classes = sorted(files_by_part[""])
    if len(classes) < 2:
        raise ConfigError(f"data.root: {base} holds one class only ({classes[0]}); there must be two")
    for prefix, folder in _parts(base).items():
        for name in files_by_part[prefix]:
            if name not in classes:
                raise ConfigError(
                    f"data.root: {folder / name} is of a class that training does not have; there is:"
                    f" {', '.join(classes)}"
                )
    parts = {
        prefix: [(file, classes.index(name)) for name in sorted(part) for file in part[name]]
        for prefix, part in files_by_part.items()
    }
    return _source("audio_folder", base, parts, classes, clip, on_error)


def read_audio(reader: Mapping[str, Any], path: Path) -> Tensor:
    """Returns one recording as this reader's source would hold it: (1, T) float32, or (1, M, frames) uint8.

    Raises ConfigError naming the file.
    """
    clip = Clip(**{key: value for key, value in reader.items() if key != "kind"})
    try:
        waveform = _waveform(path, clip)
    except UnreadableError as error:
        raise ConfigError(f"{path}: cannot be read ({error}); give a .wav file") from error
    return torch.from_numpy(_features(waveform[None, None], clip)[0])


def _folder(root: str | None) -> Path:
    remedy = "give the folder that holds a folder of .wav files per class"
    if root is None:
        raise ConfigError(f"data.root: is missing; {remedy}")
    base = Path(root).expanduser()
    if not base.is_dir():
        raise ConfigError(f"data.root: {base} {'is a file' if base.exists() else 'does not exist'}; {remedy}")
    return base


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise ConfigError(f"data.root: {folder} cannot be read ({error.strerror}); check its permissions") from error


def _parts(base: Path) -> dict[str, Path]:
    """Returns prefix of Source's tensors -> folder: all samples, or train/ with its official val/ and test/."""
    inner = {folder.name: folder for folder in _entries(base) if folder.is_dir()}
    # a class may be called train, beside bus and tram: then there are other names, or no folders in it
    if "train" not in inner or set(inner) - set(PARTS) or not any(e.is_dir() for e in _entries(inner["train"])):
        return {"": base}
    parts: dict[str, Path] = {}
    for name, folder in inner.items():
        if PARTS[name] in parts:
            raise ConfigError(f"data.root: {base} has both {parts[PARTS[name]].name}/ and {name}/; keep one")
        parts[PARTS[name]] = folder
    return parts


def _recordings(folder: Path) -> dict[str, list[Path]]:
    """Returns the .wav files of each class folder, at any depth."""
    files_by_class = {}
    for inner in _entries(folder):
        if inner.is_dir():
            files = [file for file in inner.rglob("*") if file.suffix.lower() == ".wav"]
            files_by_class[inner.name] = sorted(file for file in files if not file.name.startswith("."))
    files_by_class = {name: files for name, files in files_by_class.items() if files}
    if not files_by_class:
        raise ConfigError(
            f"data.root: {folder} holds no folders with .wav files; put those of each class into a folder of its name"
        )
    return files_by_class


def _source(
    name: str,
    base: Path,
    parts: Mapping[str, Sequence[tuple[Path, int]]],
    classes: Sequence[str],
    clip: Clip,
    on_error: Literal["refuse", "skip"] | None,
) -> Source:
    """Returns the source, from the cache if files and knobs are unchanged."""
    stamps = []
    for prefix, files in parts.items():
        for file, target in files:
            status = file.stat() if file.exists() else None  # a broken link: reading it reports that
            size, time = (status.st_size, status.st_mtime_ns) if status else (0, 0)
            stamps.append(f"{prefix} {target} {file.relative_to(base)} {size} {time}")
    key = "\n".join([VERSION, str(base.resolve()), str(on_error), repr(clip), *classes, *stamps])
    return cached(name, key, lambda: _acquire(parts, classes, clip, on_error, base))


def _acquire(
    parts: Mapping[str, Sequence[tuple[Path, int]]],
    classes: Sequence[str],
    clip: Clip,
    on_error: Literal["refuse", "skip"] | None,  # None: the source has no such knob
    base: Path,
) -> Acquired:
    """Reads every recording. Raises ConfigError."""
    arrays: dict[str, numpy.ndarray] = {}
    broken: list[str] = []
    for prefix, files in parts.items():
        inputs = _allocate(len(files), clip)
        targets: list[int] = []
        for file, target in files:
            try:
                inputs[len(targets), 0] = _waveform(file, clip)
            except UnreadableError as error:
                if on_error != "skip":
                    remedy = "fix or delete it" + (", or write data.on_error=skip" if on_error else "")
                    raise ConfigError(f"data.root: {file} cannot be read ({error}); {remedy}") from error
                broken.append(f"{file.relative_to(base)} ({error})")
            else:
                targets.append(target)
        if not targets:
            raise ConfigError(
                f"data.root: no recording of {prefix.rstrip('_') or 'train'} can be read, e.g. {broken[0]}"
            )
        arrays[f"{prefix}inputs"] = _features(inputs[: len(targets)], clip)
        arrays[f"{prefix}targets"] = numpy.asarray(targets, dtype=numpy.int64)
    notes = []
    if broken:
        shown = ", ".join(broken[:3]) + (", ..." if len(broken) > 3 else "")
        notes = [f"data.root: recordings that cannot be read are left out, {len(broken)}: {shown}"]
    return Acquired(arrays, classes, clip.reader, notes)


def _allocate(count: int, clip: Clip) -> numpy.ndarray:
    try:
        return numpy.empty((count, 1, clip.samples), numpy.float32)
    except (MemoryError, ValueError) as error:
        raise ConfigError(
            f"data.seconds: {count} clips of {clip.seconds:g} s do not fit into this machine's memory; lower it"
        ) from error


def _features(waveforms: numpy.ndarray, clip: Clip) -> numpy.ndarray:
    """Returns waveforms (N, 1, T) float32, or their spectrograms (N, 1, M, frames) uint8."""
    if clip.features == "waveform":
        return waveforms
    log_mel = LogMel(clip.sample_rate, clip.mels or DEFAULT_MELS, "data")
    parts = [
        log_mel(part).mul(255).round().byte() for part in torch.split(torch.from_numpy(waveforms), CLIPS_PER_CHUNK)
    ]
    spectrograms: numpy.ndarray = torch.cat(parts).numpy()
    return spectrograms


def _waveform(file: Path, clip: Clip) -> numpy.ndarray:
    """Returns (T,) float32 in [-1, 1]: the middle of the recording, or all of it, padded. Raises UnreadableError."""
    samples, rate = read_wav(file)
    if rate != clip.sample_rate:
        from scipy.signal import resample_poly

        divisor = math.gcd(rate, clip.sample_rate)
        # low-pass filtered before samples are dropped: high tones would alias
        samples = resample_poly(samples, clip.sample_rate // divisor, rate // divisor).clip(-1, 1)
    surplus, missing = len(samples) - clip.samples, clip.samples - len(samples)
    if surplus >= 0:
        return samples[surplus // 2 : surplus // 2 + clip.samples]
    return numpy.pad(samples, (missing // 2, missing - missing // 2))


def read_wav(file: Path) -> tuple[numpy.ndarray, int]:
    """Returns (T,) float32 in [-1, 1], channels averaged, and the sample rate. Raises UnreadableError.

    Reads PCM and floats.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UnreadableError(error.strerror or "an error") from error
    if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        raise UnreadableError("no RIFF/WAVE file" if content else "an empty file")
    header, body, position = b"", None, 12
    while body is None and position + 8 <= len(content):
        size = int.from_bytes(content[position + 4 : position + 8], "little")
        chunk = content[position + 8 : position + 8 + size]
        if content[position : position + 4] == b"fmt ":
            header = chunk
        elif content[position : position + 4] == b"data":
            if len(chunk) < size != UNKNOWN_SIZE:
                raise UnreadableError(f"ends after {len(chunk)} of {size} bytes of sound")
            body = chunk
        position += 8 + size + size % 2
    if len(header) < 16 or body is None:
        raise UnreadableError("its header is damaged" if len(header) < 16 else "holds no sound")
    encoding, channels, rate, _, _, bits = struct.unpack("<HHIIHH", header[:16])
    if encoding == 0xFFFE and len(header) >= 26:  # the extensible header gives it further on
        encoding = int.from_bytes(header[24:26], "little")
    if channels < 1:
        raise UnreadableError("its header is damaged")
    if rate not in SAMPLE_RATES:
        raise UnreadableError(f"its sample rate, {rate}, is not from {SAMPLE_RATES[0]} to {SAMPLE_RATES[-1]}")
    samples = _decode(body, encoding, bits)
    samples = samples[: len(samples) // channels * channels].reshape(-1, channels)
    if not len(samples):
        raise UnreadableError("holds no sound")
    if not numpy.isfinite(samples).all():
        raise UnreadableError("holds values that are not finite")
    return samples.mean(1, dtype=numpy.float64).clip(-1, 1).astype(numpy.float32), rate


def _decode(body: bytes, encoding: int, bits: int) -> numpy.ndarray:
    """Returns the samples with full scale as 1. Raises UnreadableError."""
    if (encoding, bits) not in [(1, 8), (1, 16), (1, 24), (1, 32), (3, 32), (3, 64)]:
        raise UnreadableError(f"its encoding, number {encoding} with {bits} bits, is neither PCM nor floats")
    body = body[: len(body) // (bits // 8) * (bits // 8)]
    if encoding == 3:
        return numpy.frombuffer(body, f"<f{bits // 8}")
    if bits == 8:  # the only unsigned one
        return (numpy.frombuffer(body, numpy.uint8) - 128.0) / 128
    if bits == 24:  # the upper three bytes of 32 bits
        padded = numpy.zeros((len(body) // 3, 4), numpy.uint8)
        padded[:, 1:] = numpy.frombuffer(body, numpy.uint8).reshape(-1, 3)
        body, bits = padded.tobytes(), 32
    return numpy.frombuffer(body, f"<i{bits // 8}") / 2.0 ** (bits - 1)
