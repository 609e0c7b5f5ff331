import copy
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from dltips.errors import ConfigError
from dltips.nets.flat import FlatModel
from dltips.tips import optimizer
from dltips.tips.optimizer import Optimizer
from dltips.train.snapshot import Snapshot

STEPS = 20
RATE = 0.03


def small_model() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.BatchNorm1d(7), nn.Linear(7, 3)).double()


def batches() -> Iterator[tuple[int, Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    for step in range(STEPS):
        inputs = torch.randn(16, 5, generator=generator, dtype=torch.float64)
        yield step, inputs, torch.randint(3, (16,), generator=generator)


def rates(step: int) -> float:
    """A rate that changes from step to step, as a schedule's does."""
    return RATE * (1 + step % 3) / 2


class PapersLion(torch.optim.Optimizer):
    """Algorithm 2 of Chen et al. 2023, which torch.optim does not have."""

    def __init__(self, parameters: Any, lr: float, betas: tuple[float, float]) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                first, second = group["betas"]
                m = self.state[parameter].setdefault("m", torch.zeros_like(parameter))
                parameter -= group["lr"] * torch.sign(first * m + (1 - first) * parameter.grad)
                m.copy_(second * m + (1 - second) * parameter.grad)


RULES: dict[str, tuple[Callable[[FlatModel], Optimizer], Callable[[Any], torch.optim.Optimizer]]] = {
    "sgd": (
        lambda net: optimizer.sgd(net, lr=RATE, momentum=0.0, nesterov=False),
        lambda parameters: torch.optim.SGD(parameters, lr=RATE),
    ),
    "momentum": (
        lambda net: optimizer.sgd(net, lr=RATE, momentum=0.9, nesterov=False),
        lambda parameters: torch.optim.SGD(parameters, lr=RATE, momentum=0.9),
    ),
    "nesterov": (
        lambda net: optimizer.sgd(net, lr=RATE, momentum=0.8, nesterov=True),
        lambda parameters: torch.optim.SGD(parameters, lr=RATE, momentum=0.8, nesterov=True),
    ),
    "adam": (
        lambda net: optimizer.adam(net, lr=RATE, betas=(0.9, 0.98), epsilon=1e-8),
        lambda parameters: torch.optim.Adam(parameters, lr=RATE, betas=(0.9, 0.98), eps=1e-8),
    ),
    "adam, large epsilon": (
        lambda net: optimizer.adam(net, lr=RATE, betas=(0.8, 0.9), epsilon=0.1),
        lambda parameters: torch.optim.Adam(parameters, lr=RATE, betas=(0.8, 0.9), eps=0.1),
    ),
    "adamw": (
        lambda net: optimizer.adamw(net, lr=RATE, betas=(0.9, 0.999), epsilon=1e-8, weight_decay=0.3),
        lambda parameters: torch.optim.AdamW(parameters, lr=RATE, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.3),
    ),
    "nadam": (
        lambda net: optimizer.nadam(net, lr=RATE, betas=(0.8, 0.95), epsilon=1e-7, momentum_decay=0.1),
        lambda parameters: torch.optim.NAdam(parameters, lr=RATE, betas=(0.8, 0.95), eps=1e-7, momentum_decay=0.1),
    ),
    "lion": (
        lambda net: optimizer.lion(net, lr=RATE, betas=(0.8, 0.95)),
        lambda parameters: PapersLion(parameters, lr=RATE, betas=(0.8, 0.95)),
    ),
    "rmsprop": (
        lambda net: optimizer.rmsprop(net, lr=RATE, alpha=0.95, epsilon=1e-7, momentum=0.0),
        lambda parameters: torch.optim.RMSprop(parameters, lr=RATE, alpha=0.95, eps=1e-7),
    ),
    "rmsprop with momentum": (
        lambda net: optimizer.rmsprop(net, lr=RATE, alpha=0.95, epsilon=1e-7, momentum=0.9),
        lambda parameters: torch.optim.RMSprop(parameters, lr=RATE, alpha=0.95, eps=1e-7, momentum=0.9),
    ),
    "adagrad": (
        lambda net: optimizer.adagrad(net, lr=RATE, epsilon=1e-6),
        lambda parameters: torch.optim.Adagrad(parameters, lr=RATE, eps=1e-6),
    ),
}
CLASSES: dict[str, dict[str, Any]] = {
    "NAdam": {},
    "Adamax": {"betas": [0.8, 0.99]},
    "ASGD": {},
    "Adadelta": {"rho": 0.8},
    "Adafactor": {},
    "Adagrad": {"initial_accumulator_value": 0.5},
    "Adam": {"amsgrad": True},
    "RAdam": {},
    "RMSprop": {"centered": True},
    "Rprop": {},
    "SGD": {"momentum": 0.9, "dampening": 0.5},
}


def torch_rule(cls: str, options: dict[str, Any]) -> Callable[[FlatModel], Optimizer]:
    return lambda net: optimizer.torch_class(net, cls=cls, lr=RATE, options=options)


def training(net: FlatModel, rule: Optimizer) -> Any:
    """As much of a training as a snapshot looks at."""
    return SimpleNamespace(net=net, optimizer=rule, schedule=SimpleNamespace(state={}))


def descend(net: FlatModel, inputs: Tensor, targets: Tensor) -> None:
    """The loop's part before a rule's step."""
    net.gradients.zero_()
    functional.cross_entropy(net.module(inputs), targets).backward()
    net.detect_unused()


@pytest.mark.parametrize("name", RULES)
def test_each_rule_is_torchs_step_by_step(name: str) -> None:
    ours, theirs = RULES[name]
    model = small_model()
    reference = copy.deepcopy(model)
    net = FlatModel(model)
    rule, expected = ours(net), theirs(reference.parameters())
    assert rule.learning_rate == RATE
    for step, inputs, targets in batches():
        descend(net, inputs, targets)
        rule.step(rates(step))
        expected.zero_grad()
        functional.cross_entropy(reference(inputs), targets).backward()
        expected.param_groups[0]["lr"] = rates(step)
        expected.step()
        for (key, parameter), other in zip(model.named_parameters(), reference.parameters(), strict=True):
            torch.testing.assert_close(parameter, other, rtol=1e-9, atol=1e-11, msg=lambda text, k=key: f"{k}: {text}")
    net.assert_views()


@pytest.mark.parametrize("cls", CLASSES)
def test_a_class_of_torch_works_on_the_flat_buffer_as_on_a_tensor_of_its_own(cls: str) -> None:
    net = FlatModel(small_model())
    start = net.parameters.clone()
    rule = torch_rule(cls, CLASSES[cls])(net)
    assert torch.equal(net.parameters, start)
    alone = nn.Parameter(start)
    expected = getattr(torch.optim, cls)([alone], lr=RATE, **CLASSES[cls])
    for _, inputs, targets in batches():
        descend(net, inputs, targets)
        alone.grad = net.gradients.clone()
        rule.step(RATE)
        expected.step()
        torch.testing.assert_close(net.parameters, alone.detach(), rtol=1e-9, atol=1e-11)
    net.assert_views()


@pytest.mark.parametrize("cls", ["NAdam", "Adamax"])
def test_a_class_of_torch_follows_the_schedule(cls: str) -> None:
    net = FlatModel(small_model())
    rule = torch_rule(cls, {})(net)
    for step, inputs, targets in batches():
        descend(net, inputs, targets)
        before = net.parameters.clone()
        rule.step(0.0 if step % 2 else RATE)
        assert torch.equal(net.parameters, before) == bool(step % 2)


@pytest.mark.parametrize("name", [*RULES, *CLASSES])
def test_a_rules_state_is_all_that_it_remembers(name: str) -> None:
    make = RULES[name][0] if name in RULES else torch_rule(name, CLASSES[name])
    one, two = FlatModel(small_model()), FlatModel(small_model())
    rule, continued = make(one), make(two)
    for step, inputs, targets in batches():
        if step == STEPS // 2:
            # the second net and rule take over what a checkpoint would hold of the first ones
            Snapshot.take(training(one, rule), [], 0, 0.0, None).put_back(training(two, continued), [])
        for net, chosen in ((one, rule), (two, continued)):
            if net is one or step >= STEPS // 2:
                descend(net, inputs, targets)
                chosen.step(rates(step))
    assert torch.equal(one.parameters, two.parameters)


@pytest.mark.parametrize("name", RULES)
def test_the_gaps_between_parameters_stay_zero(name: str) -> None:
    net = FlatModel(small_model())
    rule = RULES[name][0](net)
    for step, inputs, targets in batches():
        descend(net, inputs, targets)
        rule.step(rates(step))
    gaps = torch.ones_like(net.parameters, dtype=torch.bool)
    for segment in net.segments:
        gaps[segment.start : segment.stop] = False
    assert gaps.any()
    assert not net.parameters[gaps].any()


def test_adamw_does_not_decay_what_got_no_gradient() -> None:
    model = small_model()
    model.register_module("unused", nn.Linear(2, 2).double())
    model.forward = nn.Sequential(*list(model)[:4]).forward
    net = FlatModel(model)
    kept = model.get_parameter("unused.weight").detach().clone()
    rule = RULES["adamw"][0](net)
    for step, inputs, targets in batches():
        descend(net, inputs, targets)
        rule.step(rates(step))
    assert torch.equal(model.get_parameter("unused.weight"), kept)


@pytest.mark.parametrize(
    ("cls", "remedy"), [("LBFGS", "choose another"), ("SparseAdam", "choose another"), ("Muon", "write optimizer=muon")]
)
def test_a_class_that_cannot_work_on_a_flat_tensor_is_refused(cls: str, remedy: str) -> None:
    with pytest.raises(ConfigError, match=rf"^optimizer\.cls: {cls} .*; {remedy}"):
        torch_rule(cls, {})(FlatModel(small_model()))


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        ("Nadam", r"^optimizer\.cls: 'Nadam' .*; did you mean NAdam\?$"),
        ("Optimizer", r"^optimizer\.cls: 'Optimizer' .*torch\.optim"),
        ("lr_scheduler", r"^optimizer\.cls: 'lr_scheduler' .*torch\.optim"),
        ("__import__", r"^optimizer\.cls: '__import__' .*torch\.optim"),
    ],
)
def test_what_is_no_optimizer_is_refused(cls: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        torch_rule(cls, {})(FlatModel(small_model()))


@pytest.mark.parametrize(
    ("cls", "options"),
    [
        ("NAdam", {"momentum": 0.9}),
        ("Adam", {"lr": 0.1}),
        ("Adam", {"betas": [0.9]}),
        ("Adam", {"betas": [0.9, 1.5]}),
        ("Adam", {"betas": "ab"}),
        ("Adam", {"weight_decay": -1}),
        ("Adam", {"weight_decay": None}),
        ("Adam", {"fused": True, "foreach": True}),
        ("Adam", {"capturable": True}),  # noticed in the first step: not on a CPU
    ],
)
def test_options_that_the_class_refuses_are_the_users_mistake(cls: str, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=rf"^optimizer\.options: {cls} .*: ") as caught:
        torch_rule(cls, options)(FlatModel(small_model()))
    assert "\n" not in str(caught.value)


def test_nesterov_without_momentum_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^optimizer\.nesterov: true .*; set optimizer\.momentum=0\.9$"):
        optimizer.sgd(FlatModel(small_model()), lr=RATE, momentum=0.0, nesterov=True)


@pytest.mark.parametrize("betas", [(0.9,), (0.9, 0.99, 0.999), (), (0.9, 1.0)])
def test_betas_are_two_numbers_below_1(betas: tuple[float, ...]) -> None:
    for make in (
        lambda net: optimizer.adam(net, lr=RATE, betas=betas, epsilon=1e-8),
        lambda net: optimizer.adamw(net, lr=RATE, betas=betas, epsilon=1e-8, weight_decay=0.0),
        lambda net: optimizer.nadam(net, lr=RATE, betas=betas, epsilon=1e-8, momentum_decay=0.0),
        lambda net: optimizer.lion(net, lr=RATE, betas=betas),
    ):
        with pytest.raises(ConfigError, match=r"^optimizer\.betas: \[.*\] .*below 1$"):
            make(FlatModel(small_model()))
