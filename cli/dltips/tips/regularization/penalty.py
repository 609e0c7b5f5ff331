"""Penalties and bounds on the weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dltips.catalog.cards import card
from dltips.catalog.registry import Fraction, NonNegative, Positive
from dltips.errors import ConfigError
from dltips.nets.flat import FlatModel
from dltips.tips.regularization.base import Regularization, regularization


class Penalty(Regularization):
    """A term of the objective, added by its gradient; norms, biases and parameters without a gradient are spared."""

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.strength = strength
        self.mask: Tensor | None = None

    def on_unfreeze(self) -> None:
        self.mask = None

    def slope(self, parameters: Tensor) -> Tensor:
        """Returns the gradient for strength 1."""
        raise NotImplementedError

    def on_gradient(self, net: FlatModel) -> None:
        if self.mask is None:
            self.mask = net.decay_mask(spare=True).mul_(self.strength)
        net.gradients.addcmul_(self.slope(net.parameters), self.mask)


@regularization.named("l1")
@card(
    when="many inputs of which few matter: it selects features",
    formula="objective + strength * sum |w|, by its gradient strength * sign(w)",
    source="tip S; Tibshirani 1996, Regression Shrinkage and Selection via the Lasso",
    costs="two passes over the weights per step",
    avoid={
        "optimizer.reduction=sum": "the penalty is not multiplied by the batch size as the loss is; multiply its"
        " strength, or write optimizer.reduction=mean",
        "regularization=elastic": "elastic has this penalty already; take one of them",
        "optimizer=lion": "of gradient and penalty together lion keeps the sign alone; take"
        " regularization=weight_decay",
        "optimizer=muon": "the penalty is orthogonalized with the gradient, and what it pulls to 0 is lost; take"
        " regularization=weight_decay",
    },
)
class L1(Penalty):
    """Adds strength * sum |w| over the weights to the objective, by its gradient: many weights end near 0."""

    def __init__(self, *, strength: NonNegative) -> None:
        super().__init__(strength)

    def slope(self, parameters: Tensor) -> Tensor:
        return parameters.sign()


@regularization.named("l2")
@card(
    when="nearly always a little of it, with sgd: peaky weights are punished, diffuse ones preferred",
    formula="objective + strength / 2 * sum w^2, by its gradient strength * w",
    source="tip S; Krogh and Hertz 1992, A Simple Weight Decay Can Improve Generalization",
    costs="one pass over the weights per step",
    avoid={
        "optimizer.reduction=sum": "the penalty is not multiplied by the batch size as the loss is; multiply its"
        " strength, or write optimizer.reduction=mean",
        "regularization=elastic": "elastic has this penalty already; take one of them",
        "optimizer=adam": "adam divides the penalty's gradient as well, so that weights with large gradients hardly"
        " decay (Loshchilov and Hutter 2019); take regularization=weight_decay",
        "optimizer=nadam": "nadam divides the penalty's gradient as well, so that weights with large gradients hardly"
        " decay (Loshchilov and Hutter 2019); take regularization=weight_decay",
        "optimizer=adamw": "adamw decays the weights already; take one of them",
        "optimizer=lion": "of gradient and penalty together lion keeps the sign alone; take"
        " regularization=weight_decay",
        "optimizer=muon": "the penalty is orthogonalized with the gradient, and its size is lost; take"
        " regularization=weight_decay",
    },
)
class L2(Penalty):
    """Adds strength / 2 * sum w^2 over the weights to the objective, by its gradient: prefers diffuse weights."""

    def __init__(self, *, strength: NonNegative) -> None:
        super().__init__(strength)

    def slope(self, parameters: Tensor) -> Tensor:
        return parameters


@regularization.named("elastic")
@card(
    when="features that come in groups: l1 alone would keep one of a group and drop the others",
    formula="objective + strength * (l1_ratio * sum |w| + (1 - l1_ratio) / 2 * sum w^2), by its gradient",
    source="Zou and Hastie 2005, Regularization and Variable Selection via the Elastic Net",
    costs="three passes over the weights per step",
    avoid={
        "optimizer.reduction=sum": "the penalty is not multiplied by the batch size as the loss is; multiply its"
        " strength, or write optimizer.reduction=mean",
        "optimizer=lion": "of gradient and penalty together lion keeps the sign alone; take"
        " regularization=weight_decay",
        "optimizer=muon": "the penalty is orthogonalized with the gradient, and its size is lost; take"
        " regularization=weight_decay",
    },
)
class Elastic(Penalty):
    """Both l1 and l2: adds strength * (l1_ratio * sum |w| + (1 - l1_ratio) / 2 * sum w^2) to the objective."""

    def __init__(self, *, strength: NonNegative, l1_ratio: Fraction) -> None:
        super().__init__(strength)
        self.l1_ratio = l1_ratio

    def slope(self, parameters: Tensor) -> Tensor:
        return parameters.sign().mul_(self.l1_ratio).add_(parameters, alpha=1 - self.l1_ratio)


@regularization.named("weight_decay")
@card(
    when="nearly always a little of it; the same strength means the same with every optimizer, as l2's does not",
    formula="w *= 1 - rate * strength, before each step",
    source="Loshchilov and Hutter 2019, arXiv 1711.05101",
    recommends="with sgd at rate 0.1 5e-4; with adam at rate 0.001 0.01 to 0.1; for lion 3 to 10 times adam's",
    costs="one pass over the weights per step",
    avoid={
        "optimizer=adamw": "adamw decays the weights already; take optimizer=adam, or leave this out",
        "regularization=l2": "both pull the same weights to 0; take one of them",
    },
)
class WeightDecay(Regularization):
    """Decoupled decay: w *= 1 - rate * strength at each step, whatever the optimizer (Loshchilov and Hutter 2019)."""

    def __init__(self, *, strength: NonNegative, spare: bool) -> None:
        super().__init__()
        self.strength = strength
        self.spare = spare
        self.mask: Tensor | None = None

    def on_unfreeze(self) -> None:
        self.mask = None

    def on_gradient(self, net: FlatModel) -> None:
        if self.mask is None:
            self.mask = net.decay_mask(spare=self.spare).mul_(self.strength)
            if net.rate_factors is not None:
                self.mask.mul_(net.rate_factors)
        net.parameters.addcmul_(net.parameters, self.mask, value=-net.learning_rate)


@regularization.named("max_norm")
@card(
    when="with dropout and high rates: however large a step is, no unit's weights can run away",
    formula="w *= min(1, limit / |w|), w all weights into one unit (of one filter), after each step",
    source="tip S; Srebro and Shraibman 2005, Rank, Trace-Norm and Max-Norm",
    recommends="limit 3 or 4",
    costs="three small operations per layer and step",
)
class MaxNorm(Regularization):
    """Each unit's incoming weights are scaled back to norm `limit` after each step (Srebro and Shraibman 2005)."""

    def __init__(self, *, limit: Positive) -> None:
        super().__init__()
        self.limit = limit
        self.views: list[Tensor] | None = None

    def prepare(self, model: nn.Module) -> None:
        """Raises ConfigError if the model has no trainable weight matrix."""
        if not any(parameter.dim() >= 2 and parameter.requires_grad for parameter in model.parameters()):
            raise _nothing_to_bind()

    def on_unfreeze(self) -> None:
        self.views = None

    def after_step(self, net: FlatModel) -> None:
        if self.views is None:
            self.views = [view for segment, view in net.views(net.parameters) if segment.is_weight]
            if not self.views:  # fine-tuning has frozen them
                raise _nothing_to_bind()
        for weight in self.views:
            norms = torch.linalg.vector_norm(weight, dim=list(range(1, weight.dim())), keepdim=True)
            weight.mul_((self.limit / norms.clamp(min=1e-12)).clamp(max=1.0))


def _nothing_to_bind() -> ConfigError:
    return ConfigError("regularization.max_norm: this model trains no weights that it could bind; leave max_norm out")
