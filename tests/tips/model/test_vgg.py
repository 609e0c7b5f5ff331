from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from dltips.registry import ConfigError
from dltips.tips.model import vgg

USUAL: dict[str, Any] = {
    "depth": 11,
    "width": 0.125,
    "norm": "none",
    "groups": None,
    "head": "global",
    "head_widths": (),
}


def small(**knobs: Any) -> nn.Module:
    return vgg((3, 32, 32), 10, nn.ReLU, **{**USUAL, **knobs})


@pytest.mark.parametrize("depth", [11, 13, 16, 19])
def test_the_layers_and_parameters_are_torchvision_s(depth: int) -> None:
    with torch.device("meta"):
        model = vgg(
            (3, 224, 224),
            1000,
            nn.ReLU,
            **{**USUAL, "depth": depth, "width": 1.0, "head": "dense", "head_widths": (4096, 4096)},
        )
        theirs = getattr(torchvision.models, f"vgg{depth}")(init_weights=False)
    assert [tuple(weight.shape) for weight in model.parameters()] == [
        tuple(weight.shape) for weight in theirs.parameters()
    ]
    assert sum(weight.dim() > 1 for weight in model.parameters()) == depth


def test_the_features_are_torchvision_s() -> None:
    model = small(width=1.0)
    theirs = torchvision.models.vgg11(init_weights=False).features
    convolutions = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    for layer, source in zip(convolutions, (part for part in theirs if isinstance(part, nn.Conv2d)), strict=True):
        layer.load_state_dict(source.state_dict())
    images = torch.randn(2, 3, 32, 32)
    ours = nn.Sequential(*list(model.children())[:5])(images)
    assert torch.equal(ours, theirs(images))


@pytest.mark.parametrize("norm", ["none", "batch", "layer", "group"])
@pytest.mark.parametrize("head", ["global", "dense"])
def test_vgg_has_its_shape_stages_and_gradients(norm: str, head: str) -> None:
    model = small(norm=norm, head=head, head_widths=(8,))
    outputs = model(torch.randn(3, 3, 32, 32))
    assert outputs.shape == (3, 10)
    stages = [f"stage{number}" for number in range(1, 6)]
    pool = ["pool"] if head == "global" else []
    assert list(dict(model.named_children())) == [*stages, *pool, "flatten", "hidden1", "head"]
    outputs.square().sum().backward()
    assert all(weight.grad is not None for weight in model.parameters())
    assert (model.get_submodule("stage2.conv1.layer").get_parameter("weight").shape[:2]) == (16, 8)


def test_a_small_image_and_a_vector_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"halve 28 pixels to nothing; write data.image_size=32, or take model=cnn$"):
        vgg((1, 28, 28), 10, nn.ReLU, **USUAL)
    with pytest.raises(ConfigError, match=r"^model: vgg takes images"):
        vgg((64,), 10, nn.ReLU, **USUAL)
