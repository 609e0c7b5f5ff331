from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from dltips.registry import ConfigError
from dltips.tips.model import squeezenet

USUAL: dict[str, Any] = {"stem": "cifar", "width": 0.25, "norm": "batch", "groups": None}


def test_parameters_and_outputs_are_torchvision_s_but_for_the_last_activation() -> None:
    model = squeezenet((3, 64, 64), 1000, nn.ReLU, stem="imagenet", width=1.0, norm="none", groups=None)
    theirs = torchvision.models.squeezenet1_1().eval()
    assert sum(parameter.numel() for parameter in model.parameters()) == 1_235_496
    model.load_state_dict(dict(zip(model.state_dict(), theirs.state_dict().values(), strict=True)))
    theirs.classifier[2] = nn.Identity()
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(model(images), theirs(images))


@pytest.mark.parametrize("norm", ["none", "batch", "layer", "group"])
@pytest.mark.parametrize(("stem", "side"), [("cifar", 5), ("cifar", 32), ("imagenet", 17), ("imagenet", 64)])
def test_squeezenet_has_its_shape_stages_and_gradients(stem: str, side: int, norm: str) -> None:
    model = squeezenet((1, side, side), 10, nn.ReLU, **{**USUAL, "stem": stem, "norm": norm})
    outputs = model(torch.randn(2, 1, side, side))
    assert outputs.shape == (2, 10)
    assert list(dict(model.named_children())) == ["stem", "stage1", "stage2", "stage3", "head", "pool", "flatten"]
    outputs.square().sum().backward()
    assert all(weight.grad is not None for weight in model.parameters())


def test_a_fire_module_squeezes_and_then_expands_by_two_kernels() -> None:
    model = squeezenet((3, 32, 32), 10, nn.ReLU, **{**USUAL, "width": 1.0})
    weights = {
        name: tuple(weight.shape)
        for name, weight in model.get_submodule("stage1.fire1").named_parameters()
        if weight.dim() == 4
    }
    assert weights == {
        "squeeze.layer.weight": (16, 64, 1, 1),
        "expand.pointwise.layer.weight": (64, 16, 1, 1),
        "expand.spatial.layer.weight": (64, 16, 3, 3),
    }


@pytest.mark.parametrize(
    ("stem", "side", "remedy"),
    [("cifar", 4, "data.image_size=5"), ("imagenet", 4, "data.image_size=17"), ("imagenet", 16, "model.stem=cifar")],
)
def test_a_small_image_is_refused(stem: str, side: int, remedy: str) -> None:
    with pytest.raises(ConfigError, match=rf"^model.stem: {stem} shrinks {side} pixels to nothing; write {remedy}$"):
        squeezenet((3, 64, side), 10, nn.ReLU, **{**USUAL, "stem": stem})
    with pytest.raises(ConfigError, match=r"^model: squeezenet takes images"):
        squeezenet((64,), 10, nn.ReLU, **USUAL)
