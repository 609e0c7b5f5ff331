from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dltips.tips.model import cnn, mlp
from dltips.train.measure import measure

CPU = torch.device("cpu")
MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    # each with its input's shape and its FLOPs by hand
    "linear": (lambda: nn.Linear(7, 5), (7,), 2 * 7 * 5),
    "mlp": (
        lambda: mlp((1, 8, 8), 10, nn.ReLU, widths=(128, 64), norm="batch"),
        (1, 8, 8),
        2 * (64 * 128 + 128 * 64 + 64 * 10),
    ),
    "cnn": (
        lambda: cnn((3, 8, 8), 10, nn.PReLU, widths=(4, 6), depth=2, kernel_size=3, norm="none", pool="max"),
        (3, 8, 8),
        2 * (9 * 3 * 4 * 64 + 9 * 4 * 4 * 64 + 9 * 4 * 6 * 16 + 9 * 6 * 6 * 16 + 6 * 10),
    ),
    "groups and strides": (
        lambda: nn.Sequential(nn.Conv2d(8, 16, 3, stride=2, groups=4), nn.Conv2d(16, 4, (1, 3), dilation=2)),
        (8, 15, 15),
        2 * (9 * 2 * 16 * 49 + 3 * 16 * 4 * 7 * 3),
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
