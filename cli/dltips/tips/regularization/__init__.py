"""Regularizations: small classes with any of the hooks below; the loop calls the lists, built once.

prepare(model) before training; criterion(loss function) -> loss function; on_gradient(net) before and after_step(net)
after each step; end_epoch(net) after an epoch's last one; swap(net) around each validation; after_epoch(metrics) -> stop.
`state` goes to the checkpoint.
"""

from dltips.tips.regularization.averaging import ExponentialMovingAverage
from dltips.tips.regularization.base import Criterion, Nothing, Regularization, regularization
from dltips.tips.regularization.control import ClipGradient, EarlyStopping
from dltips.tips.regularization.noise import Dropout, LabelSmoothing
from dltips.tips.regularization.penalty import L1, L2, MaxNorm, WeightDecay

__all__ = [
    "L1",
    "L2",
    "ClipGradient",
    "Criterion",
    "Dropout",
    "EarlyStopping",
    "ExponentialMovingAverage",
    "LabelSmoothing",
    "MaxNorm",
    "Nothing",
    "Regularization",
    "WeightDecay",
    "regularization",
]
