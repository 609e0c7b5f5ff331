"""Preprocessing: `(train_inputs, *, knobs) -> nn.Module`, fitted on the training split, saved with the checkpoint.

It sees batches as floats: images in [0, 1], vectors and waveforms as they are. What is fitted is a Step, or an
nn.Sequential of Steps; each is made from its statistics alone, so that a checkpoint can hold it.
"""

from dltips.tips.preprocessing.base import Fill, Saved, Step, preprocessing, restore, save
from dltips.tips.preprocessing.scaling import (
    Affine,
    Clip,
    mean_and_variance,
    min_max,
    minus_one_one,
    none,
    robust,
    standardize,
)
from dltips.tips.preprocessing.whitening import Whiten, mean_and_covariance, pca_whiten, zca_whiten

__all__ = [
    "Affine",
    "Clip",
    "Fill",
    "Saved",
    "Step",
    "Whiten",
    "mean_and_covariance",
    "mean_and_variance",
    "min_max",
    "minus_one_one",
    "none",
    "pca_whiten",
    "preprocessing",
    "restore",
    "robust",
    "save",
    "standardize",
    "zca_whiten",
]
