import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from dltips.errors import ConfigError
from dltips.nets.flat import FlatModel
from dltips.tips import optimizer
from dltips.tips.regularization import (
    L1,
    L2,
    ClipGradient,
    Elastic,
    ExponentialMovingAverage,
    MaxNorm,
    Nothing,
    StochasticWeightAveraging,
    WeightDecay,
    regularization,
)

HOOKS = ("plan", "prepare", "criterion", "on_gradient", "after_step", "end_epoch", "swap", "after_epoch")


class Small(nn.Module):
    """A filter bank, a norm, a matrix, their biases, and a matrix that takes no part."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(2, 6, 3)
        self.norm = nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 3)
        self.unused = nn.Linear(6, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.head(torch.tanh(self.norm(self.convolution(inputs))).mean((2, 3)))
        return outputs


WEIGHTS = {"convolution.weight", "head.weight"}


def small_net(dtype: torch.dtype = torch.float64) -> FlatModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Small()
    # no parameter at a special value
    for parameter in model.parameters():
        parameter.data += 0.01
    return FlatModel(model.to(dtype))


def loss_of(model: nn.Module, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    like = next(model.parameters())
    inputs = torch.randn(16, 2, 5, 5, generator=generator, dtype=like.dtype)
    return functional.cross_entropy(model(inputs), torch.randint(3, (16,), generator=generator))


def backward(net: FlatModel, seed: int = 0) -> None:
    net.gradients.zero_()
    loss_of(net.module, seed).backward()
    net.detect_unused()


def train(net: FlatModel, regularizer: Any, steps: int, rate: float = 0.1) -> None:
    """The loop's steps with plain gradient descent."""
    rule = optimizer.sgd(net, lr=rate, momentum=0.0, nesterov=False)
    for step in range(steps):
        net.learning_rate = rate
        backward(net, step)
        for hook in ("on_gradient", "after_step"):
            if hook == "after_step":
                rule.step(rate)
            if hasattr(regularizer, hook):
                getattr(regularizer, hook)(net)


def test_none_has_no_hook_at_all() -> None:
    assert [hook for hook in HOOKS if hasattr(Nothing(), hook)] == []
    for name, kind in regularization.tips.items():
        assert name == "none" or any(hasattr(kind, hook) for hook in HOOKS), name


@pytest.mark.parametrize(
    ("make", "penalty"),
    [
        (lambda: L1(strength=0.3), lambda weight: 0.3 * weight.abs().sum()),
        (lambda: L2(strength=0.3), lambda weight: 0.3 / 2 * weight.square().sum()),
        (
            lambda: Elastic(strength=0.3, l1_ratio=0.2),
            lambda weight: 0.3 * (0.2 * weight.abs().sum() + 0.8 / 2 * weight.square().sum()),
        ),
    ],
)
def test_penalties_add_the_gradient_of_what_they_add_to_the_objective(
    make: Callable[[], L1 | L2 | Elastic], penalty: Callable[[Tensor], Tensor]
) -> None:
    net, regularizer = small_net(), make()
    for seed in range(3):  # the mask is kept between steps
        reference = copy.deepcopy(net.module)
        reference.zero_grad()
        used = [parameter for name, parameter in reference.named_parameters() if name in WEIGHTS]
        (loss_of(reference, seed) + sum(map(penalty, used))).backward()
        backward(net, seed)
        before = net.gradients.clone()
        regularizer.on_gradient(net)
        for (name, parameter), other in zip(net.module.named_parameters(), reference.parameters(), strict=True):
            expected = torch.zeros_like(parameter) if other.grad is None else other.grad
            torch.testing.assert_close(parameter.grad, expected, msg=lambda text, n=name: f"{n}: {text}")
        changed = {segment.name for segment, view in net.views(net.gradients - before) if view.any()}
        assert changed == WEIGHTS


@pytest.mark.parametrize(("ratio", "other"), [(1.0, L1), (0.0, L2)])
def test_elastic_reaches_from_l2_to_l1(ratio: float, other: type[L1] | type[L2]) -> None:
    nets = small_net(), small_net()
    for net, penalty in zip(nets, (Elastic(strength=0.3, l1_ratio=ratio), other(strength=0.3)), strict=True):
        train(net, penalty, 3)
    assert torch.equal(nets[0].parameters, nets[1].parameters)


