import sys
from collections import OrderedDict
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dltips.nets.blocks import Concat
from dltips.nets.size import measure, receptive_field
from dltips.tips.model import airbench, cnn, mlp, resnet, squeezenet, svm, timm_net, vgg

CPU = torch.device("cpu")


def small_cnn(shape: tuple[int, ...], activation: Callable[[], nn.Module], **knobs: Any) -> nn.Sequential:
    usual = {"widths": (4, 6), "depth": 2, "kernel_size": 3, "norm": "none", "groups": None, "pool": "max2"}
    rest = {"activation_after_pool": False, "head": "global", "head_widths": ()}
    model = cnn(shape, 10, activation, **{**usual, **rest, **knobs})
    assert isinstance(model, nn.Sequential)
    return model


def small_resnet(shape: tuple[int, ...], **knobs: Any) -> nn.Module:
    usual = {"depth": 8, "stem": "cifar", "width": 0.25, "shortcut": "projection", "norm": "batch", "groups": None}
    return resnet(shape, 10, nn.ReLU, **{**usual, **knobs})


def small_squeezenet(shape: tuple[int, ...], stem: str) -> nn.Module:
    knobs: dict[str, Any] = {"stem": stem, "version": 1.1, "width": 0.125, "norm": "batch", "groups": None}
    return squeezenet(shape, 10, nn.ReLU, **knobs)


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    # each with its input's shape and its FLOPs by hand
    "linear": (lambda: nn.Linear(7, 5), (7,), 2 * 7 * 5),
    "mlp": (
        lambda: mlp((1, 8, 8), 10, nn.ReLU, widths=(128, 64), norm="batch"),
        (1, 8, 8),
        2 * (64 * 128 + 128 * 64 + 64 * 10),
    ),
    "cnn": (
        lambda: small_cnn((3, 8, 8), nn.PReLU),
        (3, 8, 8),
        2 * (9 * 3 * 4 * 64 + 9 * 4 * 4 * 64 + 9 * 4 * 6 * 16 + 9 * 6 * 6 * 16 + 6 * 10),
    ),
    "groups and strides": (
        lambda: nn.Sequential(nn.Conv2d(8, 16, 3, stride=2, groups=4), nn.Conv2d(16, 4, (1, 3), dilation=2)),
        (8, 15, 15),
        2 * (9 * 2 * 16 * 49 + 3 * 16 * 4 * 7 * 3),
    ),
    "airbench": (
        lambda: airbench((3, 32, 32), 10, nn.GELU, widths=(4, 4), memory=0.6, scale=1.0, epsilon=1e-4),
        (3, 32, 32),
        2 * (12 * 24 * 31**2 + 9 * (24 * 4 * 31**2 + 4 * 4 * 15**2 + 4 * 4 * 15**2 + 4 * 4 * 7**2) + 16 * 10),
    ),
    "one dimension": (lambda: nn.Conv1d(3, 5, 4), (3, 20), 2 * 4 * 3 * 5 * 17),
    "linear at every place": (lambda: nn.Linear(6, 5), (4, 6), 2 * 4 * 6 * 5),
}


@pytest.mark.parametrize("name", MODELS)
def test_flops_are_two_per_multiply_add_and_torchs(name: str) -> None:
    make, shape, flops = MODELS[name]
    model = make()
    assert measure(model, shape, CPU).flops_per_sample == flops
    counter = FlopCounterMode(display=False)
    with counter:
        model.eval()(torch.zeros(1, *shape))
    assert counter.get_total_flops() == flops


def test_a_layer_that_is_used_twice_counts_twice() -> None:
    layer = nn.Linear(5, 5)
    found = measure(nn.Sequential(layer, layer), (5,), CPU)
    assert (found.flops_per_sample, found.parameters) == (2 * 2 * 25, 30)


def test_parameters_and_megabytes_with_those_that_do_not_train_and_with_buffers() -> None:
    model = mlp((8,), 3, nn.ReLU, widths=(16,), norm="batch")
    next(model.parameters()).requires_grad_(False)
    found = measure(model, (8,), CPU)
    assert found.parameters == 8 * 16 + 2 * 16 + 16 * 3 + 3
    # four bytes each; two statistics per unit and a count of eight bytes
    assert found.size_mb == pytest.approx((4 * found.parameters + 4 * 2 * 16 + 8) / 1e6, abs=1e-9)


