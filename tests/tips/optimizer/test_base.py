"""optimizer.rates: layers, parameters and biases at rates of their own."""

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from dltips.errors import ConfigError
from dltips.main import main
from dltips.nets.flat import FlatModel
from dltips.tips import optimizer
from dltips.tips.model import mlp
from dltips.tips.optimizer import Optimizer, with_rates
from dltips.tips.regularization import WeightDecay

RATE = 0.05
RULES: dict[str, tuple[Callable[[FlatModel], Optimizer], Callable[[Any], torch.optim.Optimizer]]] = {
    "sgd": (
        lambda net: optimizer.sgd(net, lr=RATE, momentum=0.9, nesterov=True),
        lambda groups: torch.optim.SGD(groups, lr=RATE, momentum=0.9, nesterov=True),
    ),
    "adamw": (
        lambda net: optimizer.adamw(net, lr=RATE, betas=(0.9, 0.99), epsilon=1e-8, weight_decay=0.3),
        lambda groups: torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.3),
    ),
}


def small_model() -> nn.Module:
    return mlp((4,), 3, nn.Tanh, widths=(6, 5), norm="batch").double()


def descend(net: FlatModel, reference: nn.Module, seed: int) -> None:
    """One backward pass of both on the same batch."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(12, 4, generator=generator, dtype=torch.float64)
    targets = torch.randint(3, (12,), generator=generator)
    net.gradients.zero_()
    reference.zero_grad()
    for model in (net.module, reference):
        functional.cross_entropy(model(inputs), targets).backward()
    net.detect_unused()


def factors(model: nn.Module, rates: Mapping[str, Any]) -> dict[str, float]:
    """Of each parameter, as the rule applies them."""
    net = FlatModel(model)
    with_rates(optimizer.sgd(net, lr=RATE, momentum=0.0, nesterov=False), net, rates)
    assert net.rate_factors is not None
    return {segment.name: float(view.flatten()[0]) for segment, view in net.views(net.rate_factors)}


@pytest.mark.parametrize("name", RULES)
def test_rates_are_torchs_parameter_groups_step_by_step(name: str) -> None:
    ours, theirs = RULES[name]
    model = small_model()
    reference, net = copy.deepcopy(model), FlatModel(model)
    rule = with_rates(ours(net), net, {"hidden1": 0.1, "hidden2.layer": 0.0, "head": 10, "bias": 2.0})
    wanted = {"hidden1.layer.weight": 0.1, "hidden1.norm.weight": 0.1, "hidden2.layer.weight": 0.0, "head.weight": 10.0}
    groups = [
        {"params": [parameter], "factor": 2.0 if key.endswith("bias") else wanted.get(key, 1.0)}
        for key, parameter in reference.named_parameters()
    ]
    expected = theirs(groups)
    for step in range(12):
        rate = RATE * (1 + step % 3) / 2
        descend(net, reference, step)
        rule.step(rate)
        for group in expected.param_groups:
            group["lr"] = rate * group["factor"]
        expected.step()
        for (key, parameter), other in zip(model.named_parameters(), reference.parameters(), strict=True):
            torch.testing.assert_close(parameter, other, rtol=1e-9, atol=1e-11, msg=lambda text, k=key: f"{k}: {text}")
    net.assert_views()


def test_regularization_weight_decay_decays_each_layer_at_its_own_rate() -> None:
    model = small_model()
    reference, net = copy.deepcopy(model), FlatModel(model)
    rule = with_rates(optimizer.adam(net, lr=RATE, betas=(0.9, 0.99), epsilon=1e-8), net, {"hidden1": 0.1, "head": 0})
    decay = WeightDecay(strength=0.3, spare=False)
    groups = [
        {"params": [p], "lr": RATE * (0.1 if key.startswith("hidden1") else 0.0 if key.startswith("head") else 1.0)}
        for key, p in reference.named_parameters()
    ]
    expected = torch.optim.AdamW(groups, betas=(0.9, 0.99), weight_decay=0.3)
    for step in range(8):
        descend(net, reference, step)
        net.learning_rate = RATE
        decay.on_gradient(net)
        rule.step(RATE)
        expected.step()
    for parameter, other in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(parameter, other, rtol=1e-9, atol=1e-11)


def test_the_longest_name_decides_whatever_the_order_and_bias_before_all() -> None:
    for order in (1, -1):
        rates = dict([("hidden1", 2.0), ("hidden1.layer", 3.0), ("hidden1.layer.weight", 4.0), ("bias", 5.0)][::order])
        found = factors(small_model(), rates)
        assert found["hidden1.layer.weight"] == 4.0
        assert found["hidden1.norm.weight"] == 2.0
        assert found["hidden1.norm.bias"] == found["head.bias"] == 5.0
        assert found["hidden2.layer.weight"] == found["head.weight"] == 1.0


def test_a_nested_mapping_is_the_full_name() -> None:
    nested = factors(small_model(), {"hidden1": {"layer": {"weight": 3}, "norm": 2}})
    assert nested == factors(small_model(), {"hidden1.layer.weight": 3, "hidden1.norm": 2})
    assert nested["hidden1.layer.weight"] == 3.0 and nested["hidden1.norm.weight"] == 2.0


def test_a_recurrent_layers_biases_are_biases() -> None:
    found = factors(nn.Sequential(nn.LSTM(3, 2), nn.Linear(2, 2)), {"bias": 0.5})
    assert {name for name, factor in found.items() if factor == 0.5} == {"0.bias_ih_l0", "0.bias_hh_l0", "1.bias"}


def test_no_rates_leave_the_rule_as_it_is() -> None:
    net = FlatModel(small_model())
    rule = optimizer.sgd(net, lr=RATE, momentum=0.9, nesterov=False)
    assert with_rates(rule, net, {}) is rule
    assert net.rate_factors is None


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ({"hed": 2}, r"optimizer\.rates\.hed: .*parameter.*; did you mean head\?"),
        ({"hidden1": {"laier": 2}}, r"optimizer\.rates\.hidden1\.laier: .*parameter.*; did you mean"),
        ({"hidden": 2}, r"optimizer\.rates\.hidden: .*parameter.*; did you mean hidden"),
        ({"head": -1}, r"optimizer\.rates\.head: -1\.0 .*at least 0"),
        ({"head": "fast"}, r"optimizer\.rates\.head: 'fast' .*number"),
        ({"head": {}}, r"optimizer\.rates\.head: \{\} .*number"),
        ({"head": None}, r"optimizer\.rates\.head: null .*number"),
    ],
)
def test_a_rate_that_fits_nothing_or_is_none_is_refused(rates: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        factors(small_model(), rates)


def test_a_net_without_biases_says_so() -> None:
    with pytest.raises(ConfigError, match=r"^optimizer\.rates\.bias: .*parameter"):
        factors(nn.Sequential(nn.Linear(3, 2, bias=False)), {"bias": 2})


def test_rates_are_typed_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    short = ["device=cpu", "epochs=1", "data.subset=100", "log.tensorboard=false", "log.pictures=none"]
    assert (
        main(["train", *short, "optimizer.rates.head=0", "optimizer.rates.hidden1.layer=0", "optimizer.rates.bias=0"])
        == 0
    )
    assert main(["train", *short, "epochs=0"]) == 0
    paths = sorted(tmp_path.glob("outputs/*/last.pt"))
    trained, start = (torch.load(path, weights_only=True)["model"] for path in paths)
    moved = {
        name for name in start if name.endswith(("weight", "bias")) and not torch.equal(start[name], trained[name])
    }
    assert moved == {"hidden1.norm.weight", "hidden2.layer.weight", "hidden2.norm.weight"}
