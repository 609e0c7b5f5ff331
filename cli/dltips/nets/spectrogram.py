"""Computes log-mel spectrograms in plain torch: of a data source's recordings, or as the first stage of a net."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dltips.errors import ConfigError

WINDOW = 0.032  # seconds, to the nearest power of two in samples: 256 at 8 kHz, 512 at 16 kHz
TOP_DB = 80.0  # below the clip's maximum; anything quieter is silence


class LogMel(nn.Module):
    """Turns waveforms (N, 1, T) into log-mel spectrograms (N, 1, M, frames), the maximum at 1, 80 dB below at 0.

    Power of the Fourier transform under a periodic Hann window that moves by half its length, the clip padded with
    zeros so that the first window is centred on the first sample; M triangular filters of height 1, evenly spaced on
    the HTK mel scale from 0 to half the sample rate; decibels relative to the clip's maximum. A silent clip is all 0.
    Computed in float32 whatever autocast says. Raises ConfigError naming FAMILY.mels.
    """

    window: Tensor
    filters: Tensor

    def __init__(self, sample_rate: int, mels: int, family: str) -> None:
        super().__init__()
        self.sample_rate = sample_rate
        self.length = window_length(sample_rate)
        filters = mel_filters(sample_rate, self.length, mels)
        if not bool((filters > 0).any(1).all()):
            most = next(
                n for n in range(mels - 1, 0, -1) if (mel_filters(sample_rate, self.length, n) > 0).any(1).all()
            )
            raise ConfigError(
                f"{family}.mels: {mels} bands are more than a window of {self.length} samples can tell apart at"
                f" {sample_rate} Hz; take at most {most}"
            )
        # computed from the knobs: checkpoints need not hold them
        self.register_buffer("window", torch.hann_window(self.length), persistent=False)
        self.register_buffer("filters", filters, persistent=False)

    def forward(self, waveforms: Tensor) -> Tensor:
        with torch.autocast(waveforms.device.type, enabled=False):
            spectrum = torch.stft(
                waveforms.float().squeeze(1),
                self.length,
                hop_length=self.length // 2,
                window=self.window,
                pad_mode="constant",
                return_complex=True,
            )
            power = self.filters @ torch.view_as_real(spectrum).square().sum(-1)  # (N, M, frames)
            # for a silent clip, a divisor that no sound has
            relative = power / power.amax((1, 2), keepdim=True).clamp(min=1e-20)
            decibels = 10 * relative.clamp(min=10 ** (-TOP_DB / 10)).log10()
            return (1 + decibels / TOP_DB).clamp(0, 1).unsqueeze(1)

    def frames(self, samples: int) -> int:
        """Returns the number of frames of so many samples."""
        return 1 + samples // (self.length // 2)

    def extra_repr(self) -> str:
        return f"{self.filters.shape[0]} mels, {self.sample_rate} Hz, window={self.length}, hop={self.length // 2}"


def window_length(sample_rate: int) -> int:
    """Returns the samples of a window."""
    return int(2 ** max(2, round(math.log2(WINDOW * sample_rate))))


def mel_filters(sample_rate: int, length: int, mels: int) -> Tensor:
    """Returns (M, length / 2 + 1) triangles of height 1, their corners evenly spaced at 2595 log10(1 + f / 700)."""
    top = 2595 * math.log10(1 + sample_rate / 2 / 700)
    corners = 700 * (10 ** (torch.linspace(0, top, mels + 2, dtype=torch.float64) / 2595) - 1)
    frequencies = torch.arange(length // 2 + 1, dtype=torch.float64) * sample_rate / length
    distances = frequencies - corners[:, None]  # (M + 2, bins)
    widths = corners.diff()[:, None]
    rising, falling = distances[:-2] / widths[:-1], -distances[2:] / widths[1:]
    return torch.minimum(rising, falling).clamp(min=0).float()


def check_sample_rate(model: nn.Module, sample_rate: int | None) -> None:
    """Raises ConfigError if the net's filters are for another sample rate; None if that is unknown."""
    for module in model.modules():
        if isinstance(module, LogMel) and sample_rate not in (None, module.sample_rate):
            raise ConfigError(
                f"model.sample_rate: {module.sample_rate}, but the recordings have {sample_rate} samples per second;"
                f" write model.sample_rate={sample_rate}"
            )
