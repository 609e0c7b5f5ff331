import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from dltips.errors import ConfigError
from dltips.nets.key_maps import key_maps_of
from dltips.tips.model import squeezenet

USUAL: dict[str, Any] = {"version": 1.1, "stem": "cifar", "width": 0.25, "norm": "batch", "groups": None}


ORIGINAL: dict[str, Any] = {"stem": "imagenet", "width": 1.0, "norm": "none", "groups": None}
LAYOUTS = {layout.settings["model.version"]: layout for layout in key_maps_of(squeezenet)}


@pytest.mark.parametrize(("version", "parameters"), [(1.0, 1_248_424), (1.1, 1_235_496)])
def test_with_torchvision_s_weights_the_outputs_are_torchvision_s_but_for_the_last_activation(
    version: float, parameters: int
) -> None:
    settings = {key.removeprefix("model."): value for key, value in LAYOUTS[version].settings.items()}
    assert settings == {"version": version, "activation": "relu", "stem": "imagenet", "norm": "none"}
    model = squeezenet((3, 64, 64), 1000, nn.ReLU, version=version, **ORIGINAL).eval()
    theirs = getattr(torchvision.models, f"squeezenet1_{round(10 * version) - 10}")().eval()
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    for bias in (value for value in theirs.state_dict().values() if value.dim() == 1):
        bias.uniform_(-0.1, 0.1)
    model.load_state_dict(LAYOUTS[version].translated(theirs.state_dict()))
    theirs.classifier[2] = nn.Identity()
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(model(images), theirs(images))


def test_real_weights_are_loaded_whole_and_know_bees_from_ants() -> None:
    root = Path(os.environ.get("DLTIPS_TEST_DATA", "nothing"))
    file = root / "weights/squeezenet1_0_tv_fp16.pth"
    if not file.exists() or not (root / "hymenoptera").exists():
        pytest.skip("DLTIPS_TEST_DATA holds no weights")
    state = {key: tensor.float() for key, tensor in torch.load(file, weights_only=True).items()}
    model = squeezenet((3, 224, 224), 1000, nn.ReLU, version=1.0, **ORIGINAL).eval()
    model.load_state_dict(LAYOUTS[1.0].translated(state))
    v2 = torchvision.transforms
    usual = v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    prepare = v2.Compose([v2.Resize(256), v2.CenterCrop(224), v2.ToTensor(), usual])
    photographs = torchvision.datasets.ImageFolder(str(root / "hymenoptera/val"), prepare)
    chosen = [photographs[index] for index in range(0, len(photographs), 4)]
    with torch.inference_mode():
        logits = model(torch.stack([image for image, _ in chosen]))[:, [310, 309]]  # ImageNet's ant and bee
    right = logits.argmax(1) == torch.tensor([label for _, label in chosen])
    assert right.float().mean() >= 0.85


@pytest.mark.parametrize("version", [1.0, 1.1])
@pytest.mark.parametrize("norm", ["none", "batch", "layer", "group"])
@pytest.mark.parametrize(("stem", "side"), [("cifar", 5), ("cifar", 32), ("imagenet", 21), ("imagenet", 64)])
def test_squeezenet_has_its_shape_stages_and_gradients(stem: str, side: int, norm: str, version: float) -> None:
    model = squeezenet((1, side, side), 10, nn.ReLU, **{**USUAL, "stem": stem, "norm": norm, "version": version})
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


def test_the_versions_pool_after_other_modules() -> None:
    outputs = {}
    for version in (1.0, 1.1):
        model = squeezenet((3, 224, 224), 10, nn.ReLU, **{**ORIGINAL, "version": version, "width": 0.125})
        maps = torch.zeros(1, 3, 224, 224)
        outputs[version] = [maps := model.get_submodule(name)(maps) for name in ("stem", "stage1", "stage2", "stage3")]
    # channels and pixels a side; Iandola et al. 2016, table 1, pad the first convolution, hence their 55 pixels
    assert [tuple(maps.shape[1:3]) for maps in outputs[1.0]] == [(12, 54), (32, 27), (64, 13), (64, 13)]
    assert [tuple(maps.shape[1:3]) for maps in outputs[1.1]] == [(8, 55), (16, 27), (32, 13), (64, 13)]


def test_another_version_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        squeezenet((3, 64, 64), 10, nn.ReLU, **{**USUAL, "version": 1.2})
    assert str(caught.value) == "model.version: 1.2 is neither 1.0 nor 1.1; write model.version=1.1"


@pytest.mark.parametrize(
    ("stem", "side", "version", "remedy"),
    [
        ("cifar", 4, 1.1, "data.image_size=5"),
        ("cifar", 4, 1.0, "data.image_size=5"),
        ("imagenet", 4, 1.1, "data.image_size=17"),
        ("imagenet", 4, 1.0, "data.image_size=21"),
        ("imagenet", 16, 1.1, "model.stem=cifar"),
        ("imagenet", 20, 1.0, "model.stem=cifar"),
    ],
)
def test_a_small_image_is_refused(stem: str, side: int, version: float, remedy: str) -> None:
    with pytest.raises(ConfigError, match=rf"^model.stem: {stem} shrinks {side} pixels to nothing; write {remedy}$"):
        squeezenet((3, 64, side), 10, nn.ReLU, **{**USUAL, "stem": stem, "version": version})
    with pytest.raises(ConfigError, match=r"^model: squeezenet takes images"):
        squeezenet((64,), 10, nn.ReLU, **USUAL)


@pytest.mark.parametrize(("stem", "sides"), [("cifar", (32, 20)), ("imagenet", (8, 5))])
def test_the_map_behind_the_stem_keeps_the_sides_or_a_quarter_of_them(stem: str, sides: tuple[int, int]) -> None:
    """Behind an imagenet stem: (32 - 3) // 2 + 1 = 15 rows, of which a pool of 3 that rounds up makes 7, and so on."""
    model = squeezenet((3, 32, 20), 10, nn.ReLU, **USUAL | {"stem": stem})
    expected = sides if stem == "cifar" else (7, 4)
    assert model.get_submodule("stem")(torch.randn(2, 3, 32, 20)).shape[2:] == expected
