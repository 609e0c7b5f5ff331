"""Drops parts of the net at random in training."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from dltips.catalog.cards import card
from dltips.catalog.registry import Fraction, Size
from dltips.errors import ConfigError
from dltips.nets.blocks import Residual
from dltips.nets.flat import weighted_layers
from dltips.tips.regularization.base import Regularization, regularization

Layers = Sequence[tuple[str, nn.Module]]


@regularization.named("dropout")
@card(
    when="large dense layers and few data; not the first or the only remedy in convolutional nets with batch norm",
    formula="y = x * Bernoulli(1 - p) / (1 - p) while training, y = x otherwise; behind norm and activation, never"
    " behind the head or in a residual block's shortcut",
    source="tips S, B and T; Srivastava et al. 2014, Dropout: A Simple Way to Prevent Neural Networks from Overfitting",
    recommends="p 0.2 to 0.5 (T), after layers with 256 or more outputs, in the middle and at the end of the net (B)",
    costs="a draw per output; usually more epochs, two to three times as many by the paper",
    avoid={
        "model.norm=batch": "it changes the variance that the next batch norm sees in training, but not in validation"
        " (Li et al. 2018, arXiv 1801.05134); dropout stands behind norm and activation, yet only behind the last norm"
        " does it do no harm: take model.norm=none or layer, or a small p",
    },
    try_with=("model.widths=[256]",),
)
class Dropout(Regularization):
    """Zeroes a share p of the outputs while training, after hidden layers with at least min_units (Srivastava 2014)."""

    def __init__(self, *, p: Fraction, min_units: Size) -> None:
        super().__init__()
        self.p = p
        self.min_units = min_units

    def prepare(self, model: nn.Module) -> None:
        """Adds the layers. Raises ConfigError if no layer is large enough."""
        layers = _hidden(model)
        if not layers:
            raise ConfigError(
                "regularization.dropout: this model has no hidden layer, dense or convolutional; give it one"
                " (model.widths, model.head_widths), or leave dropout out"
            )
        _place(model, _large("dropout", layers, self.min_units), "dropout", lambda _: nn.Dropout(self.p))


@regularization.named("dropout2d")
@card(
    when="convolutional nets: neighbouring pixels tell the same, so that single zeros hide nothing; whole channels do",
    formula="as dropout, with one draw per sample and channel",
    source="Tompson et al. 2015, arXiv 1411.4280 (SpatialDropout)",
    costs="a draw per channel",
    avoid={
        "model.norm=batch": "it changes the variance that the next batch norm sees in training, but not in validation"
        " (Li et al. 2018, arXiv 1801.05134); take model.norm=none, group or layer, or a small p",
    },
    try_with=("model=cnn",),
)
class Dropout2d(Regularization):
    """Zeroes whole channels, a share p of them, after hidden convolutions with at least min_units filters."""

    def __init__(self, *, p: Fraction, min_units: Size) -> None:
        super().__init__()
        self.p = p
        self.min_units = min_units

    def prepare(self, model: nn.Module) -> None:
        """Adds the layers. Raises ConfigError if no layer is large enough."""
        layers = [(name, layer) for name, layer in _hidden(model) if not isinstance(layer, nn.Linear)]
        if not layers:
            raise ConfigError(
                "regularization.dropout2d: this model has no hidden convolutions; write model=cnn, or"
                " regularization=dropout"
            )
        large = _large("dropout2d", layers, self.min_units)
        _place(
            model,
            large,
            "dropout2d",
            lambda layer: nn.Dropout1d(self.p) if isinstance(layer, nn.Conv1d) else nn.Dropout2d(self.p),
        )


@regularization.named("stochastic_depth")
@card(
    when="residual nets of many blocks: shorter nets are trained, and the whole one is their ensemble",
    formula="block l of L is left out with probability p * l / L, per sample; what stays is scaled by 1 / (1 - p * l /"
    " L)",
    source="Huang et al. 2016, arXiv 1603.09382",
    recommends="p 0.5 for 110 layers",
    costs="a draw per sample and block; the blocks that are left out are computed all the same",
    try_with=("model=resnet", "model.depth=8"),
)
class StochasticDepth(Regularization):
    """Leaves residual blocks out at random while training, the last one with probability p, the first ones hardly."""

    def __init__(self, *, p: Fraction) -> None:
        super().__init__()
        self.p = p

    def prepare(self, model: nn.Module) -> None:
        """Sets the blocks' probabilities. Raises ConfigError for a net without residual blocks."""
        blocks = [module for module in model.modules() if isinstance(module, Residual)]
        if not blocks:
            raise ConfigError(
                "regularization.stochastic_depth: this model has no residual blocks that it could leave out; write"
                " model=resnet (a timm net takes model.drop_path_rate)"
            )
        for number, block in enumerate(blocks, 1):
            block.drop = self.p * number / len(blocks)


def _hidden(model: nn.Module) -> Layers:
    """Returns all weighted layers except the head and shortcuts, which everything must pass."""
    return [(name, layer) for name, layer in weighted_layers(model)[:-1] if "shortcut" not in name.split(".")]


def _large(name: str, layers: Layers, min_units: int) -> Layers:
    units = [layer.get_parameter("weight").shape[0] for _, layer in layers]
    if max(units) < min_units:
        raise ConfigError(
            f"regularization.{name}.min_units: {min_units} is reached by no hidden layer (the widest has {max(units)}"
            f" outputs); write regularization.{name}.min_units={max(units)}, or widen the model"
        )
    return [pair for pair, count in zip(layers, units, strict=True) if count >= min_units]


def _place(model: nn.Module, layers: Layers, name: str, make: Callable[[nn.Module], nn.Module]) -> None:
    """Inserts a new module at the end of each layer's block, after the activation, even if a pool comes before that."""
    for path, layer in layers:
        block = path.rpartition(".")[0]
        stage = block.rpartition(".")[0]
        if stage and not hasattr(model.get_submodule(block), "activation"):
            block = stage if hasattr(model.get_submodule(stage), "activation") else block
        place = model.get_submodule(block)
        if not isinstance(place, nn.Sequential) or not block:
            raise ConfigError(
                f"regularization.{name}: this model has no blocks after which it could be placed; leave it out (a timm"
                " net takes model.drop_rate)"
            )
        if not hasattr(place, name):  # two layers in one block
            place.add_module(name, make(layer))
