"""The mean over places, whichever axis holds the channels."""

import functools
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from dltips.catalog import source_reader
from dltips.catalog.registry import Tip
from dltips.config.composition import compose
from dltips.config.validation import validate
from dltips.nets import stages

# model=... with what else is to be tried of it -> a sample's shape; those that are not named take (3, 32, 32)
SHAPES = {
    "mlp": (1, 8, 8),
    "svm": (1, 8, 8),
    "lstm": (1, 8, 8),
    "gru": (1, 2000),
    "audio_cnn": (1, 8000),
    "mlp model.norm=batch": (20,),
    "mlp model.widths=[]": (20,),
    "gru model.output=mean model.bidirectional=true model.layers=2": (3, 8, 8),
    "cnn model.head=dense model.head_widths=[16,8]": (3, 16, 16),
    "cnn activation=prelu model.norm=group": (3, 16, 16),
    "airbench activation=prelu": (3, 32, 32),
    "resnet model.depth=18 model.stem=imagenet": (3, 64, 64),
    "squeezenet model.stem=imagenet": (3, 64, 64),
    "mobilenet_v2 model.stem=imagenet": (3, 64, 64),
}


OURS = [*(name for name in source_reader.options("model") if name != "timm"), *(name for name in SHAPES if " " in name)]


# architecture -> pixels a side
TIMM = {
    "resnet18": 64,
    "mobilenetv2_100": 64,
    "mobilenetv3_small_050": 64,
    "test_efficientnet": 64,
    "convnext_atto": 64,
    "test_vit": 160,
    "vit_tiny_patch16_224": 64,
    "deit_tiny_distilled_patch16_224": 64,
    "swin_tiny_patch4_window7_224": 64,
    "regnety_002": 64,
    "densenet121": 64,
    "mixer_s32_224": 64,
    "maxvit_rmlp_pico_rw_256": 64,
    "ghostnet_050": 64,
    "resnetv2_18": 64,  # its classifier is a convolution
    "pvt_v2_b0": 64,  # its patch embedding is (N, H, W, C), its stages (N, C, H, W)
}


TORCHVISION = ("resnet18", "mobilenet_v2", "shufflenet_v2_x0_5")


NETS = [*OURS, *(f"timm:{name}" for name in TIMM), *(f"torchvision:{name}" for name in TORCHVISION)]


@functools.cache
def tips(name: str) -> tuple[Tip, Tip]:
    entry = source_reader.entry("model", name.split()[0])
    typed = [*(override for override in entry.at_home if override.startswith("model.")), *name.split()[1:]]
    config = validate(compose([f"model={name.split()[0]}", *dict.fromkeys(typed)])[0])
    return config.tip("model"), config.tip("activation")


def shape_of(name: str) -> tuple[int, ...]:
    if name.startswith("timm:"):
        side = TIMM[name.removeprefix("timm:")]
        return (3, side, side)
    return (3, 64, 64) if name.startswith("torchvision:") else SHAPES.get(name, (3, 32, 32))


def build(name: str) -> nn.Module:
    """In eval mode, its batch norms with statistics of their own."""
    library, _, architecture = name.rpartition(":")
    if library == "timm":
        record = timm.get_pretrained_cfg(architecture)
        fixed = record is not None and record.fixed_input_size
        size: dict[str, Any] = {"img_size": shape_of(name)[1:]} if fixed else {}
        net: nn.Module = timm.create_model(architecture, num_classes=7, **size)
    elif library == "torchvision":
        net = torchvision.models.get_model(architecture, num_classes=7)
    else:
        model, activation = tips(name)
        net = model(shape_of(name), 7, activation)
    for layer in net.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            assert layer.running_mean is not None and layer.running_var is not None
            layer.running_mean.normal_(std=0.1)
            layer.running_var.uniform_(0.5, 1.5)
    if callable(look := getattr(net, "look", None)):
        look(torch.randn(32, *shape_of(name)))
    if callable(fit := getattr(net, "fit", None)):
        fit(torch.randn(32, *shape_of(name)), torch.arange(32) % 7)
    return net.eval()


def samples(name: str) -> Tensor:
    return torch.randn(2, *shape_of(name), generator=torch.Generator().manual_seed(1))


def names_of(net: nn.Module) -> list[str]:
    return [stage.name for stage in stages.stages_of(net)]


@pytest.fixture(params=NETS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("timm:resnet18", [64, 64, 128, 256, 512, 7]),
        ("timm:swin_tiny_patch4_window7_224", [96, 96, 192, 384, 768, 7]),
        ("timm:maxvit_rmlp_pico_rw_256", [32, 32, 64, 128, 256, 7]),
        ("timm:pvt_v2_b0", [32, 32, 64, 160, 256, 7]),
        ("timm:vit_tiny_patch16_224", [192] * 13 + [7]),
        ("timm:mixer_s32_224", [512] * 9 + [7]),
        ("timm:densenet121", [64, 256, 128, 512, 256, 1024, 512, 1024, 7]),
        ("resnet", [16, 16, 32, 64, 7]),
        ("lstm", [128, 7]),
    ],
)
def test_pooled_features_are_the_channels(name: str, channels: list[int]) -> None:
    net = build(name)
    with torch.no_grad():
        found = stages.outputs(net, samples(name), names_of(net))
    assert [value.shape[1] for value in found.values()] == channels


@pytest.mark.parametrize(
    ("layer", "shape", "axes"),
    [
        (lambda: nn.Conv2d(3, 6, 1), (2, 6, 4, 5), (2, 3)),
        (lambda: nn.Conv2d(3, 6, 1), (2, 6, 6, 6), (2, 3)),
        (lambda: nn.LayerNorm(6), (2, 4, 5, 6), (1, 2)),
        (lambda: nn.LayerNorm(6), (2, 5, 6), (1,)),
        (lambda: nn.Conv1d(3, 6, 1), (2, 6, 5), (2,)),
        (lambda: nn.Conv1d(3, 6, 1), (2, 9, 5), (2,)),  # two branches side by side, or so
        (lambda: nn.LSTM(3, 6, batch_first=True), (2, 9, 6), (1,)),
        (lambda: nn.Conv2d(3, 6, 1), (2, 9, 4, 4), (2, 3)),
        (lambda: nn.Conv3d(3, 6, 1), (2, 6, 3, 4, 5), (2, 3, 4)),
        (lambda: nn.Linear(3, 6), (2, 6), ()),
    ],
)
def test_pooled_is_the_mean_over_all_but_the_channels(
    layer: Callable[[], nn.Module], shape: tuple[int, ...], axes: tuple[int, ...]
) -> None:
    net = nn.Sequential(OrderedDict(stem=layer(), head=nn.Linear(6, 5)))
    values = torch.randn(shape)
    torch.testing.assert_close(stages.pool_of(net)(values), values.mean(axes) if axes else values)
    assert torch.equal(stages.pool_of(net)((values, None)), stages.pool_of(net)(values))
