"""Augmentations of sound: waveforms (N, 1, T) and spectrograms (N, 1, M, frames)."""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torch.nn import functional

from dltips.catalog.cards import card
from dltips.catalog.registry import Count, Fraction, NonNegative
from dltips.errors import ConfigError
from dltips.tips.augmentation.base import Batch, augmentation


@augmentation
@card(
    when="voice data, where the word need not begin at a certain moment; waveforms, and spectrograms along their time",
    formula="x[..., t - d], d uniform over the whole numbers within shift * T; what is moved in is 0, or the other end",
    source="tip B, augmentation of voice data: shift it",
    costs="two copies of the batch",
    try_with=("data=synthetic", "data.kind=waveform", "model=audio_cnn"),
)
def time_shift(inputs: Tensor, targets: Tensor, generator: Generator, *, shift: Fraction, circular: bool) -> Batch:
    """Move sound in time, along the last axis, by up to a share `shift` of its length, either way."""
    if inputs.dim() < 3 or inputs.shape[1] != 1:
        raise ConfigError(
            f"augmentation: time_shift takes sound, but a sample's shape is {tuple(inputs.shape[1:])}; write"
            " augmentation=none"
        )
    count, length = len(inputs), inputs.shape[-1]
    most = round(shift * length)
    starts = torch.randint(0, 2 * most + 1, (count,), generator=generator, device=inputs.device)
    if circular:
        most = min(most, length)
        padded = torch.cat([inputs[..., length - most :], inputs, inputs[..., :most]], -1)
    else:
        padded = functional.pad(inputs, (most, most))
    # a view of all possible shifts; indexing it copies the chosen ones, each line as a block
    windows = padded.unfold(-1, length, 1).movedim(-2, 1)  # (N, 2 most + 1, ..., T)
    return windows[torch.arange(count, device=inputs.device), starts], targets


@augmentation
@card(
    when="voice data from other rooms, microphones and speakers than those of the training split; waveforms only",
    formula="speed: x(c + s (t - c)), s in 1 +- speed, c the middle, between samples linear; times 10^(g / 20), g in +-"
    " gain; cut at a share in 1 - clip .. 1 of its peak; plus n * RMS(x) * N(0, 1), n in 0 .. noise; cut at +-1",
    source="tip B, augmentation of voice data: distort it; speed: Ko et al. 2015, Audio augmentation for speech"
    " recognition",
    recommends="speed 0.1, in the paper: copies at 0.9, 1 and 1.1 of it",
    costs="about eight copies of the batch",
    avoid={
        "data.features=log_mel": "a spectrogram has no waveform to distort; write data.features=waveform",
    },
    try_with=("data=synthetic", "data.kind=waveform", "model=audio_cnn"),
)
def distort(
    inputs: Tensor,
    targets: Tensor,
    generator: Generator,
    *,
    gain: NonNegative,
    noise: NonNegative,
    clip: Fraction,
    speed: Fraction,
) -> Batch:
    """Change speed and level of waveforms, cut peaks, add noise: each clip by amounts of its own.

    Amounts are uniform up to their knobs: gain in dB, noise as a share of the clip's RMS, clip as a share of its peak,
    speed as a share of the original one; pitch and length go with the speed, silence fills the ends. A level alone
    means nothing to a net that makes a log-mel spectrogram, but what exceeds 1 is cut.
    """
    if inputs.dim() != 3:
        raise ConfigError(
            f"augmentation: distort takes waveforms, but a sample's shape is {tuple(inputs.shape[1:])}; write"
            " data.features=waveform"
        )
    draws = torch.rand(4, len(inputs), 1, 1, generator=generator, device=inputs.device)
    outputs = _at_speed(inputs, 1 + speed * (2 * draws[0] - 1)) if speed else inputs
    outputs = outputs * 10 ** (gain * (2 * draws[1] - 1) / 20)
    peaks = outputs.abs().amax(-1, keepdim=True) * (1 - clip * draws[2])
    outputs = outputs.clamp(-peaks, peaks)
    if noise:
        hiss = torch.randn(outputs.shape, generator=generator, device=inputs.device)
        level = outputs.square().mean(-1, keepdim=True).sqrt() * (noise * draws[3])
        outputs = torch.addcmul(outputs, hiss, level)
    return outputs.clamp(-1, 1), targets


def _at_speed(inputs: Tensor, speeds: Tensor) -> Tensor:
    """Returns (N, 1, T) resampled about its middle, at speeds (N, 1, 1); 0 beyond the ends."""
    length = inputs.shape[-1]
    middle = (length - 1) / 2
    places = (torch.arange(length, device=inputs.device) - middle) * speeds + middle  # (N, 1, T)
    # a zero on either side, which any position outside reads
    padded = functional.pad(inputs, (2, 2))
    places = (places + 2).clamp(0, length + 2)
    before = places.long()
    left, right = padded.gather(-1, before), padded.gather(-1, before + 1)
    return torch.lerp(left, right, places - before)


@augmentation
@card(
    when="spectrograms of speech, the more so the smaller the data set; data.features=log_mel makes them",
    formula="bands f0 .. f0 + f and frames t0 .. t0 + t become the clip's mean; f uniform over 0 .. frequency * M, t"
    " over 0 .. time * frames, f0 and t0 over all places; no time warp",
    source="Park et al. 2019, arXiv 1904.08779; its time warp, which helped least there, is left out",
    recommends="policy LibriSpeech double: 2 masks each; of 80 bands up to 27, of the frames up to 100",
    costs="one copy of the batch",
    avoid={
        "data.features=waveform": "a waveform has no bands to mask; write data.features=log_mel",
    },
    try_with=("data=synthetic", "data.kind=sequence", "model=gru"),
)
def spec_augment(
    inputs: Tensor,
    targets: Tensor,
    generator: Generator,
    *,
    frequency: Fraction,
    frequency_masks: Count,
    time: Fraction,
    time_masks: Count,
) -> Batch:
    """SpecAugment: mask frequency bands and stretches of time of spectrograms by their mean (Park et al. 2019)."""
    if inputs.dim() != 4:
        raise ConfigError(
            f"augmentation: spec_augment takes spectrograms, but a sample's shape is {tuple(inputs.shape[1:])}; write"
            " data.features=log_mel"
        )
    count, _, bands, frames = inputs.shape
    masked = _stretches(count, bands, frequency, frequency_masks, inputs.device, generator)[:, None, :, None]
    masked = masked | _stretches(count, frames, time, time_masks, inputs.device, generator)[:, None, None, :]
    return torch.where(masked, inputs.mean((1, 2, 3), keepdim=True), inputs), targets


def _stretches(count: int, length: int, share: float, masks: int, device: torch.device, generator: Generator) -> Tensor:
    """Returns (N, length) bool: the union of `masks` intervals, each of 0 to share * length positions."""
    draws = torch.rand(2, count, masks, 1, generator=generator, device=device)
    widths = (draws[0] * (round(share * length) + 1)).floor()
    starts = (draws[1] * (length - widths + 1)).floor()
    places = torch.arange(length, device=device)
    return ((places >= starts) & (places < starts + widths)).any(1)
