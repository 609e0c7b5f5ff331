from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from dltips.errors import ConfigError
from dltips.nets.key_maps import key_maps_of
from dltips.tips.model import vgg

USUAL: dict[str, Any] = {
    "depth": 11,
    "width": 0.125,
    "norm": "none",
    "groups": None,
    "head": "global",
    "head_widths": (),
}
DENSE = {**USUAL, "width": 1.0, "head": "dense", "head_widths": (4096, 4096)}
LAYOUTS = {(layout.settings["model.depth"], layout.settings["model.norm"]): layout for layout in key_maps_of(vgg)}


def torchvision_s(depth: int, norm: str) -> nn.Module:
    model: nn.Module = getattr(torchvision.models, f"vgg{depth}{'_bn' if norm == 'batch' else ''}")(init_weights=False)
    return model.eval()


def small(**knobs: Any) -> nn.Module:
    return vgg((3, 32, 32), 10, nn.ReLU, **{**USUAL, **knobs})


@pytest.mark.parametrize("norm", ["none", "batch"])
@pytest.mark.parametrize("depth", [11, 13, 16, 19])
def test_each_tensor_of_torchvision_s_is_one_of_ours(depth: int, norm: str) -> None:
    with torch.device("meta"):
        model = vgg((3, 224, 224), 1000, nn.ReLU, **{**DENSE, "depth": depth, "norm": norm})
        theirs = torchvision_s(depth, norm)
    found = {name: value.shape for name, value in LAYOUTS[depth, norm].translated(theirs.state_dict()).items()}
    assert found == {name: value.shape for name, value in model.state_dict().items()}
    assert sum(weight.dim() > 1 for weight in model.parameters()) == depth


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_with_torchvision_s_weights_the_outputs_are_torchvision_s(norm: str) -> None:
    theirs = torchvision_s(11, norm)
    for value in theirs.state_dict().values():
        if value.dim() == 1:  # norms and biases that differ from each other
            value.add_(0.5 * torch.rand_like(value))
    with torch.device("meta"):
        model = vgg((3, 224, 224), 1000, nn.ReLU, **{**DENSE, "norm": norm}).eval()
    model.load_state_dict(LAYOUTS[11, norm].translated(theirs.state_dict()), assign=True)
    images = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        outputs, expected = model(images), theirs(images)
    assert expected.std() > 1e-3
    # a norm's mean has taken the bias that we have not in front of it: the same but for rounding
    torch.testing.assert_close(
        outputs, expected, rtol=0 if norm == "none" else 1e-4, atol=0 if norm == "none" else 1e-5
    )


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
