import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.stats import multivariate_normal
from sklearn.neighbors import NearestCentroid
from torch import Tensor

from dltips.tips.finetune.transferability import logme, nearest_centroid


def blobs(count: int, width: int, classes: int = 3, apart: float = 1.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Noise of variance 1 around class means of variance `apart` squared, and off the origin, as activations are."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(count) % classes
    means = apart * torch.randn(classes, width, generator=generator)
    return 1 + means[targets] + torch.randn(count, width, generator=generator), targets


def dense_evidence(features: Tensor, targets: Tensor) -> float:
    """The definition: log density of y under N(0, 1 / beta + F F^T / alpha), maximized numerically from many starts."""
    samples = features.double().numpy()
    evidences = []
    for index in targets.unique():
        y = (targets == index).double().numpy()

        def negative(logs: np.ndarray, y: np.ndarray = y) -> float:
            alpha, beta = np.exp(logs.clip(-20, 20))
            covariance = np.eye(len(y)) / beta + samples @ samples.T / alpha
            return -float(multivariate_normal(np.zeros(len(y)), covariance).logpdf(y)) / len(y)

        found = [
            minimize(negative, [a, b], method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-12}).fun
            for a in (0.0, 4.0)
            for b in (0.0, 3.0)
        ]
        evidences.append(-min(found))
    return float(np.mean(evidences))


@pytest.mark.parametrize(("count", "width", "apart"), [(40, 3, 1.0), (40, 3, 0.3), (30, 30, 0.5), (24, 60, 0.3)])
def test_logme_is_the_maximum_of_the_evidence(count: int, width: int, apart: float) -> None:
    features, targets = blobs(count, width, apart=apart)
    assert logme(features, targets) == pytest.approx(dense_evidence(features, targets), abs=1e-6)


@pytest.mark.parametrize(("count", "width"), [(60, 8), (20, 50)])
def test_logme_knows_neither_directions_nor_units_nor_an_order(count: int, width: int) -> None:
    features, targets = blobs(count, width)
    value = logme(features, targets)
    generator = torch.Generator().manual_seed(1)
    rotation, _ = torch.linalg.qr(torch.randn(width, width, generator=generator, dtype=torch.float64))
    order = torch.randperm(count, generator=generator)
    assert logme(features.double() @ rotation, targets) == pytest.approx(value, abs=1e-6)
    assert logme(features * 1e-3, targets) == pytest.approx(value, abs=1e-6)
    assert logme(features[order], targets[order]) == pytest.approx(value, abs=1e-6)
    assert logme(features, 7 - 2 * targets) == pytest.approx(value, abs=1e-9)  # by any names of the classes


@pytest.mark.parametrize(("count", "width"), [(200, 16), (40, 100)])
def test_logme_prefers_features_that_know_the_classes(count: int, width: int) -> None:
    for seed in range(5):
        features, targets = blobs(count, width, seed=seed)
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(count, width, generator=generator)
        permuted = targets[torch.randperm(count, generator=generator)]
        value = logme(features, targets)
        assert value > logme(noise, targets) + 0.1
        assert value > logme(features, permuted) + 0.1
        assert value > logme(features + 2 * noise, targets)


def test_logme_pays_for_features_that_say_nothing() -> None:
    features, targets = blobs(60, 8)
    noise = torch.randn(60, 200, generator=torch.Generator().manual_seed(1))
    assert logme(torch.cat([features, noise], 1), targets) < logme(features, targets)


def test_logme_of_features_that_never_vary_is_finite_and_the_least() -> None:
    features, targets = blobs(60, 8)
    nothing, constant = torch.zeros(60, 8), torch.ones(60, 8)
    # y ~ N(0, 1 / beta) alone: the best 1 / beta is the mean square of y, here 1/3
    expected = -0.5 * (math.log(2 * math.pi / 3) + 1)
    assert logme(nothing, targets) == pytest.approx(expected, abs=1e-6)
    assert logme(nothing, targets) < logme(constant, targets) < logme(features, targets)


def test_logme_of_features_that_are_the_classes_is_finite_and_large() -> None:
    _, targets = blobs(60, 8)
    exact = torch.nn.functional.one_hot(targets).float()
    assert 1 < logme(exact, targets) < 100
    assert logme(1000 * exact, targets) == pytest.approx(logme(exact, targets), abs=1e-6)


def test_a_class_without_a_sample_does_not_count() -> None:
    features, targets = blobs(60, 8)
    assert logme(features, torch.where(targets == 2, 9, targets)) == logme(features, targets)


@pytest.mark.parametrize(("width", "apart"), [(4, 0.3), (300, 0.08)])
def test_the_nearest_centroid_is_scikit_learn_s_on_standardized_features(width: int, apart: float) -> None:
    features, targets = blobs(90, width, apart=apart)
    features = features * torch.logspace(-3, 3, width)  # in units of their own
    train, val = slice(0, 60), slice(60, 90)
    shift, scale = features[train].mean(0), features[train].std(0, unbiased=False)
    standardized = ((features - shift) / scale).numpy()
    theirs = NearestCentroid().fit(standardized[train], targets[train].numpy())
    expected = float(theirs.score(standardized[val], targets[val].numpy()))
    assert 0.4 < expected < 1
    assert nearest_centroid(features[train], targets[train], features[val], targets[val]) == pytest.approx(expected)


def test_a_feature_that_never_varies_moves_no_centroid() -> None:
    features, targets = blobs(90, 4, apart=0.5)
    expected = nearest_centroid(features[:60], targets[:60], features[60:], targets[60:])
    constant = torch.full((90, 1), 0.1)
    constant[60:] = 5.0  # elsewhere it may be anything
    wider = torch.cat([features, constant, torch.zeros(90, 1)], 1)
    assert nearest_centroid(wider[:60], targets[:60], wider[60:], targets[60:]) == expected


def test_a_class_that_only_the_validation_split_has_is_never_chosen() -> None:
    features, targets = blobs(90, 8, apart=5.0)
    known = targets[:60] != 1
    accuracy = nearest_centroid(features[:60][known], targets[:60][known], features[60:], targets[60:])
    assert accuracy == pytest.approx(2 / 3)


def test_features_that_are_all_constant_choose_one_class() -> None:
    targets = torch.arange(30) % 3
    assert nearest_centroid(torch.ones(30, 5), targets, torch.ones(30, 5), targets) == pytest.approx(1 / 3)


def test_centroids_that_nearly_coincide_are_told_apart() -> None:
    """Ten digits closer to each other than to the third one: products of the samples would lose that."""
    means = torch.tensor([1.0, 1.0 + 1e-9, -100.0], dtype=torch.float64)
    targets = torch.arange(90) % 3
    features = means[targets][:, None] + torch.tensor([0.0, 0.0, 1.0]).repeat(30)[:, None] * torch.arange(90)[:, None]
    known = targets < 2
    assert nearest_centroid(features, targets, features[known], targets[known]) == 1.0