def test_l1_leaves_weights_of_zero_alone() -> None:
    net = small_net()
    backward(net)
    net.parameters.zero_()
    net.gradients.zero_()
    L1(strength=1.0).on_gradient(net)
    assert not net.gradients.any()


def test_weight_decay_is_decoupled() -> None:
    net = small_net()
    backward(net)
    before, gradients = net.parameters.clone(), net.gradients.clone()
    net.learning_rate = 0.2
    WeightDecay(strength=0.5, spare=True).on_gradient(net)
    assert torch.equal(net.gradients, gradients)
    for (segment, now), (_, then) in zip(net.views(net.parameters), net.views(before), strict=True):
        torch.testing.assert_close(now, then * (1 - 0.2 * 0.5) if segment.name in WEIGHTS else then)


@pytest.mark.parametrize(("spare", "decayed"), [(True, WEIGHTS), (False, None)])
def test_weight_decay_spares_norms_biases_and_what_got_no_gradient(spare: bool, decayed: set[str] | None) -> None:
    net = small_net()
    before = net.parameters.clone()
    backward(net)
    net.learning_rate = 0.1
    WeightDecay(strength=0.5, spare=spare).on_gradient(net)
    changed = {segment.name for segment, view in net.views(net.parameters - before) if view.any()}
    every = {segment.name for segment in net.segments if not segment.name.startswith("unused")}
    assert changed == (every if decayed is None else decayed)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_weight_decay_under_plain_descent_is_torchs_sgd_only_without_momentum(momentum: float) -> None:
    net = small_net()
    reference = copy.deepcopy(net.module)
    theirs = torch.optim.SGD(
        [
            {"params": [p for name, p in reference.named_parameters() if name in WEIGHTS], "weight_decay": 0.05},
            {"params": [p for name, p in reference.named_parameters() if name not in WEIGHTS], "weight_decay": 0.0},
        ],
        lr=0.1,
        momentum=momentum,
    )
    rule = optimizer.sgd(net, lr=0.1, momentum=momentum, nesterov=False)
    decay = WeightDecay(strength=0.05, spare=True)
    for seed in range(10):
        backward(net, seed)
        net.learning_rate = 0.1
        decay.on_gradient(net)
        rule.step(0.1)
        theirs.zero_grad()
        loss_of(reference, seed).backward()
        theirs.step()
    ours = torch.cat([parameter.detach().flatten() for parameter in net.module.parameters()])
    expected = torch.cat([parameter.detach().flatten() for parameter in reference.parameters()])
    # coupled decay goes through the momentum, decoupled decay does not
    assert torch.allclose(ours, expected, rtol=1e-9) == (momentum == 0)


