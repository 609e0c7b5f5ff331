"""A file's tensors name their architecture, in the words that make dltips build it."""

from collections.abc import Mapping
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor

from dltips.config.composition import compose
from dltips.config.validation import validate
from dltips.train.build import build_model
from dltips.weights.identify_architecture import nearest


def typed(state: Mapping[str, Tensor]) -> str | None:
    near = nearest(state)
    return near.typed if near is not None else None


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("resnet34", "model=resnet model.depth=34 model.stem=imagenet"),
        ("resnet50", "model=resnet model.depth=50 model.stem=imagenet"),
        ("resnet152", "model=resnet model.depth=152 model.stem=imagenet"),
        ("vgg13_bn", "model=vgg model.depth=13 model.head=dense 'model.head_widths=[4096,4096]'"),
        ("vgg16", "model=vgg model.depth=16 model.norm=none model.head=dense 'model.head_widths=[4096,4096]'"),
        ("mobilenet_v2", "model=mobilenet_v2 model.stem=imagenet activation=relu6"),
        ("squeezenet1_0", "model=squeezenet model.norm=none model.version=1.0 model.stem=imagenet"),
        ("squeezenet1_1", "model=squeezenet model.norm=none model.stem=imagenet"),
        ("densenet121", "model=timm model.architecture=densenet121"),
    ],
)
def test_torchvisions_nets(name: str, answer: str) -> None:
    with torch.device("meta"):
        net = getattr(torchvision.models, name)(weights=None)
    assert typed(net.state_dict()) == answer


@pytest.mark.parametrize("name", ["convnext_tiny", "efficientnet_b0", "vit_tiny_patch16_224", "regnety_004"])
def test_timms_nets(name: str) -> None:
    net = timm.create_model(name, num_classes=7)
    assert typed(net.state_dict()) == f"model=timm model.architecture={name}"


@pytest.mark.parametrize(
    ("overrides", "shape"),
    [
        ("model=resnet model.depth=20 model.shortcut=pad", (3, 32, 32)),
        ("model=resnet model.depth=32 model.width=0.5", (1, 28, 28)),
        ("model=vgg model.depth=16 model.norm=none", (3, 32, 32)),
        ("model=squeezenet", (3, 32, 32)),
        ("model=cnn 'model.widths=[8,16]' model.depth=2 model.kernel_size=5", (1, 28, 28)),
        ("model=mlp 'model.widths=[32,16]' model.norm=none", (8,)),
        ("model=mlp 'model.widths=[32,16]' model.norm=layer", (8,)),
    ],
)
def test_what_is_typed_builds_the_net_again(overrides: str, shape: tuple[int, ...]) -> None:
    def state(words: str) -> dict[str, Any]:
        config = validate(compose(words.replace("'", "").split())[0])
        return build_model(config, shape, 10, []).state_dict()

    given = state(overrides)
    answer = typed(given)
    assert answer is not None
    again = state(answer)
    assert {name: tensor.shape for name, tensor in again.items()} == {
        name: tensor.shape for name, tensor in given.items()
    }


def test_nothing_near_is_said_as_such() -> None:
    assert nearest({"a.weight": torch.ones(3, 3), "b": torch.ones(2)}) is None
    assert nearest({"conv.weight": torch.ones(3, 3, 3, 3)}) is None
    assert nearest({}) is None


def test_the_runs_own_switches_are_set_back() -> None:
    config = validate(compose(["model=resnet", "model.depth=20", "model.width=2.0"])[0])
    with torch.device("meta"):
        net = torchvision.models.resnet18(weights=None)
    near = nearest(net.state_dict(), config.tip("model"))
    assert near is not None and near.name == "a resnet"
    assert near.typed == "model=resnet model.depth=18 model.width=1.0 model.stem=imagenet"
