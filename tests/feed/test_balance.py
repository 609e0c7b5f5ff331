"""Rare classes: drawn as often as the others, or weighed as scikit-learn weighs them."""

import numpy
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch import Generator, Tensor
from torch.nn import functional

from dltips.errors import ConfigError
from dltips.feed.balance import balanced_order, check, class_weights, weighted_loss

COUNTS = (600, 30, 300, 70)


def labels(counts: tuple[int, ...] = COUNTS) -> Tensor:
    targets = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    return targets[torch.randperm(len(targets), generator=Generator().manual_seed(0))]


def test_weights_are_scikit_learn_s() -> None:
    expected = compute_class_weight("balanced", classes=numpy.arange(4), y=labels().numpy())
    numpy.testing.assert_allclose(class_weights(labels(), 4).numpy(), expected, rtol=1e-6)


def test_weights_are_1_on_average_and_each_class_weighs_as_much() -> None:
    weights = class_weights(labels(), 4)
    assert float(weights[labels()].mean()) == pytest.approx(1, rel=1e-6)
    sums = [float(weights[labels()][labels() == label].sum()) for label in range(4)]
    assert sums == pytest.approx([250] * 4, rel=1e-6)


def test_a_class_without_samples_weighs_nothing_and_the_others_what_they_would_without_it() -> None:
    weights = class_weights(labels((10, 0, 30)), 3)
    assert weights[1] == 0
    assert weights[[0, 2]].tolist() == class_weights(labels((10, 30)), 2).tolist()


def test_balanced_classes_weigh_1_each() -> None:
    assert class_weights(labels((5, 5, 5)), 3).tolist() == [1, 1, 1]


def test_the_weighted_loss_is_the_mean_of_the_classes_losses() -> None:
    logits = torch.randn(1000, 4, dtype=torch.float64)
    losses = functional.cross_entropy(logits, labels(), reduction="none")
    weighted = functional.cross_entropy(logits, labels(), weight=class_weights(labels(), 4).double())
    per_class = torch.stack([losses[labels() == label].mean() for label in range(4)])
    assert float(weighted) == pytest.approx(float(per_class.mean()), rel=1e-6)


def test_each_class_is_drawn_as_often_and_within_it_each_sample() -> None:
    draws = [balanced_order(labels(), 4, Generator().manual_seed(seed)) for seed in range(40)]
    assert all(len(drawn) == 1000 for drawn in draws)
    drawn = torch.cat(draws)
    frequencies = torch.bincount(labels()[drawn], minlength=4).double()
    # chi-squared with 3 degrees of freedom: above 16.3 once in 1,000
    assert float((frequencies - 10_000).square().sum() / 10_000) < 16.3
    rare = torch.bincount(drawn, minlength=1000)[labels() == 1].double()  # each of 30 about 333 times
    assert float((rare - rare.mean()).square().sum() / rare.mean()) < 58.3  # 29 degrees of freedom
    assert len(drawn.unique()) == 1000


def test_the_order_hangs_on_the_generator_alone() -> None:
    first = balanced_order(labels(), 4, Generator().manual_seed(1))
    torch.manual_seed(7)
    assert torch.equal(balanced_order(labels(), 4, Generator().manual_seed(1)), first)
    assert not torch.equal(balanced_order(labels(), 4, Generator().manual_seed(2)), first)
    assert first.tolist() != sorted(first.tolist())


def test_a_class_without_samples_is_never_drawn() -> None:
    targets = labels((50, 0, 3, 0))
    drawn = targets[balanced_order(targets, 4, Generator().manual_seed(0))]
    assert set(drawn.tolist()) == {0, 2}


def test_the_last_sample_can_be_drawn_and_none_beyond_it() -> None:
    targets = torch.tensor([0, 1])
    drawn = torch.cat([balanced_order(targets, 2, Generator().manual_seed(seed)) for seed in range(50)])
    assert set(drawn.tolist()) == {0, 1}


def test_drawing_contradicts_a_fixed_order() -> None:
    check("sampling", True)
    check("loss", False)
    check("none", False)
    with pytest.raises(ConfigError, match=r"^data\.shuffle: false .*data\.balance=loss$"):
        check("sampling", False)


def test_the_weighted_loss_of_parts_adds_up_to_the_whole() -> None:
    weights = torch.tensor([0.5, 3.0, 1.0])
    outputs, targets = torch.randn(10, 3), torch.randint(3, (10,))
    loss = weighted_loss(weights)
    plain = torch.nn.functional.cross_entropy(outputs, targets, reduction="none")
    assert torch.allclose(loss(outputs, targets), (weights[targets] * plain).mean())
    parts = [0.3 * loss(outputs[:3], targets[:3]), 0.7 * loss(outputs[3:], targets[3:])]
    assert torch.allclose(sum(parts), loss(outputs, targets))  # type: ignore[arg-type]
    shares = torch.nn.functional.one_hot(targets, 3).float()
    assert torch.allclose(loss(outputs, shares), loss(outputs, targets))
