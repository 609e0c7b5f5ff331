"""Nets for sound."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn

from dltips.catalog.cards import card
from dltips.catalog.registry import Size
from dltips.errors import ConfigError
from dltips.nets.blocks import Activation, classifier, model, stage
from dltips.nets.spectrogram import LogMel

MELS, SAMPLE_RATE = 40, 8000  # of a waveform, by default


@model
@card(
    when="sound whose class does not hang on when it is heard: words, noises, instruments",
    formula="log-mel; per stage depth x (conv 3x3, norm, activation) and a 2x2 pool; the mean over all places; linear",
    source="convolutions on log-mel spectrograms: Piczak 2015, Environmental sound classification with convolutional"
    " neural networks; Hershey et al. 2017, arXiv 1609.09430",
    costs="of waveforms the spectrogram is made anew at every step: 9 of 45 ms for 64 clips of a second, one core",
    try_with=("data=synthetic", "data.kind=waveform"),
)
def audio_cnn(
    input_shape: tuple[int, ...],
    num_classes: int,
    activation: Activation,
    *,
    widths: tuple[Size, ...],
    depth: Size,
    norm: Literal["none", "batch", "layer", "group"],
    pool: Literal["max2", "average2"],
    mels: Size | None,
    sample_rate: Size | None,
) -> nn.Module:
    """A VGG-style net on log-mel spectrograms, which it makes itself of waveforms; global pooling, a linear head.

    Input: spectrograms (1, M, frames), or waveforms (1, T), for which mels and sample_rate are. Raises ConfigError.
    """
    stages, (channels, *sides) = listening("audio_cnn", input_shape, mels, sample_rate)
    if min(sides) < 2 ** len(widths):
        raise ConfigError(
            f"model.widths: {len(widths)} stages halve {min(sides)} bands or frames to nothing; take fewer stages"
        )
    pooling = nn.MaxPool2d if pool == "max2" else nn.AvgPool2d
    for number, width in enumerate(widths, 1):
        parts = stage(channels, width, depth, 3, activation, norm=norm, groups=None, pool=pooling(2))
        stages[f"stage{number}"] = parts
        channels = width
    stages.update(classifier(channels, sides, num_classes, activation, "global", ()))
    net = nn.Sequential(stages)
    # the loop does this for images, not for waveforms: 45 ms a step of 64 clips instead of 72
    return net.to(memory_format=torch.channels_last) if len(input_shape) == 2 else net


def listening(
    name: str, input_shape: Sequence[int], mels: int | None, sample_rate: int | None
) -> tuple[OrderedDict[str, nn.Module], tuple[int, int, int]]:
    """Returns the first stage of a net for sound, a LogMel for waveforms, and the shape that follows.

    Raises ConfigError for vectors, and for knobs of the LogMel without one.
    """
    shape = tuple(input_shape)
    if len(shape) == 3:
        for knob, value in (("mels", mels), ("sample_rate", sample_rate)):
            if value is not None:
                raise ConfigError(
                    f"model.{knob}: {value} is for waveforms, but a sample's shape is {shape}; leave it out, or write"
                    " data.features=waveform"
                )
        return OrderedDict(), (shape[0], shape[1], shape[2])
    if len(shape) != 2 or shape[0] != 1:
        raise ConfigError(
            f"model: {name} takes waveforms and spectrograms, but a sample's shape is {shape}; write model=mlp"
        )
    log_mel = LogMel(sample_rate or SAMPLE_RATE, mels or MELS, "model")
    return OrderedDict(log_mel=log_mel), (1, mels or MELS, log_mel.frames(shape[1]))
