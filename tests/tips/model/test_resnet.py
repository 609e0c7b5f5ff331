import copy
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from dltips.errors import ConfigError
from dltips.nets.blocks import Residual
from dltips.nets.key_maps import key_maps_of
from dltips.tips.model import resnet

USUAL: dict[str, Any] = {
    "depth": 8,
    "stem": "cifar",
    "width": 0.5,
    "shortcut": "projection",
    "norm": "batch",
    "groups": None,
}
LAYOUTS = {layout.name: layout for layout in key_maps_of(resnet)}


def small(**knobs: Any) -> nn.Module:
    return resnet((3, 16, 16), 10, nn.ReLU, **{**USUAL, **knobs})


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_each_tensor_of_torchvision_s_is_one_of_ours(depth: int) -> None:
    with torch.device("meta"):
        model = resnet((3, 64, 64), 1000, nn.ReLU, **{**USUAL, "depth": depth, "stem": "imagenet", "width": 1.0})
        theirs = getattr(torchvision.models, f"resnet{depth}")()
    found = {name: value.shape for name, value in LAYOUTS["torchvision"].translated(theirs.state_dict()).items()}
    assert found == {name: value.shape for name, value in model.state_dict().items()}


@pytest.mark.parametrize("depth", [18, 50])
def test_the_outputs_are_torchvision_s(depth: int) -> None:
    model = resnet((3, 64, 64), 10, nn.ReLU, **{**USUAL, "depth": depth, "stem": "imagenet", "width": 1.0}).eval()
    theirs = getattr(torchvision.models, f"resnet{depth}")(num_classes=10).eval()
    for value in theirs.state_dict().values():
        if value.dim() == 1:  # norms that differ from each other
            value.add_(0.5 * torch.rand_like(value))
    model.load_state_dict(LAYOUTS["torchvision"].translated(theirs.state_dict()))
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(model(images), theirs(images))


