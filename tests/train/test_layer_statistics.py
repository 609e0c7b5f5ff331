"""Layer statistics: what they say of a net that is known, and that they leave it as it was."""

import contextlib
from collections import OrderedDict

import pytest
import torch
from torch import nn
from torch.nn import functional

from dltips import metrics
from dltips.nets.flat import FlatModel
from dltips.train.layer_statistics import LayerStatistics


def watched(activation: nn.Module) -> tuple[FlatModel, LayerStatistics, torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    model = nn.Sequential(
        OrderedDict(first=nn.Linear(5, 8), norm=nn.BatchNorm1d(8), activation=activation, head=nn.Linear(8, 3))
    )
    net = FlatModel(model)
    inputs, targets = torch.randn(64, 5), torch.randint(0, 3, (64,))
    return net, LayerStatistics(inputs, targets, net.module, contextlib.nullcontext), inputs, targets


def test_mean_and_variance_are_those_of_the_output_in_eval_mode() -> None:
    net, statistics, inputs, _ = watched(nn.ReLU())
    net.module.train()
    found = statistics.measure(net)
    assert net.module.training
    first = net.module.get_submodule("first")(inputs).detach()
    assert found["layers/first/mean"] == pytest.approx(float(first.mean()), abs=1e-6)
    assert found["layers/first/variance"] == pytest.approx(float(first.var(correction=0)), rel=1e-5)


def test_the_variance_of_a_large_layer_is_right_to_five_digits() -> None:
    torch.manual_seed(1)
    net = FlatModel(nn.Sequential(OrderedDict(conv=nn.Conv2d(1, 32, 1), flatten=nn.Flatten())))
    inputs = torch.randn(16, 1, 128, 128)
    statistics = LayerStatistics(inputs, torch.zeros(16).long(), net.module, contextlib.nullcontext)
    exact = net.module.get_submodule("conv")(inputs).detach().double().var(correction=0)
    assert statistics.measure(net)["layers/conv/variance"] == pytest.approx(float(exact), rel=1e-5)


def test_dead_is_the_share_of_units_that_are_zero_for_every_sample() -> None:
    net, statistics, _, _ = watched(nn.ReLU())
    with torch.no_grad():
        net.module.get_submodule("norm").bias[:6] = -100.0  # six of eight units never fire
    assert statistics.measure(net)["layers/activation/dead"] == 6 / 8


def test_dead_channels_are_counted_at_every_place() -> None:
    model = nn.Sequential(OrderedDict(conv=nn.Conv2d(1, 4, 3), activation=nn.ReLU(), flatten=nn.Flatten()))
    net = FlatModel(model)
    with torch.no_grad():
        model.get_submodule("conv").bias[0] = -100.0
        model.get_submodule("conv").bias[1:] = 100.0
    statistics = LayerStatistics(torch.rand(6, 1, 5, 5), torch.zeros(6).long(), net.module, contextlib.nullcontext)
    assert statistics.measure(net)["layers/activation/dead"] == 1 / 4


@pytest.mark.parametrize(("activation", "low"), [(nn.Tanh(), -1.0), (nn.Sigmoid(), 0.0)])
def test_saturated_is_the_share_of_outputs_within_a_hundredth_of_a_bound(activation: nn.Module, low: float) -> None:
    net, statistics, inputs, _ = watched(activation)
    with torch.no_grad():
        net.module.get_submodule("norm").weight.fill_(4.0)
    found = statistics.measure(net)["layers/activation/saturated"]
    net.module.eval()
    outputs = net.module[:3](inputs)
    margin = 0.01 * (1.0 - low)
    expected = ((outputs < low + margin) | (outputs > 1.0 - margin)).double().mean()
    assert 0 < found < 1 and found == pytest.approx(float(expected))
    assert "layers/activation/saturated" not in watched(nn.ReLU())[1].measure(watched(nn.ReLU())[0])


def test_the_gradient_norm_is_that_of_the_probe_batch() -> None:
    net, statistics, inputs, targets = watched(nn.ReLU())
    found = statistics.measure(net)
    net.module.eval()
    loss = functional.cross_entropy(net.module(inputs), targets)
    (gradient,) = torch.autograd.grad(loss, [net.module.get_parameter("head.weight")])
    assert found["layers/head/gradient_norm"] == pytest.approx(float(gradient.norm()), rel=1e-5)


class Partly(nn.Module):
    """Has a layer that its forward pass leaves out."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.unused = nn.Linear(5, 3), nn.Linear(5, 3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.head(inputs)
        return outputs


def test_a_layer_that_takes_no_part_has_a_gradient_of_0() -> None:
    net = FlatModel(Partly())
    statistics = LayerStatistics(torch.randn(6, 5), torch.zeros(6).long(), net.module, contextlib.nullcontext)
    found = statistics.measure(net)
    assert found["layers/unused/gradient_norm"] == 0.0 < found["layers/head/gradient_norm"]
    assert "layers/unused/mean" not in found


def test_the_update_ratio_is_that_of_the_last_step() -> None:
    net, statistics, _, _ = watched(nn.ReLU())
    assert "layers/head/update_ratio" not in statistics.measure(net)
    statistics.before_last_step(net)
    weight = net.module.get_parameter("head.weight")
    step = 0.01 * torch.ones_like(weight)
    with torch.no_grad():
        weight.add_(step)
    expected = float(step.norm() / weight.detach().norm())
    assert statistics.measure(net)["layers/head/update_ratio"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.PReLU(init=1e-3), nn.Tanh()])
def test_sparsity_is_the_share_of_outputs_up_to_a_hundredth_of_their_root_mean_square(activation: nn.Module) -> None:
    net, statistics, inputs, _ = watched(activation)
    found = statistics.measure(net)["layers/activation/sparsity"]
    net.module.eval()
    outputs = net.module[:3](inputs).detach().double()
    expected = (outputs.abs() <= 0.01 * outputs.square().mean().sqrt()).double().mean()
    assert found == pytest.approx(float(expected))
    assert (found > 0.4) == (not isinstance(activation, nn.Tanh))


def test_an_activation_that_gives_nothing_is_sparse_throughout() -> None:
    net, statistics, _, _ = watched(nn.ReLU())
    with torch.no_grad():
        net.module.get_submodule("norm").bias.fill_(-100.0)
    assert statistics.measure(net)["layers/activation/sparsity"] == 1


def weighted(kind: nn.Module, weight: torch.Tensor) -> dict[str, float]:
    """The statistics of a layer with these weights."""
    net = FlatModel(nn.Sequential(OrderedDict(layer=kind, flatten=nn.Flatten())))
    with torch.no_grad():
        net.module.get_submodule("layer").weight.copy_(weight)
    size = (4, weight.shape[1], *weight.shape[2:])
    statistics = LayerStatistics(torch.randn(size), torch.zeros(4).long(), net.module, contextlib.nullcontext)
    found = statistics.measure(net)
    return {name: found[f"layers/layer/{name}"] for name in ("near_zero", "positive", "unit_norm_spread")}


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4])  # relative: the scale does not matter
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_shares_of_weights_and_the_spread_of_units_are_those_of_the_definition(
    scale: float, layout: torch.memory_format
) -> None:
    weight = scale * torch.randn(6, 3, 5, 5) * torch.arange(1, 7).reshape(-1, 1, 1, 1)
    weight[torch.rand(weight.shape) < 0.3] *= 1e-4
    weight[torch.rand(weight.shape) < 0.2] = 0.0
    found = weighted(nn.Conv2d(3, 6, 5).to(memory_format=layout), weight)
    exact = weight.double()
    near = exact.abs() <= 0.01 * exact.square().mean().sqrt()
    norms = exact.flatten(1).norm(dim=1)
    assert found["near_zero"] == pytest.approx(float(near.double().mean())) != 0
    assert found["positive"] == pytest.approx(float((exact > 0).double().mean()))
    assert found["unit_norm_spread"] == pytest.approx(float(norms.std(correction=0) / norms.mean()), rel=1e-5)


def test_weights_that_are_all_0_are_near_0_not_positive_and_even() -> None:
    assert weighted(nn.Linear(5, 7), torch.zeros(7, 5)) == {"near_zero": 1, "positive": 0, "unit_norm_spread": 0}


def test_units_of_one_norm_are_even() -> None:
    found = weighted(nn.Linear(5, 7), functional.normalize(torch.randn(7, 5), dim=1))
    assert found["unit_norm_spread"] == pytest.approx(0, abs=1e-6)


def test_half_of_normally_distributed_weights_are_positive_and_few_near_0() -> None:
    found = weighted(nn.Linear(500, 400), torch.randn(400, 500))
    assert found["positive"] == pytest.approx(0.5, abs=0.005)
    assert found["near_zero"] == pytest.approx(0.00798, abs=0.001)  # P(|z| < 0.01)


def test_every_statistic_is_in_the_table_of_metrics() -> None:
    net, statistics, _, _ = watched(nn.Tanh())
    statistics.before_last_step(net)
    found = {name.rpartition("/")[2] for name in statistics.measure(net)}
    assert found == {name.rpartition("/")[2] for name in metrics.names("layer")}


def test_nothing_in_the_net_has_changed_afterwards() -> None:
    net, statistics, _, _ = watched(nn.ReLU())
    before = {name: value.clone() for name, value in net.module.state_dict().items()}
    random = torch.get_rng_state()
    statistics.measure(net)
    assert all(torch.equal(value, before[name]) for name, value in net.module.state_dict().items())
    assert not net.gradients.any()
    assert torch.equal(torch.get_rng_state(), random)
    net.assert_views()
