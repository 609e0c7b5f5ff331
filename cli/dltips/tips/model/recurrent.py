"""Recurrent nets: one step per moment of a sound, per column or row of an image, per feature of a vector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from dltips.catalog.cards import card
from dltips.catalog.registry import Size
from dltips.nets.blocks import Activation, classifier, model
from dltips.tips.model.audio import listening

Axis = Literal["columns", "rows"]
Output = Literal["last", "mean"]


class Steps(nn.Module):
    """Reads (N, C, H, W) as (N, W, C H), a step per column, or (N, H, C W), a step per row; (N, F) as (N, 1, 1, F)."""

    def __init__(self, axis: Axis) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, inputs: Tensor) -> Tensor:
        images = inputs[:, None, None] if inputs.dim() == 2 else inputs
        order = (0, 3, 1, 2) if self.axis == "columns" else (0, 2, 1, 3)
        return images.permute(order).flatten(2)

    def extra_repr(self) -> str:
        return self.axis


class Recurrent(nn.Module):
    """Reduces (N, steps, features) to (N, D): the output after the last step, or the mean over all steps.

    The last step of a layer's backward direction is the first one.
    """

    def __init__(self, layer: nn.LSTM | nn.GRU, output: Output) -> None:
        super().__init__()
        self.layer = layer
        self.output = output

    def forward(self, steps: Tensor) -> Tensor:
        outputs: Tensor = self.layer(steps)[0]
        if self.output == "mean":
            return outputs.mean(1)
        width = self.layer.hidden_size
        return torch.cat([outputs[:, -1, :width], outputs[:, 0, width:]], 1)

    def extra_repr(self) -> str:
        return f"output={self.output}"


class RecurrentNet(nn.Sequential):
    """The stages in a row. The gates are sigmoid and tanh: the activation is only for hidden layers of the head."""

    keeps: Sequence[str] = ()
    remedy = "; set model.head_widths=[64] for a hidden layer that takes one"


@model
@card(
    when="sequences in which what was heard long ago matters; a gru does as well as a rule, with fewer weights",
    formula="i, f, o = sigmoid(W x + U h + b), g = tanh(W x + U h + b); c = f c + i g; h = o tanh(c)",
    source="Hochreiter and Schmidhuber 1997; the forget gate: Gers et al. 2000",
    costs="one step after the other: 8 FLOPs per unit, step, and input or unit; slow on a GPU for its size",
    try_with=("data=synthetic", "data.kind=sequence"),
)
def lstm(
    input_shape: tuple[int, ...],
    num_classes: int,
    activation: Activation,
    *,
    width: Size,
    layers: Size,
    bidirectional: bool,
    steps: Axis,
    output: Output,
    head_widths: tuple[Size, ...],
    mels: Size | None,
    sample_rate: Size | None,
) -> nn.Module:
    """Long short-term memory over the frames of a sound, the columns or rows of an image, the features of a vector.

    Waveforms (1, T) become log-mel spectrograms first, by mels and sample_rate. Raises ConfigError.
    """
    stages, features = _reading("lstm", input_shape, steps, mels, sample_rate)
    layer = nn.LSTM(features, width, layers, batch_first=True, bidirectional=bidirectional)
    return _net(stages, Recurrent(layer, output), num_classes, activation, head_widths)


@model
@card(
    when="as an lstm, which it replaces with three quarters of the weights and FLOPs",
    formula="r, z = sigmoid(W x + U h + b); n = tanh(W x + b + r (U h + b)); h = (1 - z) n + z h",
    source="tip B's reader: a GRU trains faster and cheaper; Cho et al. 2014, arXiv 1406.1078; Chung et al. 2014, arXiv"
    " 1412.3555",
    costs="one step after the other: 6 FLOPs per unit, step, and input or unit; on a CPU torch's takes no less time"
    " than its lstm up to 128 units",
    try_with=("data=synthetic", "data.kind=sequence"),
)
def gru(
    input_shape: tuple[int, ...],
    num_classes: int,
    activation: Activation,
    *,
    width: Size,
    layers: Size,
    bidirectional: bool,
    steps: Axis,
    output: Output,
    head_widths: tuple[Size, ...],
    mels: Size | None,
    sample_rate: Size | None,
) -> nn.Module:
    """Gated recurrent units over the frames of a sound, the columns or rows of an image, the features of a vector.

    Waveforms (1, T) become log-mel spectrograms first, by mels and sample_rate. Raises ConfigError.
    """
    stages, features = _reading("gru", input_shape, steps, mels, sample_rate)
    layer = nn.GRU(features, width, layers, batch_first=True, bidirectional=bidirectional)
    return _net(stages, Recurrent(layer, output), num_classes, activation, head_widths)


def _reading(
    name: str, input_shape: Sequence[int], axis: Axis, mels: int | None, sample_rate: int | None
) -> tuple[dict[str, nn.Module], int]:
    """Returns the stages before the recurrent one, and the features per step."""
    shape = (1, 1, *input_shape) if len(input_shape) == 1 else tuple(input_shape)
    stages, (channels, height, width) = listening(name, shape, mels, sample_rate)
    stages["steps"] = Steps(axis)
    return stages, channels * (height if axis == "columns" else width)


def _net(
    stages: dict[str, nn.Module],
    recurrent: Recurrent,
    num_classes: int,
    activation: Activation,
    head_widths: Sequence[int],
) -> nn.Module:
    stages["recurrent"] = recurrent
    channels = recurrent.layer.hidden_size * (2 if recurrent.layer.bidirectional else 1)
    stages.update(classifier(channels, (), num_classes, activation, "dense", head_widths))
    net = RecurrentNet()
    for name, stage in stages.items():
        net.add_module(name, stage)
    if not head_widths:
        net.keeps = ("activation",)
    return net
