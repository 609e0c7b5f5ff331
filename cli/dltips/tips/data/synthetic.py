"""Draws samples from a formula, so that the best possible classifier and its accuracy are known."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy

from dltips import free_memory
from dltips.catalog.cards import card
from dltips.catalog.registry import Bounds, Count, NonNegative, Size
from dltips.errors import ConfigError
from dltips.tips.data.source import Acquired, Source, data, uncached

Ratio = Annotated[float, Bounds(least=1)]

WAVE_SAMPLES = 64  # samples of a waveform per unit of size: 16 gives 1,024
BACKGROUND, SIGNAL_HEIGHT = 0.25, 0.5  # of images and waves, so that noise up to 0.2 is hardly ever clipped


@data
@card(
    when="to test a setting, a tip or an installation: what the best classifier reaches is known",
    formula="x = signal of the class + noise * N(0, 1); right at best: E[Phi(z + sqrt(n) / noise)^(classes - 1)]",
    source="signals in white noise, e.g. Van Trees 1968, Detection, Estimation, and Modulation Theory, part I",
    costs="nothing: made in milliseconds, nothing to download",
)
def synthetic(
    *,
    kind: Literal["vector", "image", "waveform", "sequence"],
    classes: Size,
    samples: Size,
    size: Size,
    noise: NonNegative,
    imbalance: Ratio,
    seed: Count,
) -> Source:
    """Samples with a known answer: vectors, RGB images, waveforms or spectrogram-like sequences.

    vector: (size,) floats; feature k is 1 higher in class k. The answer is the largest feature.
    image: (3, size, size) uint8, sequence: (1, size, 2 size) uint8; the k-th of `classes` bands of rows, counted from
    the top, is brighter. The answer is the brightest band; a flip of left and right keeps it.
    waveform: (1, 64 size) floats; a sine of the class's frequency, of any phase. The answer is the largest Fourier
    coefficient among those at frequencies(classes, 64 size).
    Noise is normal, in units of the signal's height. n values make up a vector's or a band's signal: with classes of
    one size, the answer is right with the probability E[Phi(z + sqrt(n) / noise)^(classes - 1)], z normal.
    Class k has about imbalance^(-k / (classes - 1)) times as many samples as class 0. Raises ConfigError.
    """
    if kind != "waveform" and size < classes:
        raise ConfigError(f"data.size: {size} has no room for {classes} classes; raise it to at least {classes}")
    lines = {"vector": 1, "image": 3 * size, "sequence": 2 * size, "waveform": 64}[kind]
    free_memory.require_memory("data.samples", samples * size * lines * 8)  # drawn as doubles
    counts = class_sizes(samples, classes, imbalance)
    random = numpy.random.default_rng(seed)
    targets = random.permutation(numpy.repeat(numpy.arange(classes), counts))
    inputs = {"vector": _vectors, "image": _images, "sequence": _sequences, "waveform": _waveforms}[kind](
        targets, classes, size, noise, random
    )
    readers = {"vector": {"kind": "vector"}, "image": {"kind": "image"}, "sequence": {"kind": "image"}}
    names = [str(label) for label in range(classes)]
    return uncached(Acquired({"inputs": inputs, "targets": targets}, names, readers.get(kind, {})))


def class_sizes(samples: int, classes: int, imbalance: float) -> numpy.ndarray:
    """Returns (K,) sizes that fall geometrically from class 0 to the last, and add up. Raises ConfigError."""
    if classes < 2:
        raise ConfigError(f"data.classes: {classes} leaves nothing to tell apart; raise it to at least 2")
    shares = imbalance ** (-numpy.arange(classes) / (classes - 1))
    # each boundary rounded: the sizes add up, and none is more than one off
    bounds = numpy.rint(numpy.cumsum(shares) / shares.sum() * samples).astype(numpy.int64)
    counts: numpy.ndarray = numpy.diff(bounds, prepend=0)
    if counts.min() < 1:
        raise ConfigError(f"data.samples: {samples} leaves a class of the {classes} without a sample; raise it")
    return counts


def frequencies(classes: int, length: int) -> numpy.ndarray:
    """Returns (K,) full cycles in `length` samples, evenly between silence and the highest possible tone."""
    return numpy.arange(1, classes + 1) * (length // 2) // (classes + 1)


def _vectors(
    targets: numpy.ndarray, classes: int, size: int, noise: float, random: numpy.random.Generator
) -> numpy.ndarray:
    inputs = noise * random.standard_normal((len(targets), size))
    inputs[numpy.arange(len(targets)), targets] += 1
    return inputs.astype(numpy.float32)


def _images(
    targets: numpy.ndarray, classes: int, size: int, noise: float, random: numpy.random.Generator
) -> numpy.ndarray:
    return _bands(targets, classes, (3, size, size), noise, random)


def _sequences(
    targets: numpy.ndarray, classes: int, size: int, noise: float, random: numpy.random.Generator
) -> numpy.ndarray:
    return _bands(targets, classes, (1, size, 2 * size), noise, random)


def _bands(
    targets: numpy.ndarray, classes: int, shape: tuple[int, int, int], noise: float, random: numpy.random.Generator
) -> numpy.ndarray:
    rows = shape[1] // classes
    inputs = random.standard_normal((len(targets), *shape), dtype=numpy.float32) * (noise * SIGNAL_HEIGHT) + BACKGROUND
    for label in range(classes):
        chosen = numpy.flatnonzero(targets == label)
        inputs[chosen, :, label * rows : (label + 1) * rows] += SIGNAL_HEIGHT
    levels: numpy.ndarray = numpy.rint(inputs.clip(0, 1) * 255)
    return levels.astype(numpy.uint8)


def _waveforms(
    targets: numpy.ndarray, classes: int, size: int, noise: float, random: numpy.random.Generator
) -> numpy.ndarray:
    length = WAVE_SAMPLES * size
    if length // 2 <= classes:
        least_size = classes // (WAVE_SAMPLES // 2) + 1
        raise ConfigError(f"data.size: {size} has no room for {classes} tones; raise it to at least {least_size}")
    cycles = frequencies(classes, length)[targets][:, None]
    phase = random.random((len(targets), 1))
    waves = SIGNAL_HEIGHT * numpy.sin(2 * numpy.pi * (cycles * numpy.arange(length) / length + phase))
    waves += noise * SIGNAL_HEIGHT * random.standard_normal(waves.shape)
    clipped: numpy.ndarray = waves.clip(-1, 1)
    return clipped.astype(numpy.float32)[:, None]