@pytest.mark.parametrize("training", [True, False])
def test_measuring_changes_nothing(training: bool) -> None:
    model = MODELS["mlp"][0]().train(training)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    stream = torch.get_rng_state()
    measure(model, (1, 8, 8), CPU)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert {layer.training for layer in model.modules()} == {training}
    assert not any(layer._forward_hooks for layer in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), stream)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3)])
def test_a_recurrent_layer_multiplies_its_matrices_once_per_step(kind: Any, gates: int, batch_first: bool) -> None:
    class Last(nn.Module):
        def forward(self, found: tuple[Tensor, Any]) -> Tensor:
            return found[0]

    layer = kind(5, 7, num_layers=2, bidirectional=True, batch_first=batch_first)
    # the shape without the batch; time first means that the measured sample is one step of a batch of eleven
    steps = 11 if batch_first else 1
    per_step = sum(2 * gates * 7 * (inputs + 7) for inputs in (5, 5, 14, 14))
    assert measure(nn.Sequential(layer, Last()), (11, 5), CPU).flops_per_sample == per_step * steps


def test_attention_is_counted_with_its_products() -> None:
    model = timm_net((3, 32, 32), 10, nn.ReLU, architecture="test_vit", drop_rate=0.0, drop_path_rate=0.0, swap=False)
    seen = 0

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal seen
        weight = layer.get_parameter("weight")
        places = output[0].numel() // weight.shape[0]
        seen += 2 * weight.numel() * places

    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    handles = [layer.register_forward_hook(count) for layer in layers]
    model.eval()(torch.zeros(1, 3, 32, 32))
    for handle in handles:
        handle.remove()
    blocks = list(model.get_submodule("blocks").children())
    # queries times keys, and weights times values, of 2x2 patches and a class token of 64 numbers
    tokens, width = 2 * 2 + 1, model.get_parameter("cls_token").shape[-1]
    assert measure(model, (3, 32, 32), CPU).flops_per_sample == seen + len(blocks) * 2 * 2 * tokens**2 * width


def test_attention_without_weights_of_its_own_is_counted_too() -> None:
    class SelfAttention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.project = nn.Linear(8, 24)

        def forward(self, tokens: Tensor) -> Tensor:
            return nn.functional.scaled_dot_product_attention(*self.project(tokens)[:, None].chunk(3, -1))

    assert measure(SelfAttention(), (5, 8), CPU).flops_per_sample == 2 * 5 * 8 * 24 + 2 * 2 * 5 * 5 * 8


def test_a_support_vector_machine_multiplies_by_its_vectors() -> None:
    model = svm((6,), 3, nn.ReLU, kernel="rbf", C=1.0, gamma="scale")
    model.fit(torch.randn(40, 6), torch.arange(40) % 3)  # type: ignore[operator]
    vectors = len(model.get_buffer("vectors"))
    assert 3 < vectors <= 40
    assert measure(model, (6,), CPU).flops_per_sample == 2 * vectors * (6 + 3)


def test_our_own_nets_are_measured_without_torch_s_counter(monkeypatch: pytest.MonkeyPatch) -> None:
    # its import takes 1.5 s
    monkeypatch.setitem(sys.modules, "torch.utils.flop_counter", None)
    for name in ("mlp", "cnn"):
        measure(MODELS[name][0](), MODELS[name][1], CPU)
    assert measure(small_resnet((3, 16, 16)), (3, 16, 16), CPU).flops_per_sample > 0


def seen_by_centre(features: nn.Module, side: int) -> tuple[int, int]:
    """The rows and columns of the input from which NaN reaches the unit in the middle of the last feature map."""
    features = features.eval()
    for name, weight in features.named_parameters():
        weight.data.fill_(1.0 if name.endswith("weight") else 0.0)
    found = []
    for axis in (2, 3):
        images = torch.ones(side, 1, side, side)
        for place in range(side):
            images[place].select(axis - 1, place).fill_(torch.nan)
        with torch.inference_mode():
            maps = features(images)
        row, column = maps.shape[2] // 2, maps.shape[3] // 2
        found.append(int(maps[:, :, row, column].isnan().any(1).sum()))
    return found[0], found[1]


