"""Augmentations of sound: what each does to one clip is computed a second time, slowly."""

from collections.abc import Callable
from typing import Any

import numpy
import pytest
import torch
from torch import Generator, Tensor

from dltips.errors import ConfigError
from dltips.tips.augmentation import Batch, distort, spec_augment, time_shift

Augment = Callable[[Tensor, Tensor, Generator], Batch]
KNOBS = ("gain", "noise", "clip", "speed")
LABELS = torch.zeros(64, dtype=torch.int64)


def seeded(seed: int = 0) -> Generator:
    return torch.Generator().manual_seed(seed)


def shifted(inputs: Tensor, generator: Generator, **knobs: Any) -> Tensor:
    return time_shift(inputs, LABELS[: len(inputs)], generator, **{"shift": 0.25, "circular": False, **knobs})[0]


def distorted(inputs: Tensor, generator: Generator, **knobs: Any) -> Tensor:
    return distort(inputs, LABELS[: len(inputs)], generator, **{**dict.fromkeys(KNOBS, 0.0), **knobs})[0]


def masked(inputs: Tensor, generator: Generator, **knobs: Any) -> Tensor:
    usual = {"frequency": 0.3, "frequency_masks": 2, "time": 0.2, "time_masks": 2}
    return spec_augment(inputs, LABELS[: len(inputs)], generator, **{**usual, **knobs})[0]


def waves(count: int = 64, samples: int = 200) -> Tensor:
    time = torch.arange(samples) / 10
    return (0.7 * torch.sin(time * torch.linspace(0.5, 2, count)[:, None]) + 0.01 * torch.randn(count, samples))[
        :, None
    ]


def spectrograms(count: int = 64) -> Tensor:
    return torch.rand(count, 1, 20, 30) * 0.9 + 0.1


CASES: dict[str, tuple[Callable[..., Tensor], Callable[[], Tensor], dict[str, Any]]] = {
    "time_shift, waveform": (shifted, waves, {}),
    "time_shift, spectrogram": (shifted, spectrograms, {"circular": True}),
    "distort": (distorted, waves, {"gain": 12.0, "noise": 0.5, "clip": 0.5, "speed": 0.3}),
    "spec_augment": (masked, spectrograms, {}),
}


@pytest.mark.parametrize("case", CASES)
def test_shape_type_range_and_the_inputs_themselves_stay(case: str) -> None:
    augment, make, knobs = CASES[case]
    inputs = make()
    kept = inputs.clone()
    outputs = augment(inputs, seeded(), **knobs)
    assert outputs.shape == inputs.shape and outputs.dtype == inputs.dtype
    assert torch.equal(inputs, kept)
    assert not torch.equal(outputs, inputs)
    assert (-1 if inputs.dim() == 3 else 0) <= float(outputs.min()) <= float(outputs.max()) <= 1


