import sys
from typing import Any

import pytest
import timm
import torch
from torch import nn

from dltips.errors import ConfigError
from dltips.tips import activation as activations
from dltips.tips.model import timm_net

USUAL: dict[str, Any] = {"architecture": "test_efficientnet", "drop_rate": 0.0, "drop_path_rate": 0.0, "swap": False}


def net(shape: tuple[int, ...] = (3, 32, 32), **knobs: Any) -> nn.Module:
    return timm_net(shape, 10, activations.tanh, **{**USUAL, **knobs})


def test_the_net_is_timm_s() -> None:
    torch.manual_seed(0)
    model = net().eval()
    torch.manual_seed(0)
    theirs = timm.create_model("test_efficientnet", num_classes=10).eval()
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(model(images), theirs(images))


@pytest.mark.parametrize(
    "architecture", ["test_resnet", "test_vit", "test_convnext", "maxvit_rmlp_pico_rw_256", "test_nfnet"]
)
def test_the_net_takes_the_input_s_channels_and_size(architecture: str) -> None:
    model = net((1, 64, 64), architecture=architecture)
    assert model.training and model(torch.randn(2, 1, 64, 64)).shape == (2, 10)
    assert all(name.isidentifier() for name, _ in model.named_children())


def test_it_keeps_its_own_init_and_activation_unless_they_are_swapped() -> None:
    model = net()
    assert model.keeps == ("init", "activation") and "model.swap=true" in str(model.remedy)
    assert not any(isinstance(layer, nn.Tanh) for layer in model.modules())
    swapped = net(swap=True)
    assert not hasattr(swapped, "keeps")
    kinds = {type(layer).__name__ for layer in swapped.modules()}
    assert "Tanh" in kinds and not kinds & {"ReLU", "SiLU", "GELU"}
    # the gates of squeeze and excitation stay what they are
    gates = [type(layer) for name, layer in swapped.named_modules() if name.endswith("gate")]
    assert gates == [type(layer) for name, layer in model.named_modules() if name.endswith("gate")]
    assert len(gates) > 0


def test_every_activation_is_one_of_its_own() -> None:
    model = timm_net((3, 32, 32), 10, lambda: activations.prelu(start=0.1), **{**USUAL, "swap": True})
    swapped = [layer for layer in model.modules() if isinstance(layer, nn.PReLU)]
    originals = [layer for layer in net().modules() if type(layer).__name__ in ("ReLU", "SiLU")]
    assert len(swapped) == len(originals) > 3


def test_the_rates_reach_the_net() -> None:
    model = net(drop_rate=0.3, drop_path_rate=0.2, architecture="test_vit")
    assert getattr(model.get_submodule("head_drop"), "p", None) == 0.3
    paths = [layer.drop_prob for layer in model.modules() if type(layer).__name__ == "DropPath"]
    assert max(paths) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("shape", "knobs", "message"),
    [
        (
            (3, 32, 32),
            {"architecture": "resnt18"},
            "model.architecture: 'resnt18' is not an architecture .* mean resnet18",
        ),
        ((3, 32, 32), {"architecture": "zzzzzzz"}, r"; timm.list_models\(\) has the [0-9]+ that there are$"),
        ((3, 32, 32), {"architecture": "hf-hub:timm/resnet18.a1_in1k"}, "is not an architecture of timm"),
        (
            (3, 8, 8),
            {"architecture": "test_vit"},
            r"test_vit does not take 8x8 pixels \(.*\); write data.image_size=224",
        ),
        (
            (3, 32, 32),
            {"architecture": "densenet121", "drop_path_rate": 0.1},
            "model.drop_path_rate: densenet121 has no",
        ),
        ((7,), {}, "model: timm takes images"),
    ],
)
def test_what_timm_cannot_make_is_refused_in_one_line(
    shape: tuple[int, ...], knobs: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        net(shape, **knobs)
    assert "\n" not in str(caught.value)


def test_out_of_memory_is_no_wrong_size() -> None:
    """1.2 PB for one image: no machine has that, and a smaller image is no remedy that could be named."""
    with pytest.raises(RuntimeError, match="memory"):
        net((3, 10**7, 10**7), architecture="test_resnet")


def test_without_timm_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(
        ConfigError, match=r"^model: timm cannot be imported .*; write pip install 'dltips\[timm\]', or"
    ):
        net()