FEATURES: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "cnn": (lambda: small_cnn((1, 48, 48), nn.ReLU), 48),
    "cnn 5x5, three stages": (lambda: small_cnn((1, 96, 96), nn.Tanh, widths=(2, 2, 2), depth=1, kernel_size=5), 96),
    "cnn without a pool": (lambda: small_cnn((1, 24, 24), nn.ReLU, pool="none", norm="batch"), 24),
    "activation after the pool": (lambda: small_cnn((1, 48, 48), nn.ReLU, activation_after_pool=True), 48),
    "resnet": (lambda: small_resnet((1, 64, 64)), 64),
    "resnet, padded": (lambda: small_resnet((1, 64, 64), shortcut="pad"), 64),
    "resnet, imagenet stem": (lambda: small_resnet((1, 128, 128), stem="imagenet", width=0.125), 128),
    "squeezenet": (lambda: small_squeezenet((1, 72, 72), "cifar"), 72),
}


@pytest.mark.parametrize("name", FEATURES)
def test_the_receptive_field_is_what_reaches_a_unit(name: str) -> None:
    make, side = FEATURES[name]
    model = make()
    children = list(model.children())
    features = nn.Sequential(*children[: next(i for i, part in enumerate(children) if _ends(part))])
    assert receptive_field(model) == seen_by_centre(features, side)


def _ends(part: nn.Module) -> bool:
    # the head of a squeezenet, a 1x1 convolution, moves nothing
    return isinstance(part, nn.AdaptiveAvgPool2d | nn.Flatten)


def test_known_receptive_fields() -> None:
    knobs: dict[str, Any] = {"width": 0.02, "norm": "none", "groups": None, "head": "global", "head_widths": ()}
    # Araujo et al. 2019, distill.pub/2019/computing-receptive-fields: vgg_16 212 at its last pool, resnet_v1_50 483,
    # which strides in the 1x1 convolutions; in the 3x3 ones 427
    assert receptive_field(vgg((3, 32, 32), 10, nn.ReLU, depth=16, **knobs)) == (212, 212)
    assert receptive_field(small_resnet((3, 64, 64), depth=50, stem="imagenet", width=0.02)) == (427, 427)


@pytest.mark.parametrize(("kernel", "stride", "dilation"), list(product((1, 3), (1, 2), (1, 2))))
def test_a_sequence_and_axes_that_differ(kernel: int, stride: int, dilation: int) -> None:
    layers = [nn.Conv1d(2, 2, kernel, stride, dilation=dilation), nn.MaxPool1d(3, 2), nn.Conv1d(2, 2, 3)]
    # each layer adds (kernel - 1) * dilation * the strides before it
    assert receptive_field(nn.Sequential(*layers)) == (1 + (kernel - 1) * dilation + 2 * stride + 2 * 2 * stride,)
    assert receptive_field(nn.Conv2d(2, 2, (kernel, 5), (stride, 1))) == (kernel, 5)


def test_a_convolution_by_another_name() -> None:
    # 2 + 2, then pools and convolutions at strides of 1, 2, 4 and 8, then a pool of 3
    model = airbench((3, 32, 32), 10, nn.GELU, widths=(4, 4, 4), memory=0.6, scale=1.0, epsilon=1e-4)
    assert receptive_field(model) == (2 + 2 + 1 + 4 + 4 + 2 + 8 + 8 + 4 + 16 + 16,) * 2


def test_branches_of_which_one_sees_more() -> None:
    narrow, wide = nn.Conv2d(2, 2, 1), nn.Sequential(nn.Conv2d(2, 2, 3), nn.Conv2d(2, 2, 3))
    assert receptive_field(Concat(OrderedDict(narrow=narrow, wide=wide))) == (5, 5)


def test_nets_without_feature_maps_or_of_unknown_make_have_no_receptive_field() -> None:
    class Own(nn.Module):
        pass

    assert receptive_field(mlp((1, 8, 8), 10, nn.ReLU, widths=(4,), norm="batch")) is None
    assert receptive_field(nn.LSTM(3, 4)) is None
    assert receptive_field(nn.Sequential(nn.Conv2d(1, 1, 3), Own())) is None
    assert receptive_field(nn.Sequential(nn.Conv2d(1, 1, 3), nn.Flatten(), Own())) == (3, 3)
