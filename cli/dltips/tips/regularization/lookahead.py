"""Keeps slow weights, to which the fast ones return."""

from __future__ import annotations

from dltips.catalog.cards import card
from dltips.catalog.registry import Fraction, Size
from dltips.nets.flat import FlatModel
from dltips.tips.regularization.base import Regularization, regularization


@regularization.named("lookahead")
@card(
    when="high rates, whose noise it takes out of the direction; short trainings above all",
    formula="every k steps: slow += alpha * (w - slow), w = slow",
    source="Zhang et al. 2019, arXiv 1907.08610",
    recommends="k = 5 (5 to 10), alpha = 0.5 (0.5 to 0.8)",
    costs="a copy of the weights; two kernels every k steps",
    avoid={"regularization=ema": "both average the weights; one of them is enough"},
)
class Lookahead(Regularization):
    """Every few steps the weights return part of the way to where they were: slow weights lead (Zhang et al. 2019)."""

    def __init__(self, *, steps: Size, alpha: Fraction) -> None:
        super().__init__()
        self.steps = steps
        self.alpha = alpha

    def on_gradient(self, net: FlatModel) -> None:
        if not self.state:  # before the first update: the initial weights
            self.state |= {"slow": net.parameters.clone(), "count": 0}

    def on_unfreeze(self) -> None:
        self.state.clear()

    def after_step(self, net: FlatModel) -> None:
        self.state["count"] += 1
        if self.state["count"] % self.steps == 0:
            self.state["slow"].lerp_(net.parameters, self.alpha)
            net.parameters.copy_(self.state["slow"])
