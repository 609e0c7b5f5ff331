"""Rules that work on matrices."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dltips.catalog.cards import card
from dltips.catalog.registry import Fraction, Positive, Size
from dltips.errors import ConfigError
from dltips.nets.flat import FlatModel, weighted_layers
from dltips.tips.optimizer.adaptive import adapt
from dltips.tips.optimizer.base import Optimizer, buffers, check_nesterov, optimizer, two_below_one

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # Jordan's quintic: steep at 0, so that 5 steps are enough


@optimizer
@card(
    when="nets whose weights lie in matrices and filters: fewer epochs than with adam; the head, norms and biases take"
    " adam's step at rest_lr",
    formula="v = momentum * v + g, w -= rate * sqrt(max(1, rows / columns)) * O, O the orthogonal matrix next to"
    " g + momentum * v (nesterov) or v; a filter bank is a matrix of (outputs, inputs * k * k)",
    source="Jordan et al. 2024, Muon: an optimizer for hidden layers in neural networks"
    " (kellerjordan.github.io/posts/muon)",
    recommends="rate 0.02, momentum 0.95 with nesterov, 5 steps; rest_lr 0.0003",
    costs="15 products of matrices per layer and step, in bfloat16 on a GPU: little beside large batches, much beside"
    " small ones",
)
def muon(
    net: FlatModel,
    *,
    lr: Positive,
    momentum: Fraction,
    nesterov: bool,
    steps: Size,
    rest_lr: Positive,
    betas: tuple[Fraction, ...],
    epsilon: Positive,
) -> Optimizer:
    """Orthogonalized momentum for the hidden layers' matrices and filters; adam for the rest (Jordan et al. 2024)."""
    check_nesterov(nesterov, momentum)
    pair = two_below_one("optimizer.betas", betas)
    (velocity,) = buffers(net, 1)
    head = {f"{name}.weight" for name, _ in weighted_layers(net.module)[-1:]}
    is_rest = torch.ones_like(net.parameters, dtype=torch.bool)
    for segment in net.segments:
        if segment.is_weight and segment.name not in head:
            is_rest[segment.start : segment.stop] = False
    if bool(is_rest.all()):
        raise ConfigError(
            "optimizer: muon finds no hidden layer's matrix among what trains (with finetune=linear_probe and gradual"
            " that is the head, at first); write optimizer=adam"
        )
    rest = is_rest.nonzero().squeeze(1)
    mean, square = (torch.zeros_like(net.parameters[rest]) for _ in range(2))
    count = torch.zeros((), dtype=torch.int64)

    def step(rate: float) -> None:
        count.add_(1)
        torch.add(net.gradients, velocity, alpha=momentum, out=velocity)
        direction = net.gradients.add(velocity, alpha=momentum) if nesterov else velocity
        for (segment, weight), (_, update) in zip(net.views(net.parameters), net.views(direction), strict=True):
            if segment.is_weight and segment.name not in head:
                matrix = update.flatten(1)
                scale = math.sqrt(max(1.0, matrix.shape[0] / matrix.shape[1]))
                weight.sub_(orthogonal(matrix, steps).view(update.shape), alpha=rate * scale)
        others = net.parameters[rest]
        adapt(others, net.gradients[rest], mean, square, int(count), rate * rest_lr / lr, pair, epsilon)
        net.parameters[rest] = others

    return Optimizer(lr, step, {"velocity": velocity, "mean": mean, "square": square, "count": count})


def orthogonal(matrix: Tensor, steps: int) -> Tensor:
    """Returns nearly U V^T for a matrix U S V^T, by Newton and Schulz's iteration. In new memory; zeros stay zeros.

    After 5 steps the singular values lie between 0.68 and 1.20 instead of at 1: those above 0.3 % of the matrix's norm.
    """
    a, b, c = COEFFICIENTS
    x = matrix.bfloat16() if matrix.is_cuda else matrix
    if matrix.shape[0] > matrix.shape[1]:
        x = x.T
    x = x / x.norm().clamp(min=1e-7)  # no singular value above 1
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    if matrix.shape[0] > matrix.shape[1]:
        x = x.T
    return x.to(matrix.dtype).contiguous()
