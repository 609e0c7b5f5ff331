"""Activations: `(*, knobs) -> nn.Module`, a new one wherever the model wants one."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from dltips.catalog.cards import card
from dltips.catalog.registry import Bounds, NonNegative, Positive, family
from dltips.errors import ConfigError

activation = family("activation")

Pieces = Annotated[int, Bounds(least=2)]  # the maximum of a single piece is no activation at all


@activation
@card(
    when="as the historical control, and where an output must lie in (0, 1)",
    formula="1 / (1 + exp(-x))",
    source="tips S and B, which advise against it",
    costs="an exponential per unit; gradients of at most 1/4 per layer",
)
def sigmoid() -> nn.Module:
    """1 / (1 + exp(-x)): saturates, kills gradients, is not zero-centred. The historical control."""
    return nn.Sigmoid()


@activation
@card(
    when="recurrent and shallow nets; it gets worse with depth, though not as fast as the sigmoid",
    formula="tanh(x)",
    source="tips S and B; LeCun et al. 1998, Efficient BackProp",
    costs="an exponential per unit",
)
def tanh() -> nn.Module:
    """tanh(x): zero-centred, but saturates as the sigmoid does."""
    return nn.Tanh()


@activation
@card(
    when="the first choice for deep nets; look for dead units when the rate is high",
    formula="max(0, x)",
    source="tips S, B and T; Nair and Hinton 2010",
    costs="nothing to speak of; units that are never positive learn no more",
)
def relu() -> nn.Module:
    """max(0, x): cheap, does not saturate, sparse; units can die at high rates (Nair and Hinton 2010)."""
    return nn.ReLU(inplace=True)


@activation
@card(
    when="where the authors of a net had it: mobilenet_v2 and its pretrained weights; numbers of few bits",
    formula="min(max(0, x), 6)",
    source="Krizhevsky 2010, Convolutional Deep Belief Networks on CIFAR-10; Sandler et al. 2018, arXiv 1801.04381",
    costs="nothing to speak of; units above 6 learn no more, as those below 0",
)
def relu6() -> nn.Module:
    """min(max(0, x), 6): ReLU with a ceiling, so that few bits hold its outputs (Krizhevsky 2010)."""
    return nn.ReLU6(inplace=True)


@activation
@card(
    when="where ReLUs die",
    formula="x where x > 0, else slope * x",
    source="tip S; Maas et al. 2013",
    recommends="slope 0.01",
    costs="nothing to speak of; its outputs are not sparse",
)
def leaky_relu(*, slope: NonNegative) -> nn.Module:
    """x where positive, slope * x elsewhere: no dead units (Maas et al. 2013)."""
    return nn.LeakyReLU(slope, inplace=True)


@activation
@card(
    when="large data sets, and fine-tuning that does not move under ReLU",
    formula="x where x > 0, else a * x; a is learned, one per layer",
    source="tips S and B; He et al. 2015, arXiv 1502.01852",
    recommends="start at 0.25 (He et al.), at 0.1 (B)",
    costs="a parameter per layer, and the layer's inputs kept for its gradient",
)
def prelu(*, start: NonNegative) -> nn.Module:
    """Leaky ReLU with a learned slope, one per layer (He et al. 2015, arXiv 1502.01852)."""
    return nn.PReLU(init=start)


@activation
@card(
    when="small data sets, where a net of ReLUs overfits",
    formula="x where x > 0, else a * x; a ~ U(lower, upper) for each value in training, (lower + upper) / 2 at test",
    source="tip S; Xu et al. 2015, arXiv 1505.00853",
    recommends="1 / a from 3 to 8 (Xu et al.); lower 1/8 and upper 1/3 are the same bounds",
    costs="a random number per unit and sample in training",
    avoid={
        "model.activation_after_pool=true": "in training each value draws a slope of its own, and the largest before"
        " need not be the largest after; leave the activation in front of the pool",
    },
)
def rrelu(*, lower: NonNegative, upper: NonNegative) -> nn.Module:
    """Leaky ReLU with a random slope in training and the mean of the slopes at test (Xu et al. 2015)."""
    if lower > upper:
        raise ConfigError(f"activation.lower: {lower:g} is above activation.upper, {upper:g}; take less")
    return nn.RReLU(lower, upper)


@activation
@card(
    when="deep nets without batch norm: means near 0 make up for its absence",
    formula="x where x > 0, else alpha * (exp(x) - 1)",
    source="tip B; Clevert et al. 2016, arXiv 1511.07289",
    recommends="alpha = 1",
    costs="an exponential per unit: good, but more expensive, says B",
)
def elu(*, alpha: Positive) -> nn.Module:
    """x where positive, alpha * (exp(x) - 1) elsewhere: smooth for alpha 1, means near 0 (Clevert et al. 2016)."""
    return nn.ELU(alpha, inplace=True)


@activation
@card(
    when="deep fully connected nets on standardized inputs, with init=calibrated and without any norm",
    formula="1.0507 * (x where x > 0, else 1.6733 * (exp(x) - 1))",
    source="Klambauer et al. 2017, arXiv 1706.02515",
    costs="an exponential per unit",
    avoid={
        "init=he": "it keeps mean 0 and variance 1 for weights of variance 1 / fan_in, not 2 / fan_in; write"
        " init=calibrated",
        "model.norm=batch": "it normalizes by itself, which a batch norm in front undoes; write model.norm=none",
        "regularization=dropout": "zeros move the mean and variance that it keeps; its authors drop to another value"
        " (alpha dropout)",
    },
    try_with=("init=calibrated", "model.norm=none"),
)
def selu() -> nn.Module:
    """A scaled ELU that drives each layer's outputs to mean 0 and variance 1 (Klambauer et al. 2017)."""
    return nn.SELU(inplace=True)


