"""Regularizations: small classes with any of the hooks below; the loop calls the lists, built once.

plan(epochs) and prepare(model) before training; criterion(loss function) -> loss function; on_gradient(net) before and
after_step(net) after each step; end_epoch(net) after an epoch's last one; swap(net) around each validation;
after_epoch(metrics) -> stop. `state` goes to the checkpoint.
"""

from dltips.tips.regularization.averaging import ExponentialMovingAverage, StochasticWeightAveraging
from dltips.tips.regularization.base import Criterion, Nothing, Regularization, regularization
from dltips.tips.regularization.control import ClipGradient, EarlyStopping
from dltips.tips.regularization.dropping import Dropout, Dropout2d, StochasticDepth
from dltips.tips.regularization.lookahead import Lookahead
from dltips.tips.regularization.noise import GradientNoise, LabelSmoothing
from dltips.tips.regularization.penalty import L1, L2, Elastic, MaxNorm, WeightDecay

__all__ = [
    "L1",
    "L2",
    "ClipGradient",
    "Criterion",
    "Dropout",
    "Dropout2d",
    "EarlyStopping",
    "Elastic",
    "ExponentialMovingAverage",
    "GradientNoise",
    "LabelSmoothing",
    "Lookahead",
    "MaxNorm",
    "Nothing",
    "Regularization",
    "StochasticDepth",
    "StochasticWeightAveraging",
    "WeightDecay",
    "regularization",
]
