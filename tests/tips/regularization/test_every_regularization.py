"""Each regularization keeps the property that its card states, on a small net in float64."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from dltips.nets.blocks import PaddedShortcut, Residual, block
from dltips.nets.flat import FlatModel
from dltips.tips import regularization

WIDTH = 40


def small_model() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(block(nn.Linear(5, WIDTH), None, nn.Tanh()), nn.Linear(WIDTH, 3)).double()


def small_net() -> FlatModel:
    """After its first backward pass."""
    net = FlatModel(small_model())
    net.module(torch.ones(4, 5, dtype=torch.float64)).sum().backward()
    net.detect_unused()
    net.gradients.zero_()
    return net


def none() -> None:
    hooks = {"plan", "prepare", "criterion", "on_gradient", "after_step", "end_epoch", "swap", "after_epoch"}
    assert hooks.isdisjoint(dir(regularization.Nothing()))


def penalty(make: Callable[[], regularization.L1], gradient: Callable[[Tensor], Tensor]) -> None:
    """What is added to the gradient of a weight; biases are spared."""
    net = small_net()
    make().on_gradient(net)
    for segment, view in net.views(net.gradients):
        expected = gradient(segment.parameter.detach()) if segment.is_weight else torch.zeros_like(view)
        torch.testing.assert_close(view, expected)


def weight_decay() -> None:
    net = small_net()
    before = net.parameters.clone()
    net.learning_rate = 0.5
    regularization.WeightDecay(strength=0.1, spare=True).on_gradient(net)
    for (segment, now), (_, then) in zip(net.views(net.parameters), net.views(before), strict=True):
        torch.testing.assert_close(now, then * (1 - 0.5 * 0.1) if segment.is_weight else then)


def max_norm() -> None:
    net = small_net()
    norms = [view.norm(dim=1) for segment, view in net.views(net.parameters) if segment.is_weight]
    limit = float(torch.cat(norms).median())
    regularization.MaxNorm(limit=limit).after_step(net)
    bounded = [view.norm(dim=1) for segment, view in net.views(net.parameters) if segment.is_weight]
    torch.testing.assert_close(bounded, [norm.clamp(max=limit) for norm in norms])


def dropout() -> None:
    model = nn.Sequential(block(nn.Linear(5, 2000), None, nn.Sigmoid()), nn.Linear(2000, 3))
    hidden, inputs = model[0], torch.randn(8, 5)
    whole = hidden(inputs)  # never 0
    regularization.Dropout(p=0.3, min_units=2000).prepare(model)
    kept = hidden(inputs)
    assert float((kept == 0).float().mean()) == pytest.approx(0.3, abs=0.02)
    torch.testing.assert_close(kept[kept != 0], whole[kept != 0] / 0.7)
    assert torch.equal(model.eval()[0](inputs), whole)


def dropout2d() -> None:
    model = nn.Sequential(block(nn.Conv2d(1, 300, 3), None, nn.Sigmoid()), nn.Flatten(), nn.Linear(4800, 3))
    hidden, inputs = model[0], torch.randn(8, 1, 6, 6)
    whole = hidden(inputs)
    regularization.Dropout2d(p=0.3, min_units=300).prepare(model)
    kept = hidden(inputs)
    dropped = (kept == 0).all((2, 3))  # whole channels
    assert torch.equal(dropped, (kept == 0).any(3).any(2))
    assert float(dropped.float().mean()) == pytest.approx(0.3, abs=0.04)
    torch.testing.assert_close(kept[~dropped], whole[~dropped] / 0.7)
    assert torch.equal(model.eval()[0](inputs), whole)


def stochastic_depth() -> None:
    blocks = [Residual(nn.Sequential(nn.Conv2d(2, 2, 1)), PaddedShortcut(2, 2, 1), nn.ReLU()) for _ in range(4)]
    model = nn.Sequential(*blocks)
    regularization.StochasticDepth(p=0.8).prepare(model)
    assert [each.drop for each in blocks] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    inputs = torch.rand(4000, 2, 1, 1)
    left_out = (blocks[3](inputs) == functional.relu(inputs)).all(1).float().mean()
    assert float(left_out) == pytest.approx(0.8, abs=0.03)


def label_smoothing() -> None:
    outputs, targets = torch.randn(7, 4, dtype=torch.float64), torch.arange(7) % 4
    smooth = 0.8 * functional.one_hot(targets, 4) + 0.2 / 4
    expected = -(smooth * outputs.log_softmax(1)).sum(1).mean()
    criterion = regularization.LabelSmoothing(amount=0.2).criterion(functional.cross_entropy)
    torch.testing.assert_close(criterion(outputs, targets), expected)


def early_stopping() -> None:
    tip = regularization.EarlyStopping(monitor="val/accuracy", patience=2, min_delta=0.0)
    scores = [0.5, 0.7, 0.6, 0.7, 0.9]  # the third and the fourth are no better than the second
    assert [tip.after_epoch({"val/accuracy": score}) for score in scores] == [False, False, False, True, False]


def gradient_noise() -> None:
    net = FlatModel(nn.Sequential(nn.Linear(100, 200), nn.Linear(200, 3)))
    net.module(torch.ones(1, 100)).sum().backward()
    net.detect_unused()
    tip = regularization.GradientNoise(eta=0.3, gamma=0.55)
    for step in range(3):
        net.gradients.zero_()
        tip.on_gradient(net)
        drawn = torch.cat([view.flatten() for _, view in net.views(net.gradients)])
        assert float(drawn.std()) == pytest.approx(math.sqrt(0.3 / (1 + step) ** 0.55), rel=0.03)
        assert abs(float(drawn.mean())) < 0.02


def clip_gradient() -> None:
    for norm in (0.5, 50.0):
        net = small_net()
        for _, view in net.views(net.gradients):
            view.normal_()
        before = net.gradients.clone()
        regularization.ClipGradient(norm=norm).on_gradient(net)
        torch.testing.assert_close(net.gradients, before * min(1.0, norm / float(before.norm())))


def walk(net: FlatModel, count: int = 6) -> list[Tensor]:
    """Where weights go: as many places as steps."""
    start = net.parameters.clone()
    return [start + torch.randn_like(start) for _ in range(count)]


def ema() -> None:
    net, tip = small_net(), regularization.ExponentialMovingAverage(decay=0.7)
    path = walk(net)
    average = path[0]
    for number, place in enumerate(path):
        net.parameters.copy_(place)
        tip.after_step(net)
        average = 0.7 * average + 0.3 * place if number else place
    tip.swap(net)
    torch.testing.assert_close(net.parameters, average)


def swa() -> None:
    net, tip = small_net(), regularization.StochasticWeightAveraging(start=3)
    path = walk(net)
    for place in path:
        net.parameters.copy_(place)
        tip.end_epoch(net)
    tip.swap(net)
    torch.testing.assert_close(net.parameters, torch.stack(path[2:]).mean(0))


def lookahead() -> None:
    net, tip = small_net(), regularization.Lookahead(steps=2, alpha=0.3)
    slow = net.parameters.clone()
    for number, place in enumerate(walk(net), 1):
        tip.on_gradient(net)
        net.parameters.copy_(place)
        tip.after_step(net)
        slow = slow + 0.3 * (place - slow) if number % 2 == 0 else slow
        torch.testing.assert_close(net.parameters, place if number % 2 else slow)


CASES: dict[str, Callable[[], None]] = {
    "none": none,
    "l1": lambda: penalty(lambda: regularization.L1(strength=0.3), lambda w: 0.3 * w.sign()),
    "l2": lambda: penalty(lambda: regularization.L2(strength=0.3), lambda w: 0.3 * w),
    "elastic": lambda: penalty(
        lambda: regularization.Elastic(strength=0.3, l1_ratio=0.2), lambda w: 0.3 * (0.2 * w.sign() + 0.8 * w)
    ),
    "weight_decay": weight_decay,
    "max_norm": max_norm,
    "dropout": dropout,
    "dropout2d": dropout2d,
    "stochastic_depth": stochastic_depth,
    "label_smoothing": label_smoothing,
    "early_stopping": early_stopping,
    "gradient_noise": gradient_noise,
    "clip_gradient": clip_gradient,
    "ema": ema,
    "swa": swa,
    "lookahead": lookahead,
}


@pytest.mark.parametrize("name", regularization.regularization.tips)
def test_the_property_that_its_card_states(name: str) -> None:
    assert name in CASES, (
        f"regularization={name} has no case: write a function here that asserts its card's formula on a small net, and"
        f" add it to CASES as {name!r}"
    )
    CASES[name]()