@activation
@card(
    when="transformers and recent convolutional nets",
    formula="x * Phi(x), Phi the normal distribution; tanh: x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))",
    source="Hendrycks and Gimpel 2016, arXiv 1606.08415",
    costs="an error function per unit; approximate=tanh was made to be cheaper",
    avoid={
        "model.activation_after_pool=true": "it falls before it rises, from 0 to -0.17 at -0.75, so that the largest"
        " before need not be the largest after; leave the activation in front of the pool",
    },
)
def gelu(*, approximate: Literal["none", "tanh"]) -> nn.Module:
    """x * Phi(x): each input weighted by the share of a normal distribution below it (Hendrycks, Gimpel 2016)."""
    return nn.GELU(approximate)


@activation
@card(
    when="deep nets that are wide enough; the smooth neighbour of ReLU, also known as swish",
    formula="x / (1 + exp(-x))",
    source="Elfwing et al. 2018, arXiv 1702.03118; Ramachandran et al. 2017, arXiv 1710.05941",
    costs="an exponential per unit",
    avoid={
        "model.activation_after_pool=true": "it falls before it rises, from 0 to -0.28 at -1.28, so that the largest"
        " before need not be the largest after; leave the activation in front of the pool",
    },
)
def silu() -> nn.Module:
    """x * sigmoid(x), also known as swish: smooth, and a little below 0 for negative inputs (Elfwing et al. 2018)."""
    return nn.SiLU()


@activation
@card(
    when="where a positive output or a smooth ReLU is wanted; as a hidden activation ReLU mostly does better",
    formula="log(1 + exp(beta * x)) / beta",
    source="Dugas et al. 2001; Glorot et al. 2011, which compares it with ReLU",
    costs="an exponential and a logarithm per unit; no output is 0, and the mean is positive",
)
def softplus(*, beta: Positive) -> nn.Module:
    """log(1 + exp(beta x)) / beta: ReLU, rounded off at 0; the larger beta, the closer (Dugas et al. 2001)."""
    return nn.Softplus(beta)


class Maxout(nn.Module):
    """The largest of `pieces` neighbouring channels, at every channel: (N, C, ...) -> (N, C, ...), around the end."""

    def __init__(self, pieces: int) -> None:
        super().__init__()
        self.pieces = pieces

    def forward(self, inputs: Tensor) -> Tensor:
        if inputs.shape[1] < self.pieces:
            raise ConfigError(
                f"activation.pieces: {self.pieces} pieces are more than the {inputs.shape[1]} outputs of a layer; take"
                " fewer, or widen the model"
            )
        outputs = inputs
        for shift in range(1, self.pieces):
            outputs = torch.maximum(outputs, inputs.roll(-shift, 1))
        return outputs

    def extra_repr(self) -> str:
        return f"pieces={self.pieces}"


@activation
@card(
    when="with dropout, for which it was made; units cannot die, since one of the pieces always learns",
    formula="y_i = max(x_i, ..., x_(i + pieces - 1)), channel numbers modulo the layer's width",
    source="Goodfellow et al. 2013, arXiv 1302.4389, with overlapping instead of separate groups",
    costs="pieces - 1 copies of the layer's outputs",
)
def maxout(*, pieces: Pieces) -> nn.Module:
    """The largest of `pieces` linear units of the layer: a learned convex function (after Goodfellow et al. 2013).

    Goodfellow's groups are separate, so that a layer of pieces * C units has C outputs. An activation must keep the
    width, hence the groups overlap here: each unit is a piece of `pieces` neighbouring maxima, and nothing is added to
    the layer's parameters. A max pool commutes with it. Raises ConfigError for layers narrower than `pieces`.
    """
    return Maxout(pieces)
