"""Optimizers: `(net, *, knobs) -> Rule`: short update rules on flat buffers, held to torch.optim in the tests.

Constructing any torch.optim.Optimizer imports torch._dynamo, about two seconds; only `torch` does.
"""

from dltips.tips.optimizer.adaptive import adagrad, adam, adamw, rmsprop
from dltips.tips.optimizer.base import Common, Rule, optimizer, with_rates
from dltips.tips.optimizer.descent import sgd
from dltips.tips.optimizer.library import torch_class

__all__ = ["Common", "Rule", "adagrad", "adam", "adamw", "optimizer", "rmsprop", "sgd", "torch_class", "with_rates"]
