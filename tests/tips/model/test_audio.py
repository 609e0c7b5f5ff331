from typing import Any

import pytest
import torch
from torch import nn

from dltips.errors import ConfigError
from dltips.nets.spectrogram import LogMel
from dltips.tips.model import audio_cnn


def net(shape: tuple[int, ...] = (1, 8000), **knobs: Any) -> nn.Sequential:
    usual = {"widths": (4, 6), "depth": 1, "norm": "batch", "pool": "max2", "mels": None, "sample_rate": None}
    model = audio_cnn(shape, 5, nn.ReLU, **{**usual, **knobs})
    assert isinstance(model, nn.Sequential)
    return model


def test_it_makes_the_spectrogram_of_a_waveform_itself() -> None:
    torch.manual_seed(1)
    listening = net().eval()
    torch.manual_seed(1)
    looking = net((1, 40, 63)).eval()
    assert list(dict(listening.named_children())) == ["log_mel", "stage1", "stage2", "pool", "flatten", "head"]
    assert list(dict(looking.named_children())) == ["stage1", "stage2", "pool", "flatten", "head"]
    assert dict(listening.state_dict()).keys() == dict(looking.state_dict()).keys()
    waveforms = torch.randn(3, 1, 8000)
    outputs = looking(LogMel(8000, 40, "model")(waveforms))
    assert outputs.shape == (3, 5) and torch.allclose(listening(waveforms), outputs, atol=1e-5)


def test_of_waveforms_the_filters_lie_channels_last_and_images_leave_that_to_the_loop() -> None:
    last, first = (
        net(shape).get_parameter("stage2.conv1.layer.weight").is_contiguous(memory_format=torch.channels_last)
        for shape in ((1, 8000), (1, 40, 63))
    )
    assert last and not first


@pytest.mark.parametrize("pool", ["max2", "average2"])
@pytest.mark.parametrize("norm", ["none", "batch", "layer", "group"])
def test_parameters_and_the_stages_that_halve_bands_and_frames(norm: str, pool: str) -> None:
    model = net((1, 40, 63), depth=2, norm=norm, pool=pool)
    extra = 1 if norm == "none" else 2  # a bias, or a norm's scale and shift in its place
    convolutions = [(1, 4), (4, 4), (4, 6), (6, 6)]
    expected = sum(9 * a * b + extra * b for a, b in convolutions) + 6 * 5 + 5
    assert sum(parameter.numel() for parameter in model.parameters()) == expected
    assert model[:2](torch.randn(2, 1, 40, 63)).shape == (2, 6, 10, 15)


def test_mels_and_sample_rate_are_the_spectrogram_s() -> None:
    log_mel = net((1, 16000), mels=30, sample_rate=16000)[0]
    assert isinstance(log_mel, LogMel)
    assert log_mel.sample_rate == 16000 and log_mel(torch.randn(1, 1, 16000)).shape == (1, 1, 30, 63)


@pytest.mark.parametrize(
    ("shape", "knobs", "message"),
    [
        (
            (7,),
            {},
            "model: audio_cnn takes waveforms and spectrograms, but a sample's shape is (7,); write model=mlp",
        ),
        (
            (1, 40, 63),
            {"mels": 30},
            "model.mels: 30 is for waveforms, but a sample's shape is (1, 40, 63); leave it out, or write"
            " data.features=waveform",
        ),
        (
            (1, 40, 63),
            {"sample_rate": 8000},
            "model.sample_rate: 8000 is for waveforms, but a sample's shape is (1, 40, 63); leave it out, or write"
            " data.features=waveform",
        ),
        (
            (1, 500),
            {"widths": (4, 4, 4)},
            "model.widths: 3 stages halve 4 bands or frames to nothing; take fewer stages",
        ),
    ],
)
def test_what_it_cannot_take_is_refused(shape: tuple[int, ...], knobs: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        net(shape, **knobs)
    assert str(caught.value) == message
