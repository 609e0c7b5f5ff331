"""The spectrogram is that of its definition, computed a second time by numpy and scipy."""

import re

import numpy
import pytest
import torch
from scipy.signal import get_window, stft
from torch import Tensor, nn

from dltips.errors import ConfigError
from dltips.nets.spectrogram import LogMel, check_sample_rate, mel_filters, window_length


def waves(count: int = 3, samples: int = 2000) -> Tensor:
    """Tones that rise and fade, in some noise."""
    time = torch.arange(samples) / 8000
    tones = torch.sin(2 * torch.pi * (300.0 * torch.arange(1, count + 1)[:, None] * (1 + time) * time))
    return ((tones * time.flip(0) * 2 + 0.01 * torch.randn(count, samples)) / 2)[:, None]


def triangles(sample_rate: int, length: int, mels: int) -> numpy.ndarray:
    """(M, bins): each filter by linear interpolation between its three corners."""

    def mel(frequency: float) -> float:
        return 2595 * numpy.log10(1 + frequency / 700)

    corners = 700 * (10 ** (numpy.linspace(mel(0), mel(sample_rate / 2), mels + 2) / 2595) - 1)
    bins = numpy.fft.rfftfreq(length, 1 / sample_rate)
    return numpy.stack([numpy.interp(bins, corners[m : m + 3], [0, 1, 0]) for m in range(mels)])


def reference(waveform: numpy.ndarray, sample_rate: int, mels: int) -> numpy.ndarray:
    """(M, frames) in [0, 1]."""
    length = 2 ** round(numpy.log2(0.032 * sample_rate))
    window = get_window("hann", length)
    _, _, spectrum = stft(waveform, window=window, nperseg=length, noverlap=length // 2, padded=False)
    power = triangles(sample_rate, length, mels) @ numpy.abs(spectrum * window.sum()) ** 2
    decibels = 10 * numpy.log10(power.clip(1e-30))
    return (decibels - decibels.max() + 80).clip(0) / 80


@pytest.mark.parametrize(("sample_rate", "mels", "length"), [(8000, 40, 256), (16000, 64, 512), (44100, 20, 1024)])
def test_it_is_the_definition_s(sample_rate: int, mels: int, length: int) -> None:
    assert window_length(sample_rate) == length
    inputs = waves(samples=length // 2 * 15)
    outputs = LogMel(sample_rate, mels, "model")(inputs)
    assert outputs.shape == (3, 1, mels, 16)
    for wave, output in zip(inputs, outputs, strict=True):
        expected = reference(wave[0].double().numpy(), sample_rate, mels)
        numpy.testing.assert_allclose(output[0].numpy(), expected, atol=1e-4)
        assert expected.min() < 0.3  # there is something to compare: not all is as loud


@pytest.mark.parametrize(("sample_rate", "mels"), [(8000, 40), (16000, 40), (22050, 80)])
def test_the_filters_are_triangles_on_the_mel_scale(sample_rate: int, mels: int) -> None:
    length = window_length(sample_rate)
    filters = mel_filters(sample_rate, length, mels).numpy()
    numpy.testing.assert_allclose(filters, triangles(sample_rate, length, mels), atol=1e-6)
    # every frequency between the first and the last centre is heard by two neighbours, with weights that add up to 1
    centres = filters.argmax(1)
    numpy.testing.assert_allclose(filters[:, centres[0] + 1 : centres[-1]].sum(0), 1, atol=1e-6)


@pytest.mark.parametrize("samples", [1, 127, 128, 129, 8000])
def test_so_many_frames(samples: int) -> None:
    log_mel = LogMel(8000, 40, "model")
    assert log_mel(torch.randn(2, 1, samples)).shape == (2, 1, 40, log_mel.frames(samples))


def test_a_level_changes_nothing_and_silence_is_zero() -> None:
    log_mel, inputs = LogMel(8000, 40, "model"), waves()
    assert torch.allclose(log_mel(inputs), log_mel(1e-6 * inputs), atol=1e-5)
    assert (log_mel(inputs).amax((1, 2, 3)) == 1).all()
    silent = log_mel(torch.cat([torch.zeros(1, 1, 2000), inputs]))
    assert not silent[0].any() and torch.equal(silent[1:], log_mel(inputs))


def test_autocast_leaves_it_in_float32() -> None:
    log_mel, inputs = LogMel(8000, 40, "model"), waves()
    with torch.autocast("cpu", torch.bfloat16):
        outputs = log_mel(inputs)
    assert outputs.dtype == torch.float32
    assert torch.equal(outputs, log_mel(inputs))
    assert torch.allclose(log_mel(inputs.bfloat16()), outputs, atol=0.2)


def test_gradients_reach_the_waveform() -> None:
    inputs = waves().requires_grad_()
    LogMel(8000, 40, "model")(inputs).sum().backward()
    assert inputs.grad is not None and inputs.grad.isfinite().all() and inputs.grad.any()


def test_checkpoints_hold_nothing_of_it() -> None:
    assert not LogMel(8000, 40, "model").state_dict()


def test_more_bands_than_the_window_tells_apart_are_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        LogMel(8000, 100, "data")
    message = str(caught.value)
    assert re.match(r"data\.mels: 100 .*256 samples .*8000 Hz; ", message)
    most = int(message.rpartition(" ")[2])
    assert mel_filters(8000, 256, most).any(1).all() and not mel_filters(8000, 256, most + 1).any(1).all()


def test_a_net_for_another_sample_rate_is_refused() -> None:
    net = nn.Sequential(LogMel(8000, 40, "model"))
    for rate in (None, 8000):
        check_sample_rate(net, rate)
    check_sample_rate(nn.Linear(2, 2), 16000)
    with pytest.raises(ConfigError, match=r"^model\.sample_rate: 8000, .*write model\.sample_rate=16000$"):
        check_sample_rate(net, 16000)
