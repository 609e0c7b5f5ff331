"""Whitens: makes features uncorrelated, with equal variance."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dltips.catalog.cards import card
from dltips.catalog.registry import Positive
from dltips.errors import ConfigError
from dltips.tips.preprocessing.base import Step, preprocessing

LARGEST = 4096  # features: a matrix of 64 MB in every checkpoint; at 3,072 the eigenvectors take 6 s of one core
CHUNK = 1024  # samples
BLOCK = 512  # features


class Whiten(Step):
    """Computes matrix @ (inputs - mean), each sample flattened to a vector and returned in its shape."""

    mean: Tensor  # (D,)
    matrix: Tensor  # (D, D)

    def forward(self, inputs: Tensor) -> Tensor:
        return ((inputs.flatten(1) - self.mean) @ self.matrix.T).reshape(inputs.shape)


@preprocessing
@card(
    when="fully connected nets, which learn faster from inputs without correlation; not for convolutions, since a"
    " component has no neighbours: zca_whiten keeps the picture",
    formula="E^T (x - mean) / sqrt(S + epsilon), the covariance being E diag(S) E^T",
    source="tip S",
    recommends="epsilon = 1e-5",
    costs="the covariance and its eigenvectors, once: 13 s of one core for CIFAR-10's 50,000 x 3,072; a product with a"
    " 3,072 x 3,072 matrix for each batch, 38 MB in each checkpoint",
    avoid={
        "augmentation=crop": "its statistics belong to fixed places of the image, from which a crop moves everything;"
        " write preprocessing=standardize",
        "model=cnn": "the components have no place in the image, so that a convolution sees neighbours that are none;"
        " write preprocessing=zca_whiten",
        "model=vgg": "the components have no place in the image, so that a convolution sees neighbours that are none;"
        " write preprocessing=zca_whiten",
        "model=resnet": "the components have no place in the image, so that a convolution sees neighbours that are"
        " none; write preprocessing=zca_whiten",
        "model=squeezenet": "the components have no place in the image, so that a convolution sees neighbours that are"
        " none; write preprocessing=zca_whiten",
        "model=airbench": "the components have no place in the image, so that a convolution sees neighbours that are"
        " none; write preprocessing=zca_whiten",
    },
)
def pca_whiten(train_inputs: Tensor, *, epsilon: Positive) -> nn.Module:
    """Centre, rotate to the principal components, divide by sqrt(S + epsilon): no correlation, variance 1.

    Over all pixels and channels of an image, all features of a vector; the output has the input's shape, the largest
    component first. A direction in which nothing varies becomes 0. Raises ConfigError for more than 4,096 features.
    """
    mean, vectors, scales = _principal("pca_whiten", train_inputs, epsilon)
    return Whiten(mean=mean, matrix=(vectors * scales).T)


@preprocessing
@card(
    when="small images, convolutions included: whitened, they still look like themselves, with their edges stressed",
    formula="E ((E^T (x - mean)) / sqrt(S + epsilon)), the covariance being E diag(S) E^T",
    source="Bell and Sejnowski 1997; Krizhevsky 2009 for CIFAR-10",
    costs="as pca_whiten: the covariance and its eigenvectors, once, and a product with a matrix for each batch",
    avoid={
        "augmentation=crop": "its statistics belong to fixed places of the image, from which a crop moves everything;"
        " write preprocessing=standardize",
    },
)
def zca_whiten(train_inputs: Tensor, *, epsilon: Positive) -> nn.Module:
    """pca_whiten, rotated back: of all whitenings the one that changes the inputs least.

    Shapes, statistics and errors are those of pca_whiten.
    """
    mean, vectors, scales = _principal("zca_whiten", train_inputs, epsilon)
    return Whiten(mean=mean, matrix=(vectors * scales) @ vectors.T)


def _principal(name: str, inputs: Tensor, epsilon: float) -> tuple[Tensor, Tensor, Tensor]:
    """Returns mean (D,), eigenvectors of the covariance as columns (D, D), and 1 / sqrt(eigenvalue + epsilon) (D,)."""
    features = math.prod(inputs.shape[1:])
    if features > LARGEST:
        raise ConfigError(
            f"preprocessing: {name} takes at most {LARGEST} features, but a sample has {features}, whose covariance"
            f" would have {features**2:,} entries; write preprocessing=standardize, or make images smaller by"
            " data.image_size"
        )
    mean, covariance = mean_and_covariance(inputs)
    values, vectors = (each.flip(-1) for each in torch.linalg.eigh(covariance))  # largest first
    # an eigenvector's sign is arbitrary: its largest entry is made positive
    largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
    return mean, vectors * largest.sign(), (values.clamp(min=0) + epsilon).rsqrt()


def mean_and_covariance(inputs: Tensor, chunk: int = CHUNK) -> tuple[Tensor, Tensor]:
    """Returns (D,) and (D, D) over flattened samples, as doubles, uint8 as [0, 1]."""
    flat = inputs.flatten(1)
    parts = [flat[start : start + chunk] for start in range(0, len(flat), chunk)]
    # images: 1,024 products of at most 128 * 128 make at most 2^24, which single precision adds without rounding
    is_exact = inputs.dtype == torch.uint8
    dtype = torch.float32 if is_exact else torch.float64
    shift = torch.full(flat.shape[1:], 128.0, dtype=dtype)
    if not is_exact:
        shift = torch.stack([part.sum(0, dtype=dtype) for part in parts]).sum(0) / len(flat)
    total = torch.zeros(flat.shape[1], dtype=torch.float64)
    products = torch.zeros(flat.shape[1], flat.shape[1], dtype=torch.float64)
    for part in parts:
        shifted = part.to(dtype) - shift
        total += shifted.sum(0, dtype=torch.float64)
        for row in range(0, len(products), BLOCK):  # the upper triangle: 7 of 12 products at 3,072 features
            products[row : row + BLOCK, row:] += shifted[:, row : row + BLOCK].T @ shifted[:, row:]
    products = products.triu() + products.triu(1).T
    mean, factor = total / len(flat), 255.0 if is_exact else 1.0
    return (mean + shift) / factor, (products / len(flat) - torch.outer(mean, mean)) / factor**2
