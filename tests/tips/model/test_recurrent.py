"""Recurrent nets: the recurrence is written out step by step, and what is a step is told by hand."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dltips.errors import ConfigError
from dltips.nets.spectrogram import LogMel
from dltips.tips.model import gru, lstm
from dltips.tips.model.recurrent import Steps

KINDS = {"lstm": lstm, "gru": gru}
GATES = {"lstm": 4, "gru": 3}


def net(kind: str, shape: tuple[int, ...] = (1, 6, 9), **knobs: Any) -> nn.Module:
    usual = {
        "width": 5,
        "layers": 1,
        "bidirectional": False,
        "steps": "columns",
        "output": "last",
        "head_widths": (),
        "mels": None,
        "sample_rate": None,
    }
    return KINDS[kind](shape, 3, nn.ReLU, **{**usual, **knobs})


def recurrence(kind: str, layer: nn.Module, steps: Tensor) -> Tensor:
    """(N, steps, features) -> (N, steps, width): the formula of the card, one step after the other."""
    w, u, b, c = (layer.get_parameter(f"{name}_l0") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    hidden = torch.zeros(len(steps), u.shape[1])
    cell = torch.zeros_like(hidden)
    outputs = []
    for step in steps.unbind(1):
        from_input, from_hidden = (part.chunk(GATES[kind], 1) for part in (step @ w.T + b, hidden @ u.T + c))
        if kind == "lstm":
            i, f, g, o = (x + h for x, h in zip(from_input, from_hidden, strict=True))
            cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
            hidden = o.sigmoid() * cell.tanh()
        else:
            r, z = ((x + h).sigmoid() for x, h in zip(from_input[:2], from_hidden[:2], strict=True))
            hidden = (1 - z) * (from_input[2] + r * from_hidden[2]).tanh() + z * hidden
        outputs.append(hidden)
    return torch.stack(outputs, 1)


@pytest.mark.parametrize("output", ["last", "mean"])
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_recurrence_of_its_formula(kind: str, output: str) -> None:
    model, inputs = net(kind, output=output), torch.randn(4, 1, 6, 9)
    steps = inputs[:, 0].transpose(1, 2)  # a step per frame
    outputs = recurrence(kind, model.get_submodule("recurrent.layer"), steps)
    summary = outputs[:, -1] if output == "last" else outputs.mean(1)
    assert torch.allclose(model(inputs), model.get_submodule("head")(summary), atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_stages_and_parameters(kind: str) -> None:
    model = net(kind, layers=2, bidirectional=True, head_widths=(7,))
    assert list(dict(model.named_children())) == ["steps", "recurrent", "flatten", "hidden1", "head"]
    # per gate and direction: inputs, units, two biases; the second layer reads both directions
    layers = sum(2 * GATES[kind] * 5 * (features + 5 + 2) for features in (6, 10))
    assert sum(parameter.numel() for parameter in model.parameters()) == layers + (10 * 7 + 7) + (7 * 3 + 3)
    assert model(torch.randn(4, 1, 6, 9)).shape == (4, 3)


def test_a_gru_has_three_quarters_of_an_lstm_s_weights() -> None:
    counts = [sum(p.numel() for p in net(kind).get_submodule("recurrent").parameters()) for kind in ("gru", "lstm")]
    assert counts[0] / counts[1] == 3 / 4


def test_what_a_step_is() -> None:
    images = torch.arange(2 * 3 * 4 * 5.0).reshape(2, 3, 4, 5)
    columns, rows = Steps("columns")(images), Steps("rows")(images)
    assert columns.shape == (2, 5, 12) and rows.shape == (2, 4, 15)
    for place in range(5):
        assert torch.equal(columns[:, place], images[..., place].flatten(1))
    for place in range(4):
        assert torch.equal(rows[:, place], images[:, :, place].flatten(1))
    vectors = torch.randn(2, 7)
    assert torch.equal(Steps("columns")(vectors), vectors[..., None])
    assert torch.equal(Steps("rows")(vectors), vectors[:, None])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("steps", ["columns", "rows"])
@pytest.mark.parametrize("shape", [(7,), (3, 8, 6), (1, 40, 21), (1, 2000)])
def test_vectors_images_spectrograms_and_waveforms(kind: str, steps: str, shape: tuple[int, ...]) -> None:
    assert net(kind, shape, steps=steps)(torch.randn(2, *shape)).shape == (2, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_both_directions_have_read_everything_at_their_last_step(kind: str) -> None:
    model = net(kind, bidirectional=True).get_submodule("recurrent")
    steps = torch.randn(1, 9, 6, requires_grad=True)
    for half in (slice(0, 5), slice(5, 10)):
        (gradient,) = torch.autograd.grad(model(steps)[:, half].sum(), steps)
        assert bool((gradient.abs().amax((0, 2)) > 0).all())


@pytest.mark.parametrize("kind", KINDS)
def test_a_waveform_is_read_as_its_spectrogram(kind: str) -> None:
    model = net(kind, (1, 3200), mels=30, sample_rate=16000)
    waveforms = torch.randn(2, 1, 3200)
    spectrograms = LogMel(16000, 30, "model")(waveforms)
    assert torch.equal(model(waveforms), model[1:](spectrograms))  # type: ignore[index]


def test_the_activation_is_for_hidden_layers_of_the_head_and_else_declared_unused() -> None:
    assert tuple(net("lstm").keeps) == ("activation",)  # type: ignore[arg-type]
    with_hidden = net("gru", head_widths=(4,))
    assert not with_hidden.keeps
    assert isinstance(with_hidden.get_submodule("hidden1.activation"), nn.ReLU)


@pytest.mark.parametrize("kind", KINDS)
def test_knobs_of_waveforms_are_refused_elsewhere(kind: str) -> None:
    with pytest.raises(ConfigError, match=r"^model.mels: 40 is for waveforms, but a sample's shape is \(1, 6, 9\);"):
        net(kind, mels=40)
    with pytest.raises(
        ConfigError, match=rf"^model: {kind} takes waveforms and spectrograms, but a sample's shape is \(2, 9\);"
    ):
        net(kind, (2, 9))
