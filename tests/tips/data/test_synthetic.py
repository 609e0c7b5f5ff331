"""The best classifier, which is known by construction, is as often right as the formula says."""

from typing import Any

import numpy
import pytest
import torch
from scipy import integrate, stats

from dltips.errors import ConfigError
from dltips.tips.data import Source
from dltips.tips.data.synthetic import class_sizes, frequencies, synthetic

KINDS = ("vector", "image", "waveform", "sequence")


def make(**knobs: Any) -> Source:
    usual = {"kind": "vector", "classes": 4, "samples": 256, "size": 16, "noise": 0.2, "imbalance": 1.0, "seed": 0}
    return synthetic(**{**usual, **knobs})


def known_answer(source: Source, kind: str, classes: int = 4) -> torch.Tensor:
    """(N,) what the docstring says is the best guess."""
    inputs = source.inputs.double()
    if kind == "vector":
        return inputs[:, :classes].argmax(1)
    if kind == "waveform":
        spectrum = torch.fft.rfft(inputs[:, 0]).abs()
        return spectrum[:, torch.from_numpy(frequencies(classes, inputs.shape[2]))].argmax(1)
    rows = inputs.shape[2] // classes
    bands = inputs.mean((1, 3))[:, : rows * classes].reshape(len(inputs), classes, rows)
    return bands.mean(2).argmax(1)


def accuracy(separation: float, classes: int) -> float:
    """E[Phi(z + separation)^(classes - 1)]"""
    return float(
        integrate.quad(lambda z: stats.norm.pdf(z) * stats.norm.cdf(z + separation) ** (classes - 1), -8, 8)[0]
    )


@pytest.mark.parametrize("kind", KINDS)
def test_the_known_answer_is_right(kind: str) -> None:
    source = make(kind=kind)
    assert float((known_answer(source, kind) == source.targets).float().mean()) >= 0.99
    assert torch.equal(known_answer(make(kind=kind, noise=0.0), kind), make(kind=kind, noise=0.0).targets)


@pytest.mark.parametrize(("noise", "classes"), [(0.5, 2), (1.0, 4), (2.0, 10)])
def test_it_is_right_as_often_as_the_formula_says(noise: float, classes: int) -> None:
    source = make(samples=20_000, noise=noise, classes=classes)
    expected = accuracy(1 / noise, classes)
    right = float((known_answer(source, "vector", classes) == source.targets).float().mean())
    assert right == pytest.approx(expected, abs=4 * (expected * (1 - expected) / 20_000) ** 0.5)


def test_a_band_of_n_pixels_is_told_as_the_formula_says() -> None:
    # 2 rows of 8 pixels in 3 channels; so much noise that some of it is clipped would be another formula
    source = make(kind="image", size=8, samples=4000, noise=0.3)
    inputs = source.inputs.double() / 255
    band = inputs[source.targets == 0][:, :, :2].mean((1, 2, 3))
    assert float(band.mean()) == pytest.approx(0.75, abs=0.01)
    assert float(band.std()) == pytest.approx(0.3 * 0.5 / 48**0.5, rel=0.1)


@pytest.mark.parametrize(
    ("kind", "shape", "dtype"),
    [
        ("vector", (16,), torch.float32),
        ("image", (3, 16, 16), torch.uint8),
        ("waveform", (1, 1024), torch.float32),
        ("sequence", (1, 16, 32), torch.uint8),
    ],
)
def test_shapes(kind: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    source = make(kind=kind, noise=3.0)
    assert tuple(source.inputs.shape) == (256, *shape)
    assert source.inputs.dtype == dtype and source.targets.dtype == torch.int64
    assert source.classes == ("0", "1", "2", "3")
    if kind == "waveform":
        assert float(source.inputs.abs().max()) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_decides_and_nothing_else(kind: str) -> None:
    first = make(kind=kind)
    torch.manual_seed(5)
    numpy.random.seed(5)
    again, other = make(kind=kind), make(kind=kind, seed=1)
    assert torch.equal(first.inputs, again.inputs) and first.hash == again.hash
    assert not torch.equal(first.inputs, other.inputs) and first.hash != other.hash


def test_a_flip_keeps_the_answer_of_images() -> None:
    source = make(kind="image")
    bands = source.inputs.flip(3).double().mean((1, 3)).reshape(256, 4, 4).mean(2)
    assert torch.equal(bands.argmax(1), known_answer(source, "image"))


@pytest.mark.parametrize(("samples", "classes", "imbalance"), [(256, 4, 1.0), (1000, 10, 50.0), (7, 3, 2.0)])
def test_class_sizes_fall_geometrically_and_add_up(samples: int, classes: int, imbalance: float) -> None:
    counts = class_sizes(samples, classes, imbalance)
    assert counts.sum() == samples
    exact = imbalance ** (-numpy.arange(classes) / (classes - 1))
    numpy.testing.assert_allclose(counts, exact / exact.sum() * samples, atol=1)
    assert exact[0] / exact[-1] == pytest.approx(imbalance)


def test_the_samples_have_these_sizes_in_mixed_order() -> None:
    source = make(samples=300, imbalance=9.0, classes=3)
    assert torch.bincount(source.targets).tolist() == class_sizes(300, 3, 9.0).tolist()
    assert source.targets[:20].unique().numel() > 1


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"classes": 1}, r"data\.classes: 1 .*at least 2"),
        ({"size": 3}, r"data\.size: 3 .*4 classes; .*at least 4"),
        ({"samples": 3}, r"data\.samples: 3 .*; raise it"),
        ({"imbalance": 1e6}, r"data\.samples: 256 .*; raise it"),
        (
            {"kind": "waveform", "size": 1, "classes": 40, "samples": 400},
            r"data\.size: 1 .*40 tones; .*at least 2",
        ),
    ],
)
def test_what_cannot_be_made_is_refused(knobs: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}$"):
        make(**knobs)


def test_waves_have_noise_of_a_normal_s_spread_and_shape() -> None:
    clean, noisy = (make(kind="waveform", noise=noise, samples=40).inputs.double() for noise in (0.0, 0.2))
    added = (noisy - clean)[noisy.abs() < 1].numpy() / (0.2 * 0.5)
    assert added.std() == pytest.approx(1, abs=0.03) and abs(added.mean()) < 0.02
    assert (abs(added) > 2).mean() == pytest.approx(2 * stats.norm.sf(2), abs=0.01)


def test_as_many_bytes_are_asked_for_as_the_samples_take_as_doubles(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[object, ...]] = []
    monkeypatch.setattr("dltips.free_memory.require_memory", lambda *arguments: asked.append(arguments))
    values = {kind: make(kind=kind).inputs.numel() for kind in KINDS}
    assert asked == [("data.samples", 8 * values[kind]) for kind in KINDS]
