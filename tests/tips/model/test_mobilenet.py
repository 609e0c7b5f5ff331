import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional

from dltips.errors import ConfigError
from dltips.nets.blocks import Residual
from dltips.nets.key_maps import key_maps_of
from dltips.tips.model.mobilenet import SameConv2d, mobilenet_v2

USUAL: dict[str, Any] = {
    "stem": "cifar",
    "width": 0.125,
    "norm": "batch",
    "groups": None,
    "padding": "symmetric",
    "dropout": 0.2,
}
IMAGENET = {**USUAL, "stem": "imagenet", "width": 1.0}
LAYOUT = key_maps_of(mobilenet_v2)[0]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet


def small(shape: tuple[int, ...] = (3, 32, 32), **knobs: Any) -> nn.Module:
    return mobilenet_v2(shape, 10, nn.ReLU6, **{**USUAL, **knobs})


@pytest.mark.parametrize("width", [1.0, 0.35, 1.4])
def test_with_torchvision_s_weights_the_outputs_are_torchvision_s(width: float) -> None:
    theirs = torchvision.models.MobileNetV2(num_classes=1000, width_mult=width).eval()
    for value in theirs.state_dict().values():
        if value.dim() == 1:  # norms and biases that differ from each other
            value.add_(0.5 * torch.rand_like(value))
    model = mobilenet_v2((3, 64, 64), 1000, nn.ReLU6, **{**IMAGENET, "width": width}).eval()
    model.load_state_dict(LAYOUT.translated(theirs.state_dict()))
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(model(images), theirs(images))
    if width == 1:
        assert sum(parameter.numel() for parameter in model.parameters()) == 3_504_872


def test_the_layout_s_settings_are_those_of_the_net_that_it_names() -> None:
    assert LAYOUT.settings["activation"] == "relu6" and LAYOUT.size == 224
    assert all(IMAGENET[key.removeprefix("model.")] == LAYOUT.settings[key] for key in ("model.stem", "model.norm"))


@pytest.mark.parametrize("norm", ["none", "batch", "layer", "group"])
@pytest.mark.parametrize(("stem", "side", "last"), [("cifar", 32, 4), ("cifar", 5, 1), ("imagenet", 64, 2)])
def test_mobilenet_has_its_shape_stages_and_gradients(stem: str, side: int, last: int, norm: str) -> None:
    model = small((1, side, side), stem=stem, norm=norm)
    images = torch.randn(2, 1, side, side)
    outputs = model(images)
    assert outputs.shape == (2, 10)
    stages = [f"stage{number}" for number in range(1, 8)]
    children = ["stem", *stages, "last", "pool", "flatten", "dropout", "head"]
    assert list(dict(model.named_children())) == children
    maps = nn.Sequential(*list(model.children())[: children.index("pool")])(images)
    assert maps.shape == (2, 1280, last, last)
    outputs.square().sum().backward()
    assert all(weight.grad is not None for weight in model.parameters())


def test_a_block_expands_convolves_each_channel_and_projects() -> None:
    weights = {
        name: tuple(weight.shape)
        for name, weight in small(width=1.0).get_submodule("stage2.block2").named_parameters()
        if weight.dim() == 4
    }
    assert weights == {
        "body.expand.layer.weight": (144, 24, 1, 1),
        "body.depthwise.layer.weight": (144, 1, 3, 3),
        "body.project.layer.weight": (24, 144, 1, 1),
    }


def test_the_input_is_added_wherever_a_block_keeps_its_shape() -> None:
    model = small(width=1.0)
    added = [name for name, module in model.named_modules() if isinstance(module, Residual)]
    blocks = {"2": 2, "3": 3, "4": 4, "5": 3, "6": 3}
    assert added == [f"stage{stage}.block{index}" for stage, count in blocks.items() for index in range(2, count + 1)]


# tf.nn.convolution, padding SAME: ceil(side / stride) outputs; of an odd number of zeros the last is behind
@pytest.mark.parametrize(("side", "pads"), [(8, (0, 1)), (7, (1, 1)), (1, (1, 1)), (2, (0, 1))])
def test_same_padding_is_tensorflow_s(side: int, pads: tuple[int, int]) -> None:
    layer = SameConv2d(2, 3, 3, stride=2)
    images = torch.randn(1, 2, side, 8)
    expected = functional.conv2d(functional.pad(images, (0, 1, *pads)), layer.weight, layer.bias, stride=2)
    assert layer(images).shape == (1, 3, (side + 1) // 2, 4)
    assert torch.equal(layer(images), expected)


def test_same_padding_is_for_strides_alone_and_changes_no_name() -> None:
    model, usual = small(stem="imagenet", padding="same"), small(stem="imagenet")
    strided = [name for name, layer in model.named_modules() if isinstance(layer, SameConv2d)]
    assert strided == ["stem.layer", *(f"stage{number}.block1.body.depthwise.layer" for number in (2, 3, 4, 6))]
    assert list(model.state_dict()) == list(usual.state_dict())


def test_dropout_stands_in_front_of_the_head_and_in_training_alone() -> None:
    model = small(dropout=1.0)
    images = torch.randn(4, 3, 32, 32)
    assert torch.equal(model(images), model.get_submodule("head").get_parameter("bias").expand(4, 10))
    assert model.eval()(images).unique(dim=0).shape == (4, 10)


def test_vectors_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^model: mobilenet_v2 takes images"):
        small((64,))


def test_real_weights_know_bees_from_ants() -> None:
    root = Path(os.environ.get("DLTIPS_TEST_DATA", "nothing"))
    file = root / "weights/mobilenet_v2_tflite_dequant_fp16.pth"
    if not file.exists() or not (root / "hymenoptera").exists():
        pytest.skip("DLTIPS_TEST_DATA holds no weights")
    state = {key: tensor.float() for key, tensor in torch.load(file, weights_only=True).items()}
    model = mobilenet_v2((3, 224, 224), 1000, nn.ReLU6, **{**IMAGENET, "padding": "same"}).eval()
    model.load_state_dict(LAYOUT.translated(state))
    v2 = torchvision.transforms
    prepare = v2.Compose([v2.Resize(256), v2.CenterCrop(224), v2.ToTensor(), v2.Normalize(MEAN, STD)])
    photographs = torchvision.datasets.ImageFolder(str(root / "hymenoptera/val"), prepare)
    chosen = [photographs[index] for index in range(0, len(photographs), 4)]
    with torch.inference_mode():
        logits = model(torch.stack([image for image, _ in chosen]))[:, [310, 309]]  # ImageNet's ant and bee
    right = logits.argmax(1) == torch.tensor([label for _, label in chosen])
    assert right.float().mean() >= 0.9
