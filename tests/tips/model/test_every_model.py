"""Each model computes the formula of its card: written out here, or by the library that it takes its layout from."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy
import pytest
import timm
import torch
import torchvision
from sklearn.svm import SVC
from torch import Tensor, nn
from torch.nn import functional

from dltips.catalog import registry
from dltips.catalog.source_reader import knobs
from dltips.tips import model

CLASSES = 4


def made(name: str, shape: tuple[int, ...], activation: Callable[[], nn.Module] = nn.ReLU, **chosen: Any) -> nn.Module:
    """The model with its YAML's knobs and those given, in float64 and eval mode, no weight at a special value."""
    usual = {knob.key.rpartition(".")[2]: knob.default for knob in knobs("model", name)}
    usual = {key: tuple(value) if isinstance(value, list) else value for key, value in usual.items()}
    net: nn.Module = model.model.tips[name](shape, CLASSES, activation, **usual | chosen)
    for tensor in net.parameters():
        nn.init.uniform_(tensor, -0.3, 0.3)
    return net.double().eval()


def batch(*shape: int) -> Tensor:
    return torch.randn(3, *shape, dtype=torch.float64)


def layers(net: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
    """Weight and bias of each layer, in the order of definition."""
    return ((m.weight, m.bias) for m in net.modules() if isinstance(m, (nn.Linear, nn.Conv2d)))


def same(net: nn.Module, inputs: Tensor, expected: Tensor) -> None:
    with torch.no_grad():
        torch.testing.assert_close(net(inputs), expected)


def mlp() -> None:
    net, x = made("mlp", (5,), widths=(7, 6), norm="none"), batch(5)
    *hidden, (weight, bias) = layers(net)
    expected = x
    for w, b in hidden:
        expected = functional.relu(expected @ w.T + b)
    assert [len(b) for _, b in hidden] == [7, 6]
    same(net, x, expected @ weight.T + bias)


def convolved(x: Tensor, stages: list[int], parameters: Iterator[tuple[Tensor, Tensor]]) -> Tensor:
    """So many 3x3 convolutions with ReLU in each stage, a 2x2 max pool behind each; the mean; a linear layer."""
    for depth in stages:
        for _ in range(depth):
            x = functional.relu(functional.conv2d(x, *next(parameters), padding=1))
        x = functional.max_pool2d(x, 2)
    weight, bias = next(parameters)
    assert next(parameters, None) is None
    return x.mean((2, 3)) @ weight.T + bias


def cnn() -> None:
    net, x = made("cnn", (3, 12, 8), widths=(4, 6), depth=2, norm="none"), batch(3, 12, 8)
    same(net, x, convolved(x, [2, 2], layers(net)))


def vgg() -> None:
    net, x = made("vgg", (3, 32, 32), depth=13, width=1 / 16, norm="none"), batch(3, 32, 32)
    same(net, x, convolved(x, [2, 2, 2, 2, 2], layers(net)))


def audio_cnn() -> None:
    """Of a spectrogram; of a waveform too, once it is one."""
    net, x = made("audio_cnn", (1, 12, 16), widths=(4, 6), norm="none"), batch(1, 12, 16)
    same(net, x, convolved(x, [1, 1], layers(net)))
    hears, wave = made("audio_cnn", (1, 2000), widths=(4, 6), norm="none", mels=12), batch(1, 2000)
    same(hears, wave, convolved(hears.get_submodule("log_mel")(wave), [1, 1], layers(hears)))


def resnet() -> None:
    """The smallest of 6n + 2 layers, its shortcuts without parameters: relu(x + F(x)), thrice."""
    net, x = made("resnet", (3, 8, 8), depth=8, norm="none", shortcut="pad"), batch(3, 8, 8)
    parameters = layers(net)
    h = functional.relu(functional.conv2d(x, *next(parameters), padding=1))
    for number in range(3):
        stride = 2 if number else 1
        body = functional.relu(functional.conv2d(h, *next(parameters), padding=1, stride=stride))
        body = functional.conv2d(body, *next(parameters), padding=1)
        new = body.shape[1] - h.shape[1]
        h = functional.relu(body + functional.pad(h[:, :, ::stride, ::stride], (0, 0, 0, 0, new // 2, new // 2)))
    weight, bias = next(parameters)
    same(net, x, h.mean((2, 3)) @ weight.T + bias)


def handed_over(net: nn.Module, reference: nn.Module) -> None:
    """Ours, tensor by tensor in the order of definition."""
    ours, others = list(net.parameters()), list(reference.parameters())
    assert [tensor.shape for tensor in ours] == [tensor.shape for tensor in others]
    for other, tensor in zip(others, ours, strict=True):
        other.data.copy_(tensor.data)


def mobilenet_v2() -> None:
    net = made("mobilenet_v2", (3, 64, 64), nn.ReLU6, stem="imagenet")
    reference = torchvision.models.mobilenet_v2(num_classes=CLASSES).double().eval()
    handed_over(net, reference)
    x = batch(3, 64, 64)
    same(net, x, reference(x).detach())


def squeezenet() -> None:
    """torchvision's, but for the activation behind the last convolution."""
    net = made("squeezenet", (3, 64, 64), stem="imagenet", norm="none", version=1.1)
    reference = torchvision.models.squeezenet1_1(num_classes=CLASSES).double().eval()
    handed_over(net, reference)
    x = batch(3, 64, 64)
    last = reference.classifier[1]
    same(net, x, functional.conv2d(reference.features(x), last.weight, last.bias).mean((2, 3)).detach())


def lstm() -> None:
    net, x = made("lstm", (1, 6, 5), width=7, output="last"), batch(1, 6, 5)
    w, u, b, b2 = (p.detach() for p in list(net.parameters())[:4])
    h = c = torch.zeros(3, 7, dtype=torch.float64)
    for frame in x[:, 0].unbind(-1):  # columns
        i, f, g, o = (frame @ w.T + h @ u.T + b + b2).chunk(4, 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
    weight, bias = list(layers(net))[-1]
    same(net, x, h @ weight.T + bias)


def gru() -> None:
    net, x = made("gru", (1, 6, 5), width=7, output="mean"), batch(1, 6, 5)
    w, u, b, b2 = (p.detach() for p in list(net.parameters())[:4])
    h, states = torch.zeros(3, 7, dtype=torch.float64), []
    for frame in x[:, 0].unbind(-1):
        (r, z, n), (r2, z2, n2) = (frame @ w.T + b).chunk(3, 1), (h @ u.T + b2).chunk(3, 1)
        z = torch.sigmoid(z + z2)
        h = (1 - z) * torch.tanh(n + torch.sigmoid(r + r2) * n2) + z * h
        states.append(h)
    weight, bias = list(layers(net))[-1]
    same(net, x, torch.stack(states).mean(0) @ weight.T + bias)


def svm() -> None:
    """One machine per class against the rest: scikit-learn's values."""
    targets = torch.arange(60) % CLASSES
    inputs = torch.randn(60, 5) + 2 * functional.one_hot(targets, 5)
    net = model.svm((5,), CLASSES, nn.ReLU, kernel="rbf", C=0.7, gamma=0.3)
    net.fit(inputs, targets)
    expected = [
        SVC(C=0.7, gamma=0.3).fit(inputs, targets == index).decision_function(inputs) for index in range(CLASSES)
    ]
    numpy.testing.assert_allclose(net(inputs).detach().numpy(), numpy.stack(expected, 1), atol=1e-4)


def timm_net() -> None:
    net = made("timm", (3, 32, 32), architecture="test_resnet")
    reference = timm.create_model("test_resnet", num_classes=CLASSES).double().eval()
    reference.load_state_dict(net.state_dict())
    x = batch(3, 32, 32)
    same(net, x, reference(x).detach())


def airbench() -> None:
    """Whiten and activate; thrice conv, pool, norm, activation, conv, norm, activation; pool; a scaled linear layer."""
    net, x = made("airbench", (3, 32, 32), nn.GELU, widths=(4, 5, 6), scale=0.5), batch(3, 32, 32)
    whiten = net.get_submodule("whiten")
    whiten.init_from_data(x)
    h = functional.gelu(functional.conv2d(x, whiten.weight, whiten.bias))
    for number in (1, 2, 3):
        stage = net.get_submodule(f"stage{number}")
        h = (
            functional.max_pool2d(functional.conv2d(h, stage.conv1.weight, padding=1), 2)
            + stage.norm1.bias[:, None, None]
        )
        h = functional.conv2d(functional.gelu(h), stage.conv2.weight, padding=1) + stage.norm2.bias[:, None, None]
        h = functional.gelu(h)
    h = functional.max_pool2d(h, 3).flatten(1)
    same(net, x, 0.5 * h @ net.get_submodule("head").weight.T)
    assert math.prod(h.shape[1:]) == 6


CASES: dict[str, Callable[[], None]] = {
    "mlp": mlp,
    "cnn": cnn,
    "vgg": vgg,
    "resnet": resnet,
    "mobilenet_v2": mobilenet_v2,
    "squeezenet": squeezenet,
    "airbench": airbench,
    "audio_cnn": audio_cnn,
    "lstm": lstm,
    "gru": gru,
    "svm": svm,
    "timm": timm_net,
}


@pytest.mark.parametrize("name", registry.load()["model"].tips)
def test_the_formula_of_its_card(name: str) -> None:
    assert name in CASES, (
        f"model={name} has no case: write a function here that computes its card's formula from the net's own weights,"
        f" or by the library that it follows, and add it to CASES as {name!r}"
    )
    CASES[name]()
