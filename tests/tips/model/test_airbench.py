import pytest
import torch
from torch import nn

from dltips.errors import ConfigError
from dltips.tips.activation import relu
from dltips.tips.model.airbench import Whitening, airbench


def net(shape: tuple[int, ...] = (3, 32, 32)) -> nn.Module:
    return airbench(shape, 10, relu, widths=(8, 8, 8), memory=0.6, scale=0.5, epsilon=5e-4)


def correlated(count: int = 200) -> torch.Tensor:
    """Images whose neighbouring pixels and channels go together, as in photographs."""
    images = torch.randn(count, 3, 16, 16)
    images[:, 1] += images[:, 0]
    return images + images.roll(1, 2) + 0.5 * images.roll(1, 3)


def test_the_first_layer_whitens_patches_and_adds_their_negatives() -> None:
    layer = Whitening(3, 1e-6)
    images = correlated()
    layer.init_from_data(images)
    outputs = layer(images)
    assert outputs.shape == (200, 24, 15, 15)
    first = outputs[:, :12].transpose(0, 1).flatten(1)
    assert torch.allclose(first @ first.T / first.shape[1], torch.eye(12), atol=1e-3)
    assert torch.equal(outputs[:, 12:], -outputs[:, :12])


def test_the_whitening_stays_and_scales_of_norms_stay_one() -> None:
    model = net()
    trained = {name for name, _ in model.named_parameters()}
    assert "whiten.bias" in trained and "whiten.weight" not in trained
    assert not any("norm" in name and name.endswith("weight") for name in trained)
    images = correlated(8)
    padded = torch.nn.functional.interpolate(images, (32, 32))
    model.init_from_data(padded)  # type: ignore[operator]
    norm = model.get_submodule("stage1.norm1")
    assert isinstance(norm, nn.BatchNorm2d) and norm.momentum == pytest.approx(0.4)
    model(padded)
    assert torch.equal(norm.get_buffer("weight"), torch.ones(8))
    outputs = model.eval()(padded)
    assert outputs.shape == (8, 10)
    head = model.get_submodule("head")
    features = nn.Sequential(*list(model.children())[:-2])(padded)
    assert torch.allclose(outputs, 0.5 * head(features))


def test_a_small_image_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"at least 25 pixels a side, not 8; write data.image_size=32$"):
        net((1, 8, 8))
