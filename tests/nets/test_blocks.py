"""The norms against their definitions, and residual blocks with and without stochastic depth."""

from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import StochasticDepth

from dltips.errors import ConfigError
from dltips.nets.blocks import Concat, PaddedShortcut, Residual, block, convolution, normalization

MAPS = torch.randn(6, 32, 5, 7, generator=torch.Generator().manual_seed(0)) * 3 + 1


def standardized(maps: Tensor, dims: tuple[int, ...]) -> Tensor:
    mean = maps.mean(dims, keepdim=True)
    variance = (maps - mean).square().mean(dims, keepdim=True)
    return (maps - mean) / (variance + 1e-5).sqrt()


def applied(norm: str, groups: int | None = None) -> Tensor:
    layer = normalization(norm, 32, groups)
    assert layer is not None
    outputs: Tensor = layer(MAPS)
    return outputs


def test_batch_norm_standardizes_each_channel_over_batch_and_places() -> None:
    assert torch.allclose(applied("batch"), standardized(MAPS, (0, 2, 3)), atol=1e-5)


def test_layer_norm_standardizes_each_sample_over_channels_and_places() -> None:
    assert torch.allclose(applied("layer"), standardized(MAPS, (1, 2, 3)), atol=1e-5)


@pytest.mark.parametrize("groups", [1, 4, 32])
def test_group_norm_standardizes_each_group_of_channels_of_a_sample(groups: int) -> None:
    expected = standardized(MAPS.reshape(6, groups, 32 // groups, 5, 7), (2, 3, 4)).reshape(MAPS.shape)
    assert torch.allclose(applied("group", groups), expected, atol=1e-5)


def test_group_norm_takes_sixteen_channels_to_a_group_if_no_number_is_given() -> None:
    assert torch.equal(applied("group"), applied("group", 2))
    narrow = normalization("group", 5, None)
    assert isinstance(narrow, nn.GroupNorm) and narrow.num_groups == 1


def test_lrn_is_that_of_alexnet() -> None:
    # b_i = a_i / (2 + 1e-4 * sum of a_j^2 over five neighbouring channels)^0.75
    padded = functional.pad(MAPS.square(), (0, 0, 0, 0, 2, 2))
    neighbours = torch.stack([padded[:, shift : shift + 32] for shift in range(5)]).sum(0)
    assert torch.allclose(applied("lrn"), MAPS / (2 + 1e-4 * neighbours) ** 0.75, atol=1e-6)


def test_lrn_stands_behind_the_activation_and_the_others_before_it() -> None:
    orders = {
        norm: list(dict(convolution(3, 4, 3, norm, None, nn.ReLU()).named_children())) for norm in ("batch", "lrn")
    }
    assert orders == {"batch": ["layer", "norm", "activation"], "lrn": ["layer", "activation", "norm"]}


@pytest.mark.parametrize(("norm", "biased"), [("none", True), ("lrn", True), ("batch", False), ("group", False)])
def test_a_convolution_has_a_bias_unless_a_norm_subtracts_it(norm: str, biased: bool) -> None:
    layer = convolution(3, 4, 3, norm, None, None).get_submodule("layer")
    assert isinstance(layer, nn.Conv2d) and (layer.bias is not None) == biased


def test_groups_that_do_not_divide_or_mean_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^model\.groups: 5 .*32 channels; take a number"):
        normalization("group", 32, 5)
    with pytest.raises(ConfigError, match=r"^model\.groups: 4 .*model\.norm=group.*leave it out$"):
        normalization("batch", 32, 4)


def residual(activation: nn.Module | None = None) -> Residual:
    body = nn.Sequential(OrderedDict(conv1=block(nn.Conv2d(32, 32, 3, padding=1), None, None)))
    return Residual(body, nn.Identity(), activation or nn.Identity())


def test_a_residual_block_adds_its_input_before_the_activation() -> None:
    layer = residual(nn.ReLU())
    assert torch.equal(layer(MAPS), functional.relu(MAPS + layer.body(MAPS)))


@pytest.mark.parametrize("drop", [0.2, 0.5, 1.0])
def test_stochastic_depth_leaves_out_the_body_of_a_sample_as_torchvision_does(drop: float) -> None:
    layer, maps = residual(), MAPS.repeat(8, 1, 1, 1)
    layer.drop = drop
    torch.manual_seed(3)
    outputs = layer(maps)
    torch.manual_seed(3)
    assert torch.equal(outputs, StochasticDepth(drop, "row")(layer.body(maps)) + maps)
    alone = (outputs == maps).flatten(1).all(1)
    assert alone.any() and alone.all() == (drop == 1)


def test_a_residual_block_is_whole_in_evaluation_and_draws_nothing_without_a_drop() -> None:
    layer = residual()
    whole = layer(MAPS)
    stream = torch.get_rng_state()
    assert torch.equal(layer(MAPS), whole) and torch.equal(torch.get_rng_state(), stream)
    layer.drop = 0.9
    assert torch.equal(layer.eval()(MAPS), whole)


@pytest.mark.parametrize(("channels", "stride"), [(48, 2), (33, 1)])
def test_a_padded_shortcut_skips_pixels_and_adds_empty_channels(channels: int, stride: int) -> None:
    outputs = PaddedShortcut(32, channels, stride)(MAPS)
    first = (channels - 32) // 2
    assert torch.equal(outputs[:, first : first + 32], MAPS[:, :, ::stride, ::stride])
    assert outputs.shape[1] == channels and outputs.count_nonzero() == outputs[:, first : first + 32].count_nonzero()


def test_concatenated_branches_keep_their_order() -> None:
    both = Concat(OrderedDict(negative=nn.Threshold(1e9, -1.0), same=nn.Identity()))
    assert torch.equal(both(MAPS), torch.cat([torch.full_like(MAPS, -1.0), MAPS], 1))
