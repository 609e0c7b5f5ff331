import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from dltips.nets.flat import FlatModel
from dltips.tips.regularization import GradientNoise, LabelSmoothing

WEIGHT = torch.tensor([0.5, 1.0, 2.0, 0.0, 3.0], dtype=torch.float64)


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(20, 5, generator=generator, dtype=torch.float64)
    return outputs, torch.randint(5, (20,), generator=generator)


@pytest.mark.parametrize("amount", [0.0, 0.1, 1.0])
def test_label_smoothing_is_cross_entropy_against_smoothed_targets(amount: float) -> None:
    outputs, targets = batch()
    smooth = (1 - amount) * functional.one_hot(targets, 5) + amount / 5
    expected = -(smooth * outputs.log_softmax(1)).sum(1).mean()
    criterion = LabelSmoothing(amount=amount).criterion(functional.cross_entropy)
    torch.testing.assert_close(criterion(outputs, targets), expected)


def test_label_smoothing_takes_shares_as_mixup_makes_them() -> None:
    outputs, targets = batch()
    shares = 0.7 * functional.one_hot(targets, 5) + 0.3 * functional.one_hot(targets.flip(0), 5)
    expected = -((0.9 * shares + 0.1 / 5) * outputs.log_softmax(1)).sum(1).mean()
    criterion = LabelSmoothing(amount=0.1).criterion(functional.cross_entropy)
    torch.testing.assert_close(criterion(outputs, shares), expected)


def test_label_smoothing_keeps_the_weights_of_the_classes() -> None:
    """It wraps the criterion that it is given: `data.balance=loss` stays in force."""

    def weighted(outputs: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
        return functional.cross_entropy(outputs, targets, weight=WEIGHT, label_smoothing=label_smoothing)

    outputs, targets = batch()
    smooth = 0.9 * functional.one_hot(targets, 5) + 0.1 / 5
    expected = -(smooth * WEIGHT * outputs.log_softmax(1)).sum() / WEIGHT[targets].sum()
    torch.testing.assert_close(LabelSmoothing(amount=0.1).criterion(weighted)(outputs, targets), expected)


class Wide(nn.Module):
    """60,000 weights that get a gradient, and some that do not."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(300, 200)
        self.unused = nn.Linear(3, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.layer(inputs)
        return outputs


def wide_net() -> FlatModel:
    net = FlatModel(Wide())
    net.module(torch.randn(2, 300)).sum().backward()
    net.detect_unused()
    return net


def added(net: FlatModel, noise: GradientNoise) -> Tensor:
    """What one step adds to the gradient."""
    net.gradients.zero_()
    noise.on_gradient(net)
    return net.gradients.clone()


@pytest.mark.parametrize(("eta", "gamma"), [(0.01, 0.55), (1.0, 0.0), (0.3, 2.0)])
def test_gradient_noise_is_normal_and_fades_as_the_paper_says(eta: float, gamma: float) -> None:
    net, noise = wide_net(), GradientNoise(eta=eta, gamma=gamma)
    for step in range(12):
        found = added(net, noise)[:60_000] / math.sqrt(eta / (1 + step) ** gamma)
        assert float(found.mean()) == pytest.approx(0, abs=0.02)
        assert float(found.var()) == pytest.approx(1, abs=0.03)
        assert float((found.abs() < 1).float().mean()) == pytest.approx(0.6827, abs=0.01)


def test_gradient_noise_spares_gaps_and_what_got_no_gradient() -> None:
    net = wide_net()
    found = added(net, GradientNoise(eta=1.0, gamma=0.0))
    noisy = torch.zeros_like(found, dtype=torch.bool)
    for segment in net.segments:
        noisy[segment.start : segment.stop] = segment.name.startswith("layer")
    assert torch.equal(found != 0, noisy)


def test_gradient_noise_hangs_on_the_runs_seed_and_leaves_torchs_stream_alone() -> None:
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        net, noise = wide_net(), GradientNoise(eta=1.0, gamma=0.0)
        before = torch.get_rng_state()
        draws.append(torch.stack([added(net, noise) for _ in range(3)]))
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert not torch.equal(draws[0][0], draws[0][1])
    torch.manual_seed(1)
    assert not torch.allclose(draws[0][0][:100], torch.randn_like(draws[0][0])[:100])  # no dropout draws the same


def test_gradient_noise_goes_on_from_its_state() -> None:
    net, first, second = wide_net(), GradientNoise(eta=1.0, gamma=0.5), GradientNoise(eta=1.0, gamma=0.5)
    added(net, first)
    second.state.update(first.state)
    torch.manual_seed(5)  # whatever the stream has become
    assert torch.equal(added(net, second), added(net, first))
