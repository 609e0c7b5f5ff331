"""Optimizers: `(net, *, knobs) -> Optimizer`: short update rules on flat buffers, held to torch.optim in the tests.

Constructing any torch.optim.Optimizer imports torch._dynamo, about two seconds; only `torch` does.
"""

from dltips.tips.optimizer.adaptive import adagrad, adam, adamw, nadam, rmsprop
from dltips.tips.optimizer.base import Optimizer, OptimizerKnobs, optimizer, with_rates
from dltips.tips.optimizer.descent import lion, sgd
from dltips.tips.optimizer.library import torch_class
from dltips.tips.optimizer.orthogonal import muon, orthogonal

__all__ = [
    "Optimizer",
    "OptimizerKnobs",
    "adagrad",
    "adam",
    "adamw",
    "lion",
    "muon",
    "nadam",
    "optimizer",
    "orthogonal",
    "rmsprop",
    "sgd",
    "torch_class",
    "with_rates",
]
