"""Any class of torch.optim."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from dltips.catalog.cards import card
from dltips.catalog.registry import Positive
from dltips.errors import ConfigError, suggest
from dltips.nets.flat import FlatModel
from dltips.tips.optimizer.base import Optimizer, optimizer


@optimizer.named("torch")
@card(
    when="a rule that has no option here: RAdam, Adafactor, ASGD, Rprop",
    formula="that of the class, over all parameters as one tensor",
    source="torch.optim's documentation",
    costs="two seconds at the start, to import torch's compiler; memory as the class needs it",
    avoid={
        "optimizer.cls=Adafactor": "one flat tensor has no rows and columns, whose means Adafactor would keep instead"
        " of a number per parameter: no memory is saved",
    },
)
def torch_class(net: FlatModel, *, cls: str, lr: Positive, options: dict[str, Any]) -> Optimizer:
    """Any class of torch.optim, on the flat parameter as one tensor; what it takes besides lr goes in options."""
    known = {
        name: kind
        for name, kind in vars(torch.optim).items()
        if isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer) and kind is not torch.optim.Optimizer
    }
    if cls in ("LBFGS", "SparseAdam", "Muon"):
        # a closure per step, sparse gradients, and matrices (from torch 2.9 on), in this order
        remedy = "write optimizer=muon" if cls == "Muon" else "choose another class"
        raise ConfigError(f"optimizer.cls: {cls} cannot work on one flat parameter; {remedy}")
    if cls not in known:
        raise ConfigError(f"optimizer.cls: {cls!r} is not a class of torch.optim{suggest(cls, known)}")
    parameter = torch.nn.Parameter(net.parameters)
    parameter.grad = net.gradients
    kept = net.parameters.clone()
    try:
        worker = known[cls]([parameter], lr=lr, **options)  # type: ignore[call-arg]
        initial = copy.deepcopy(worker.state[parameter])
        # torch.optim makes its state in the first step; a step without gradient and rate makes it early, at a fixed
        # place
        worker.param_groups[0]["lr"] = 0.0
        worker.step()
    except Exception as error:  # each class raises errors of its own, some only in the first step
        raise ConfigError(f"optimizer.options: {cls} refuses them: {' '.join(str(error).split())}") from error
    net.parameters.copy_(kept)
    state = {name: value for name, value in worker.state[parameter].items() if isinstance(value, Tensor)}
    count = torch.zeros((), dtype=torch.int64)

    def step(rate: float) -> None:
        worker.param_groups[0]["lr"] = rate
        first = count == 0
        if first:
            # some do not start at zero (NAdam's product, Rprop's rates): the first step restores the initial state
            worker.state[parameter] = copy.deepcopy(initial)
        worker.step()
        if first:
            for name, value in state.items():
                value.copy_(worker.state[parameter][name])
            worker.state[parameter].update(state)
        count.add_(1)

    return Optimizer(lr, step, {**state, "count": count})