# He et al. 2016, table 6: 0.27, 0.46, 0.66, 0.85 and 1.7 million parameters
@pytest.mark.parametrize(("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)])
def test_the_nets_for_cifar_have_the_paper_s_parameters_and_layers(depth: int, millions: float) -> None:
    with torch.device("meta"):
        model = resnet((3, 32, 32), 10, nn.ReLU, **{**USUAL, "depth": depth, "width": 1.0, "shortcut": "pad"})
    assert round(count(model) / 1e6, 1 if depth == 110 else 2) == millions
    assert sum(isinstance(layer, nn.Conv2d | nn.Linear) for layer in model.modules()) == depth


@pytest.mark.parametrize("depth", [20, 32, 44, 56, 110])
@pytest.mark.parametrize("shortcut", ["pad", "projection"])
def test_each_tensor_of_akamaster_s_nets_is_one_of_ours(depth: int, shortcut: str) -> None:
    layers = [("conv1", "bn1")]
    for number in (1, 2, 3):
        for index in range((depth - 2) // 6):
            layers += [(f"layer{number}.{index}.conv{i}", f"layer{number}.{index}.bn{i}") for i in (1, 2)]
            if shortcut == "projection" and number > 1 and index == 0:
                layers.append((f"layer{number}.0.shortcut.0", f"layer{number}.0.shortcut.1"))
    parts = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    theirs = [f"{convolution}.weight" for convolution, _ in layers] + ["linear.weight", "linear.bias"]
    theirs += [f"{norm}.{part}" for _, norm in layers for part in parts]
    with torch.device("meta"):
        model = small(depth=depth, shortcut=shortcut)
    assert sorted(map(LAYOUTS["akamaster"].ours, theirs)) == sorted(model.state_dict())


def test_the_layouts_settings_are_those_of_the_nets_that_they_name() -> None:
    shared = {"model.norm": "batch", "activation": "relu"}
    assert {name: (layout.size, layout.settings) for name, layout in LAYOUTS.items()} == {
        "torchvision": (224, {"model.stem": "imagenet", "model.shortcut": "projection", **shared}),
        "akamaster": (32, {"model.stem": "cifar", "model.shortcut": "pad", **shared}),
    }


def test_akamaster_s_weights_know_the_pictures_of_cifar10() -> None:
    root = Path(os.environ.get("DLTIPS_TEST_DATA", "nothing"))
    weights, pictures = root / "weights/resnet20-12fca82f.th", root / "cifar-10-batches-py/test_batch"
    if not weights.exists() or not pictures.exists():
        pytest.skip("DLTIPS_TEST_DATA holds no weights")
    state = torch.load(weights, weights_only=True, map_location="cpu")["state_dict"]
    model = small(depth=20, width=1.0, shortcut="pad").eval()
    plain = {key.removeprefix("module."): tensor for key, tensor in state.items()}
    absent = model.load_state_dict(LAYOUTS["akamaster"].translated(plain), strict=False)
    assert absent.unexpected_keys == []
    assert all(name.endswith("num_batches_tracked") for name in absent.missing_keys)  # torch had none in those days
    batch = pickle.loads(pictures.read_bytes(), encoding="bytes")
    images = torch.as_tensor(batch[b"data"][:2000]).view(-1, 3, 32, 32) / 255
    usual = torchvision.transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    with torch.inference_mode():
        right = model(usual(images)).argmax(1) == torch.tensor(batch[b"labels"][:2000])
    assert right.float().mean() >= 0.915  # 91.65 %; of all 10,000 91.73 %


def test_a_projection_adds_two_convolutions_to_resnet20() -> None:
    sizes = {kind: count(small(depth=20, width=1.0, shortcut=kind)) for kind in ("pad", "projection")}
    assert sizes == {"pad": 269_722, "projection": 269_722 + (16 * 32 + 2 * 32) + (32 * 64 + 2 * 64)}


@pytest.mark.parametrize("shortcut", ["projection", "pad"])
@pytest.mark.parametrize("norm", ["none", "batch", "layer", "group"])
@pytest.mark.parametrize(("depth", "stem"), [(8, "cifar"), (14, "imagenet"), (18, "cifar"), (50, "imagenet")])
def test_resnet_has_its_shape_stages_and_gradients(depth: int, stem: str, norm: str, shortcut: str) -> None:
    model = small(depth=depth, stem=stem, norm=norm, shortcut=shortcut, width=0.125)
    outputs = model(torch.randn(2, 3, 16, 16))
    assert outputs.shape == (2, 10)
    stages = [f"stage{number}" for number in range(1, 4 if depth in (8, 14) else 5)]
    assert list(dict(model.named_children())) == ["stem", *stages, "pool", "flatten", "head"]
    outputs.square().sum().backward()
    assert all(weight.grad is not None for weight in model.parameters())


def test_channels_last_computes_the_same() -> None:
    model = small(shortcut="pad").eval()
    images = torch.randn(2, 3, 16, 16)
    outputs = copy.deepcopy(model).to(memory_format=torch.channels_last)(
        images.contiguous(memory_format=torch.channels_last)
    )
    assert torch.allclose(outputs, model(images), atol=1e-5)


def test_a_net_whose_bodies_are_all_dropped_is_its_stem_and_shortcuts() -> None:
    model = small(shortcut="pad")
    for layer in model.modules():
        if isinstance(layer, Residual):
            layer.drop = 1.0
    images = torch.randn(4, 3, 16, 16)
    maps = model.get_submodule("stem")(images)
    for number in (1, 2, 3):
        maps = model.get_submodule(f"stage{number}.block1.shortcut")(maps)
    expected = model.get_submodule("head")(maps.mean((2, 3)))
    assert torch.allclose(model(images), expected, atol=1e-6)


@pytest.mark.parametrize(("depth", "remedy"), [(21, 20), (7, 8), (1, 8), (49, 44)])
def test_a_depth_of_neither_layout_is_refused(depth: int, remedy: int) -> None:
    with pytest.raises(ConfigError, match=rf"^model.depth: {depth} is neither 6n\+2 .*; write model.depth={remedy}$"):
        small(depth=depth)


def test_vectors_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^model: resnet takes images"):
        resnet((64,), 10, nn.ReLU, **USUAL)