def test_weight_decay_before_adam_is_torchs_adamw() -> None:
    net = small_net()
    reference = copy.deepcopy(net.module)
    used = [parameter for name, parameter in reference.named_parameters() if not name.startswith("unused")]
    theirs = torch.optim.AdamW(used, lr=0.01, weight_decay=0.3)
    rule = optimizer.adam(net, lr=0.01, betas=(0.9, 0.999), epsilon=1e-8)
    decay = WeightDecay(strength=0.3, spare=False)
    for seed in range(10):
        backward(net, seed)
        net.learning_rate = 0.01
        decay.on_gradient(net)
        rule.step(0.01)
        theirs.zero_grad()
        loss_of(reference, seed).backward()
        theirs.step()
    for parameter, other in zip(net.module.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(parameter, other, rtol=1e-8, atol=1e-10)


def test_the_order_of_l2_and_weight_decay_is_that_of_the_list() -> None:
    # both look at the weights before the step: decay in the list's first place is seen by l2
    first, second = small_net(), small_net()
    for net, hooks in ((first, (L2, WeightDecay)), (second, (WeightDecay, L2))):
        backward(net)
        net.learning_rate = 0.1
        for kind in hooks:
            (L2(strength=0.1) if kind is L2 else WeightDecay(strength=0.5, spare=True)).on_gradient(net)
    assert torch.equal(first.parameters, second.parameters)
    assert not torch.equal(first.gradients, second.gradients)


def unit_norms(net: FlatModel) -> Tensor:
    return torch.cat(
        [p.detach().flatten(1).norm(dim=1) for name, p in net.module.named_parameters() if name in WEIGHTS]
    )


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_max_norm_holds_after_each_of_many_steps(memory_format: torch.memory_format) -> None:
    module = small_net(torch.float32).module.to(memory_format=memory_format)
    net, free = FlatModel(copy.deepcopy(module)), FlatModel(copy.deepcopy(module))
    bound = MaxNorm(limit=0.5)
    for _ in range(40):
        train(net, bound, 1, rate=2.0)
        assert float(unit_norms(net).max()) <= 0.5 * (1 + 1e-6)
    train(free, None, 40, rate=2.0)
    assert float(unit_norms(free).max()) > 0.75  # so that there was something to hold
    net.assert_views()


def test_max_norm_scales_units_that_are_too_long_and_leaves_the_others_alone() -> None:
    net = small_net()
    before = copy.deepcopy(net.module)
    norms = unit_norms(net)
    limit = float(norms.median())
    MaxNorm(limit=limit).after_step(net)
    for (name, now), then in zip(net.module.named_parameters(), before.parameters(), strict=True):
        if now.dim() < 2:
            assert torch.equal(now, then), name
            continue
        for unit, original in zip(now, then, strict=True):
            if original.norm() <= limit:
                assert torch.equal(unit, original), name
            else:
                torch.testing.assert_close(unit, original * (limit / original.norm()))
    assert (norms > limit).any()
    assert (norms < limit).any()


def test_max_norm_without_weights_to_bind_is_refused() -> None:
    frozen = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).requires_grad_(False)
    for model in (nn.Identity(), nn.BatchNorm1d(3), frozen):
        with pytest.raises(
            ConfigError, match=r"^regularization.max_norm: this model trains no weights .*; leave max_n"
        ):
            MaxNorm(limit=1.0).prepare(model)
    bound = MaxNorm(limit=1.0)
    bound.prepare(model := nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)))
    model.get_parameter("0.weight").requires_grad_(False)  # fine-tuning comes later
    with pytest.raises(ConfigError, match=r"^regularization.max_norm: this model trains no weights"):
        bound.after_step(FlatModel(model))


def test_max_norm_takes_a_unit_of_zeros() -> None:
    net = small_net()
    net.parameters.zero_()
    MaxNorm(limit=1.0).after_step(net)
    assert not net.parameters.any()


@pytest.mark.parametrize("norm", [0.05, 1.0, 1e6])
def test_clip_gradient_is_torchs(norm: float) -> None:
    net = small_net()
    backward(net)
    reference = [nn.Parameter(torch.zeros_like(view)) for _, view in net.views(net.gradients)]
    for parameter, (_, view) in zip(reference, net.views(net.gradients), strict=True):
        parameter.grad = view.clone()
    before = net.gradients.clone()
    total = nn.utils.clip_grad_norm_(reference, norm)
    ClipGradient(norm=norm).on_gradient(net)
    for parameter, (_, view) in zip(reference, net.views(net.gradients), strict=True):
        torch.testing.assert_close(view, parameter.grad)
    assert float(net.gradients.norm()) <= norm
    assert torch.equal(net.gradients, before) == (float(total) < norm)


def test_clip_gradient_takes_a_gradient_of_zero() -> None:
    net = small_net()
    backward(net)
    net.gradients.zero_()
    ClipGradient(norm=1.0).on_gradient(net)
    assert not net.gradients.any()


