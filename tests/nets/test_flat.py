import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from dltips.nets.flat import FlatModel, is_norm, weighted_layers


class Tied(nn.Module):
    """Two layers that share a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(5, 5)
        self.two = nn.Linear(5, 5)
        self.two.weight = self.one.weight

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.two(torch.tanh(self.one(inputs)))
        return outputs


def small_model() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(2, 5, 3, padding=1), nn.BatchNorm2d(5), nn.PReLU(), nn.Flatten(), nn.Linear(5 * 4 * 4, 3)
    )


def step(net: FlatModel) -> None:
    net.gradients.zero_()
    net.module(torch.randn(4, 2, 4, 4)).square().sum().backward()
    net.detect_unused()


def test_flattening_changes_no_value_and_no_output() -> None:
    model = small_model().eval()
    inputs = torch.randn(4, 2, 4, 4)
    before, outputs = {key: value.clone() for key, value in model.state_dict().items()}, model(inputs)
    net = FlatModel(model)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert torch.equal(model(inputs), outputs)
    assert net.count == sum(parameter.numel() for parameter in model.parameters())


def test_parameters_and_gradients_are_views_of_the_buffers() -> None:
    net = FlatModel(small_model())
    net.assert_views()
    step(net)
    for segment, view in net.views(net.gradients):
        assert segment.parameter.grad is not None
        assert torch.equal(view, segment.parameter.grad), segment.name
        assert view.any(), segment.name
    net.gradients.zero_()
    assert not any(parameter.grad.any() for parameter in net.module.parameters())
    net.parameters.fill_(7)
    assert all((parameter == 7).all() for parameter in net.module.parameters())
    next(net.module.parameters()).data.zero_()
    assert not net.parameters[: net.segments[0].stop].any()
    net.assert_views()


def test_gradients_of_the_parts_of_a_batch_add_up_in_the_buffer() -> None:
    net = FlatModel(nn.Linear(3, 2))
    inputs = torch.randn(6, 3, dtype=torch.float32)
    net.module(inputs).square().sum().backward()
    whole = net.gradients.clone()
    net.gradients.zero_()
    for part in inputs.split(2):
        net.module(part).square().sum().backward()
    torch.testing.assert_close(net.gradients, whole)
    net.assert_views()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_parameter_starts_on_a_64_byte_boundary_and_the_gaps_stay_zero(dtype: torch.dtype) -> None:
    net = FlatModel(small_model())
    net = FlatModel(copy.deepcopy(net.module).to(dtype))
    for parameter in net.module.parameters():
        assert parameter.data_ptr() % 64 == 0
        assert parameter.grad is not None
        assert parameter.grad.data_ptr() % 64 == 0
    inside = torch.zeros_like(net.parameters, dtype=torch.bool)
    for segment in net.segments:
        assert not inside[segment.start : segment.stop].any()
        inside[segment.start : segment.stop] = True
    assert int(inside.sum()) == net.count < len(inside)
    assert not net.parameters[~inside].any()


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_memory_format_stays(memory_format: torch.memory_format) -> None:
    model = small_model().to(memory_format=memory_format)
    strides = {key: value.stride() for key, value in model.named_parameters()}
    values = {key: value.clone() for key, value in model.named_parameters()}
    net = FlatModel(model)
    for key, parameter in model.named_parameters():
        assert parameter.stride() == strides[key], key
        assert parameter.grad is not None
        assert parameter.grad.stride() == strides[key], key
        assert torch.equal(parameter, values[key]), key
    step(net)
    net.assert_views()


def test_a_weight_without_a_dense_layout_is_taken_all_the_same() -> None:
    layer = nn.Linear(6, 4)
    layer.weight = nn.Parameter(torch.randn(4, 12)[:, ::2])
    before = layer.weight.detach().clone()
    net = FlatModel(layer)
    assert torch.equal(layer.weight, before)
    layer.weight.data.fill_(1)
    assert int((net.parameters == 1).sum()) >= 24
    net.assert_views()


BREAK: dict[str, Callable[[nn.Module], object]] = {
    "memory format": lambda model: model.to(memory_format=torch.channels_last),
    "dtype": lambda model: model.double(),
    "zero_grad": lambda model: model.zero_grad(),
    "new gradient": lambda model: setattr(model[4].bias, "grad", torch.zeros(3)),
    "new data": lambda model: setattr(model[4].weight, "data", torch.zeros(3, 80)),
}


@pytest.mark.parametrize("name", BREAK)
def test_a_broken_view_is_noticed(name: str) -> None:
    net = FlatModel(small_model())
    net.assert_views()
    BREAK[name](net.module)
    with pytest.raises(AssertionError):
        net.assert_views()


def test_zeroing_gradients_in_place_and_loading_weights_break_nothing() -> None:
    net, other = FlatModel(small_model()), small_model()
    net.module.zero_grad(set_to_none=False)
    net.module.load_state_dict(other.state_dict())
    net.assert_views()
    for (key, parameter), source in zip(net.module.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(parameter, source), key


def test_a_tied_weight_lies_in_the_buffer_once_and_stays_tied() -> None:
    model = Tied()
    reference = copy.deepcopy(model)
    net = FlatModel(model)
    assert [segment.name for segment in net.segments] == ["one.weight", "one.bias", "two.bias"]
    assert model.two.weight is model.one.weight
    inputs = torch.randn(4, 5)
    for each in (model, reference):
        each(inputs).square().sum().backward()
    assert reference.one.weight.grad is not None
    torch.testing.assert_close(net.views(net.gradients)[0][1], reference.one.weight.grad)
    net.parameters.zero_()
    assert not model.two.weight.any()
    net.detect_unused()
    assert net.decay_mask(spare=True).sum() == 25


def test_only_trainable_parameters_enter() -> None:
    model = small_model()
    model[0].requires_grad_(False)
    kept = model[0].weight.data_ptr()
    net = FlatModel(model)
    assert [segment.name for segment in net.segments] == ["1.weight", "1.bias", "2.weight", "4.weight", "4.bias"]
    assert model[0].weight.data_ptr() == kept
    before = model[0].weight.clone()
    net.parameters.fill_(3)
    step(net)
    assert torch.equal(model[0].weight, before)
    assert model[0].weight.grad is None
    assert net.count == 5 + 5 + 1 + 240 + 3


def test_a_net_of_which_nothing_trains_is_possible() -> None:
    net = FlatModel(small_model().requires_grad_(False))
    assert net.count == len(net.parameters) == len(net.segments) == 0
    net.assert_views()


def test_the_decay_mask_knows_weights_norms_biases_and_what_got_no_gradient() -> None:
    model = small_model()
    model.register_module("unused", nn.Linear(4, 4))
    model.forward = nn.Sequential(*list(model)[:5]).forward
    net = FlatModel(model)
    with pytest.raises(AssertionError):
        net.decay_mask(spare=True)
    step(net)
    masks = {spare: net.decay_mask(spare=spare) for spare in (True, False)}
    decaying = {
        spare: {segment.name for segment, view in net.views(mask) if view.all()} for spare, mask in masks.items()
    }
    assert decaying[True] == {"0.weight", "4.weight"}
    assert decaying[False] == {"0.weight", "0.bias", "1.weight", "1.bias", "2.weight", "4.weight", "4.bias"}
    for spare, mask in masks.items():
        sizes = [segment.stop - segment.start for segment in net.segments if segment.name in decaying[spare]]
        assert int(mask.sum()) == sum(sizes)  # nothing in the gaps or elsewhere
    step(net)  # asked again later, it is the first backward pass that counts
    assert torch.equal(net.decay_mask(spare=True), masks[True])


def test_a_norm_over_a_matrix_is_no_weight() -> None:
    net = FlatModel(nn.Sequential(nn.LayerNorm((3, 4)), nn.Flatten(), nn.Linear(12, 2)))
    assert {segment.name for segment in net.segments if segment.is_weight} == {"2.weight"}
    assert {segment.name for segment in net.segments if segment.is_norm} == {"0.weight", "0.bias"}


@pytest.mark.parametrize(
    "layer",
    [
        nn.BatchNorm1d(4),
        nn.BatchNorm2d(4),
        nn.LayerNorm(4),
        nn.GroupNorm(2, 4),
        nn.InstanceNorm2d(4, affine=True),
        nn.RMSNorm(4),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_normalization_layers_are_known(layer: nn.Module) -> None:
    assert is_norm(layer)
    assert not is_norm(nn.Sequential(layer))


def test_weighted_layers_come_in_the_order_of_definition() -> None:
    assert [name for name, _ in weighted_layers(small_model())] == ["0", "4"]
    assert not is_norm(small_model()[0])
