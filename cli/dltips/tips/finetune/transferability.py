"""Estimates how well features suit a task, from the features and the classes alone, without training a net."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# bounds of alpha / beta, as multiples of the largest eigenvalue: beyond them the evidence hardly changes, and it would
# diverge if the features determine the classes exactly
LEAST, MOST = 1e-10, 1e10
STEPS = 500  # at most; a dozen do for informative features


def logme(features: Tensor, targets: Tensor) -> float:
    """Logarithm of maximum evidence: how well a Bayesian linear model of the features explains the classes.

    The log marginal likelihood per sample of each class's indicator y (1 in the class, else 0) under
    y ~ N(F w, 1 / beta), w ~ N(0, 1 / alpha), with the best alpha and beta, averaged over the classes: You et al. 2021,
    arXiv 2102.11005, with the fixed-point iteration on one singular value decomposition. More is better. It compares
    sets of features for one data set; of two data sets it says nothing. A class without a sample does not count.

    `features` are (N, F), of any N and F, `targets` (N,) with at least two classes; computed in float64. Rotating or
    rescaling all features changes nothing.
    """
    classes = torch.unique(targets)
    assert len(classes) > 1 and len(features) == len(targets)
    samples = features.detach().flatten(1).double()
    indicators = (targets[:, None] == classes).to(samples)  # (N, K)
    left, values, _ = torch.linalg.svd(samples, full_matrices=False)
    squares = values.square()  # (R,): eigenvalues of F^T F, the largest first
    largest = float(squares[0])
    if largest == 0:  # features that are all 0 say nothing, as does any single direction
        squares, largest = torch.ones_like(squares), 1.0
        left = torch.zeros_like(left)
    known = (left.T @ indicators).square().T  # (K, R): what each direction holds of a class
    unknown = (indicators.square().sum(0) - known.sum(1)).clamp(min=0)  # (K,): what none holds
    count = len(samples)
    ratio = torch.full_like(unknown, float(squares.mean()))[:, None]  # (K, 1): alpha / beta
    for _ in range(STEPS):
        effective = (squares / (squares + ratio)).sum(1)
        weight = (squares * known / (squares + ratio).square()).sum(1)  # |w|^2
        error = (known * (ratio / (squares + ratio)).square()).sum(1) + unknown  # |y - F w|^2
        # written so that all weights 0 divide by nothing: it leads to the upper bound
        after = effective * error / (weight * (count - effective)).clamp(min=1e-300)
        after = after[:, None].clamp(LEAST * largest, MOST * largest)
        moved = float((after / ratio).log().abs().max())
        ratio = after
        if moved < 1e-6:
            break
    # with alpha / beta given, the best beta has a closed form
    variance = ((known / (1 + squares / ratio)).sum(1) + unknown) / count
    determinant = (1 + squares / ratio).log().sum(1) / count
    return float((-0.5 * (math.log(2 * math.pi) + 1 + variance.log() + determinant)).mean())


def nearest_centroid(features: Tensor, targets: Tensor, val_features: Tensor, val_targets: Tensor) -> float:
    """Returns the share of validation samples whose nearest class mean is their own class's, features standardized.

    (N, F) with (N,) classes, and (M, F) with (M,), M > 0; computed in float64. The features are standardized by the
    first set, without those that are constant there. A class without a sample in the first set is never chosen.
    """
    assert len(val_features) > 0
    samples, others = features.detach().flatten(1).double(), val_features.detach().flatten(1).double()
    spread = samples.std(0, unbiased=False)
    varies = spread > 1e-9 * samples.abs().amax(0)  # sums round a constant's spread to no more than that
    shift, scale = samples.mean(0)[varies], spread[varies]
    samples, others = (samples[:, varies] - shift) / scale, (others[:, varies] - shift) / scale
    classes = torch.unique(targets)
    centroids = torch.stack([samples[targets == index].mean(0) for index in classes])
    # directly, since the shortcut through products would round the differences of near centroids
    distances = torch.cdist(others, centroids, compute_mode="donot_use_mm_for_euclid_dist")
    return float((classes[distances.argmin(1)] == val_targets).double().mean())