def test_labels_are_handed_on() -> None:
    labels = torch.arange(8)
    assert time_shift(waves(8), labels, seeded(), shift=0.1, circular=False)[1] is labels
    assert distort(waves(8), labels, seeded(), gain=1.0, noise=0.1, clip=0.1, speed=0.1)[1] is labels
    assert spec_augment(
        spectrograms(8), labels, seeded(), frequency=0.1, frequency_masks=1, time=0.1, time_masks=1
    )[1] is labels  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_generator_alone_decides(case: str) -> None:
    augment, make, knobs = CASES[case]
    inputs = make()
    state = torch.get_rng_state()
    first, again, other = (augment(inputs, seeded(seed), **knobs) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("case", CASES)
def test_each_clip_draws_its_own(case: str) -> None:
    augment, make, knobs = CASES[case]
    inputs = make()[:1]
    outputs = augment(inputs.expand(64, *inputs.shape[1:]), seeded(), **knobs)
    # a shift by whole samples may be drawn twice: of 101 places 64 draws meet 48 on average, of 17 nearly all
    least = {"time_shift, waveform": 30, "time_shift, spectrogram": 12}.get(case, 64)
    assert len(torch.unique(outputs, dim=0)) >= least


@pytest.mark.parametrize("knob", KNOBS)
def test_each_distortion_alone_gives_every_clip_its_own(knob: str) -> None:
    outputs = distorted(waves(1).expand(64, 1, 200), seeded(), **{knob: 0.3})
    assert len(torch.unique(outputs, dim=0)) == 64


@pytest.mark.parametrize("circular", [False, True])
@pytest.mark.parametrize("make", [waves, spectrograms])
def test_time_shift_is_the_slow_shift_of_each_clip(make: Callable[[], Tensor], circular: bool) -> None:
    inputs = make()[:24, ..., :30]
    length = inputs.shape[-1]
    most = round(0.25 * length)
    met = set()
    for clip, output in zip(inputs, shifted(inputs, seeded(), circular=circular), strict=True):
        found = [d for d in range(-most, most + 1) if torch.equal(moved(clip, d, circular), output)]
        assert len(found) == 1
        met.update(found)
    assert min(met) < -0.6 * most and max(met) > 0.6 * most


def moved(clip: Tensor, by: int, circular: bool) -> Tensor:
    """The clip `by` places later, one column after the other."""
    length = clip.shape[-1]
    result = torch.zeros_like(clip)
    for place in range(length):
        if circular or 0 <= place - by < length:
            result[..., place] = clip[..., (place - by) % length]
    return result


def test_a_shift_by_all_of_it_is_a_shift() -> None:
    inputs = waves(64, 6)
    circular = shifted(inputs, seeded(), shift=1.0, circular=True)
    assert torch.equal(circular.sort(-1).values, inputs.sort(-1).values)
    assert torch.equal(shifted(inputs, seeded(), shift=0.0), inputs)


def test_nothing_distorted_is_nothing_changed() -> None:
    inputs = waves()
    assert torch.equal(distorted(inputs, seeded()), inputs)


def test_gain_is_uniform_in_decibels() -> None:
    knobs = {**dict.fromkeys(KNOBS, 0.0), "gain": 6.0}
    outputs, _ = distort(torch.full((4000, 1, 3), 0.1), torch.zeros(4000), seeded(), **knobs)
    decibels = 20 * (outputs[:, 0, 0] / 0.1).log10()
    assert float(decibels.abs().max()) <= 6.001
    # the uniform distribution on [-6, 6]: mean 0, standard deviation 12 / sqrt(12)
    assert float(decibels.mean()) == pytest.approx(0, abs=0.2)
    assert float(decibels.std()) == pytest.approx(12 / 12**0.5, rel=0.03)


def test_the_amounts_of_one_clip_are_drawn_apart() -> None:
    inputs = torch.full((4000, 1, 2), 0.1)
    amounts = [
        distort(inputs, torch.zeros(4000), seeded(), **{**dict.fromkeys(KNOBS, 0.0), knob: 0.5})[0][:, 0, 0]
        for knob in ("gain", "clip")
    ]
    assert abs(float(torch.corrcoef(torch.stack(amounts))[0, 1])) < 0.05


def test_how_much_noise_a_clip_gets_hangs_on_none_of_its_other_amounts() -> None:
    clips = 0.1 * waves(2000, 64)
    off = dict.fromkeys(KNOBS, 0.0)
    targets = torch.zeros(2000)
    noisy = distort(clips, targets, seeded(), **{**off, "noise": 0.5})[0]
    level = (noisy - clips).square().mean((1, 2)).sqrt()
    for knob in ("gain", "clip", "speed"):
        other = distort(clips, targets, seeded(), **{**off, knob: 0.5})[0]
        changed = (other - clips).square().mean((1, 2)).sqrt()
        assert abs(float(torch.corrcoef(torch.stack([level, changed]))[0, 1])) < 0.1, knob


def test_noise_is_white_and_its_level_is_relative_to_the_clip_s() -> None:
    loud, quiet = waves(64, 4000), 0.1 * waves(64, 4000)
    for inputs in (0.1 * loud, quiet):  # far from 1, where all is cut
        rms = inputs.square().mean(-1).sqrt()
        ratio = (distorted(inputs, seeded(), noise=0.2) - inputs).square().mean(-1).sqrt() / rms
        assert float(ratio.max()) <= 0.21 and float(ratio.mean()) == pytest.approx(0.1, rel=0.2)
    hiss = (distorted(quiet, seeded(), noise=0.2) - quiet)[:, 0]
    assert float((hiss[:, 1:] * hiss[:, :-1]).mean() / hiss.square().mean()) == pytest.approx(0, abs=0.02)


def test_clipping_cuts_at_a_share_of_the_peak() -> None:
    inputs = waves()
    outputs = distorted(inputs, seeded(), clip=0.5)
    limits = outputs.abs().amax(-1, keepdim=True)
    shares = limits / inputs.abs().amax(-1, keepdim=True)
    assert float(shares.min()) >= 0.5 and float(shares.min()) < 0.55 and float(shares.max()) > 0.95
    assert torch.equal(outputs, torch.minimum(torch.maximum(inputs, -limits), limits))


def test_speed_resamples_about_the_middle_by_linear_interpolation() -> None:
    inputs = waves(4, 101)
    outputs = distorted(inputs, seeded(3), speed=0.5)
    places = numpy.arange(101)
    for clip, output in zip(inputs[:, 0].double().numpy(), outputs[:, 0].double().numpy(), strict=True):

        def at(speed: float, clip: numpy.ndarray = clip) -> numpy.ndarray:
            wanted = 50 + (places - 50) * speed
            # a sample beyond either end is silence, and so is everything further out
            return numpy.interp(wanted, numpy.arange(-1, 102), numpy.pad(clip, 1), left=0, right=0)

        errors = [numpy.abs(at(speed) - output).max() for speed in numpy.linspace(0.5, 1.5, 2001)]
        assert min(errors) < 2e-2  # the grid of speeds is 0.0005 wide, which moves an end by 0.025 samples
        assert abs(output[50] - clip[50]) < 1e-6


def test_a_clip_stays_within_its_range_however_loud() -> None:
    inputs = torch.ones(64, 1, 50)
    outputs = distorted(inputs, seeded(), gain=20.0, noise=1.0)
    assert float(outputs.max()) == 1 and float(outputs.min()) >= -1


@pytest.mark.parametrize("off", ["frequency_masks", "time_masks"])
def test_spec_augment_masks_bands_or_stretches_of_time_by_the_mean(off: str) -> None:
    inputs = spectrograms()
    outputs = masked(inputs, seeded(), **{"frequency_masks": 1, "time_masks": 1, off: 0})
    changed = (outputs != inputs)[:, 0]
    across = 1 if off == "frequency_masks" else 2
    lines = changed.any(across)  # (N, bands) or (N, frames)
    assert torch.equal(lines, changed.all(across))  # all of a line or nothing
    widths = lines.sum(1)
    assert set(widths.tolist()) == set(range(7))  # 0.3 of 20 bands, 0.2 of 30 frames
    # one stretch: no second beginning
    assert torch.equal(lines[:, 0] + (lines[:, 1:] & ~lines[:, :-1]).sum(1), (widths > 0).long())
    assert lines[:, 0].any() and lines[:, -1].any()
    means = inputs.mean((1, 2, 3), keepdim=True).expand_as(outputs)
    assert torch.equal(outputs[outputs != inputs], means[outputs != inputs])


def test_masks_add_up_and_none_is_none() -> None:
    inputs = spectrograms()
    assert torch.equal(masked(inputs, seeded(), frequency_masks=0, time_masks=0), inputs)
    share = [
        float((masked(inputs, seeded(), frequency_masks=n, time_masks=0) != inputs).float().mean()) for n in (1, 3)
    ]
    assert share[1] > 2 * share[0]


@pytest.mark.parametrize(
    ("augment", "shape", "message"),
    [
        (shifted, (7,), "augmentation: time_shift takes sound, but a sample's shape is (7,); write augmentation=none"),
        (
            distorted,
            (1, 8, 8),
            "augmentation: distort takes waveforms, but a sample's shape is (1, 8, 8); write data.features=waveform",
        ),
        (
            distorted,
            (7,),
            "augmentation: distort takes waveforms, but a sample's shape is (7,); write data.features=waveform",
        ),
        (
            masked,
            (1, 100),
            "augmentation: spec_augment takes spectrograms, but a sample's shape is (1, 100); write"
            " data.features=log_mel",
        ),
    ],
)
def test_what_is_no_sound_is_refused(augment: Callable[..., Tensor], shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        augment(torch.zeros(4, *shape), seeded())
    assert str(caught.value) == message