@pytest.mark.parametrize("decay", [0.0, 0.9, 1.0])
def test_ema_is_the_average_by_hand_and_torchs(decay: float) -> None:
    net, average = small_net(), ExponentialMovingAverage(decay=decay)
    theirs = AveragedModel(net.module, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
    by_hand: Tensor | None = None
    for _ in range(12):
        train(net, None, 1)
        average.after_step(net)
        theirs.update_parameters(net.module)
        now = net.parameters.clone()
        by_hand = now if by_hand is None else decay * by_hand + (1 - decay) * now
        torch.testing.assert_close(average.state["parameters"], by_hand)
    average.swap(net)
    expected = theirs.module.state_dict()
    for name, value in net.module.state_dict().items():
        if name != "norm.num_batches_tracked":  # a count is nothing to average
            torch.testing.assert_close(value, expected[name], msg=lambda text, n=name: f"{n}: {text}")


def test_ema_follows_batch_norms_statistics() -> None:
    net, average = small_net(), ExponentialMovingAverage(decay=0.5)
    means = []
    for _ in range(4):
        train(net, None, 1)
        average.after_step(net)
        means.append(net.module.get_buffer("norm.running_mean").clone())
    expected = means[0]
    for mean in means[1:]:
        expected = 0.5 * expected + 0.5 * mean
    torch.testing.assert_close(average.state["norm.running_mean"], expected)


def test_ema_swapped_twice_is_the_net_as_it_was() -> None:
    net, average = small_net(), ExponentialMovingAverage(decay=0.9)
    before = net.parameters.clone()
    average.swap(net)  # nothing averaged yet: the net stays
    assert torch.equal(net.parameters, before)
    for _ in range(3):
        train(net, average, 1)
    state = {name: value.clone() for name, value in net.module.state_dict().items()}
    kept = {name: value.clone() for name, value in average.state.items()}
    average.swap(net)
    net.assert_views()
    assert not torch.equal(net.module.get_parameter("head.weight"), state["head.weight"])
    assert not torch.equal(net.module.get_buffer("norm.running_var"), state["norm.running_var"])
    average.swap(net)
    assert all(torch.equal(value, state[name]) for name, value in net.module.state_dict().items())
    assert all(torch.equal(value, kept[name]) for name, value in average.state.items())


def test_ema_does_not_change_the_training() -> None:
    averaged, plain = small_net(), small_net()
    train(averaged, ExponentialMovingAverage(decay=0.9), 5)
    train(plain, None, 5)
    assert torch.equal(averaged.parameters, plain.parameters)


def test_swa_is_torchs_average_of_the_weights_at_the_ends_of_epochs() -> None:
    net, average = small_net(), StochasticWeightAveraging(start=3)
    theirs = AveragedModel(net.module, use_buffers=True)
    ends = []
    for epoch in range(1, 8):
        train(net, None, 2)
        average.end_epoch(net)
        ends.append(net.parameters.clone())
        if epoch >= 3:
            theirs.update_parameters(net.module)
            torch.testing.assert_close(average.state["parameters"], torch.stack(ends[2:]).mean(0))
        before = {name: value.clone() for name, value in net.module.state_dict().items()}
        average.swap(net)
        expected = theirs.module.state_dict() if epoch >= 3 else before
        for name, value in net.module.state_dict().items():
            if name != "norm.num_batches_tracked":  # a count is nothing to average
                torch.testing.assert_close(value, expected[name], msg=lambda text, n=name: f"{n}: {text}")
        average.swap(net)
        assert all(torch.equal(value, before[name]) for name, value in net.module.state_dict().items())
    net.assert_views()


def test_swa_has_nothing_to_exchange_before_its_first_epoch() -> None:
    net, average = small_net(), StochasticWeightAveraging(start=2)
    average.end_epoch(net)
    before = net.parameters.clone()
    net.parameters.add_(1)
    average.swap(net)
    assert torch.equal(net.parameters, before + 1)
    assert average.state == {"epochs": 1, "start": 2}


@pytest.mark.parametrize(("epochs", "remedy"), [(9, 6), (1, 1)])
def test_swa_that_would_never_start_is_refused(epochs: int, remedy: int) -> None:
    tip = StochasticWeightAveraging(start=10)
    with pytest.raises(ConfigError) as caught:
        tip.plan(epochs)
    assert str(caught.value) == (
        f"regularization.swa.start: epoch 10 comes after the last of {epochs}; write regularization.swa.start={remedy}"
    )
    tip.plan(10)
    tip.plan(0)  # nothing is trained, and nothing left out


@pytest.mark.parametrize(("epochs", "start"), [(1, 1), (8, 6), (30, 22)])
def test_swa_without_a_start_takes_the_last_quarter_and_keeps_it_when_the_run_is_made_longer(
    epochs: int, start: int
) -> None:
    net, average = small_net(), StochasticWeightAveraging(start=None)
    average.plan(epochs)
    average.end_epoch(net)
    assert average.state["start"] == start
    longer = StochasticWeightAveraging(start=None)
    longer.plan(10 * epochs)
    longer.state |= average.state
    longer.end_epoch(net)
    assert longer.state["start"] == start
    assert ("parameters" in longer.state) == (start <= 2)
