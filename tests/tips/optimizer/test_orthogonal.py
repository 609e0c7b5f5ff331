import copy
import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from dltips.errors import ConfigError
from dltips.nets.flat import FlatModel
from dltips.tips.optimizer import Optimizer, muon, orthogonal
from dltips.train.snapshot import Snapshot

RATE, REST = 0.05, 0.01
STEPS = 12


class Small(nn.Module):
    """Filters, a norm, a tall and a wide matrix, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(2, 6, 3)
        self.norm = nn.BatchNorm2d(6)
        self.tall = nn.Linear(6, 10)
        self.wide = nn.Linear(10, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        features = torch.tanh(self.norm(self.convolution(inputs))).mean((2, 3))
        outputs: Tensor = self.head(torch.tanh(self.wide(torch.tanh(self.tall(features)))))
        return outputs


MATRICES = {"convolution.weight", "tall.weight", "wide.weight"}


def rule_for(net: FlatModel, *, nesterov: bool = True, momentum: float = 0.9) -> Optimizer:
    return muon(
        net,
        lr=RATE,
        momentum=momentum,
        nesterov=nesterov,
        steps=5,
        rest_lr=REST,
        betas=(0.9, 0.95),
        epsilon=1e-8,
    )


def backward(model: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    dtype = next(model.parameters()).dtype
    inputs = torch.randn(16, 2, 5, 5, generator=generator, dtype=dtype)
    functional.cross_entropy(model(inputs), torch.randint(3, (16,), generator=generator)).backward()


def descend(net: FlatModel, seed: int) -> None:
    net.gradients.zero_()
    backward(net.module, seed)
    net.detect_unused()


def newton_schulz(matrix: Tensor) -> Tensor:
    """Five steps of x <- a x + (b A + c A A) x with A = x x^T, on the wide side (Jordan et al. 2024), in float64."""
    if matrix.shape[0] > matrix.shape[1]:
        return newton_schulz(matrix.T).T
    x = matrix / matrix.norm()
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x


class Reference:
    """Muon as torch.optim.Muon writes it: momentum as a moving average, whose size the orthogonal update forgets."""

    def __init__(self, matrices: dict[str, Tensor], *, momentum: float, nesterov: bool) -> None:
        self.matrices, self.momentum, self.nesterov = matrices, momentum, nesterov
        self.averages = {name: torch.zeros_like(matrix) for name, matrix in matrices.items()}

    def step(self, gradients: dict[str, Tensor], rate: float) -> None:
        for name, matrix in self.matrices.items():
            gradient, average = gradients[name], self.averages[name]
            average.lerp_(gradient, 1 - self.momentum)
            direction = gradient.lerp(average, self.momentum) if self.nesterov else average
            rows, columns = matrix.shape
            matrix.sub_(newton_schulz(direction), alpha=rate * math.sqrt(max(1, rows / columns)))


@pytest.mark.parametrize("nesterov", [True, False])
def test_muon_is_the_published_rule_for_matrices_and_filters_and_adam_for_the_rest(nesterov: bool) -> None:
    model = Small().double()
    reference, net = copy.deepcopy(model), FlatModel(model)
    rule = rule_for(net, nesterov=nesterov)
    assert rule.learning_rate == RATE
    named = dict(reference.named_parameters())
    # views of the filters as matrices, which share their memory
    matrices = {name: named[name].data.flatten(1) for name in MATRICES}
    muons = Reference(matrices, momentum=0.9, nesterov=nesterov)
    others = torch.optim.Adam([named[name] for name in named if name not in MATRICES], lr=REST, betas=(0.9, 0.95))
    for step in range(STEPS):
        share = (1 + step % 3) / 2  # a schedule's, on both rates
        descend(net, step)
        rule.step(RATE * share)
        reference.zero_grad()
        backward(reference, step)
        gradients = {name: parameter.grad for name, parameter in named.items() if parameter.grad is not None}
        muons.step({name: gradients[name].flatten(1) for name in MATRICES}, RATE * share)
        others.param_groups[0]["lr"] = REST * share
        others.step()
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(parameter, named[name], rtol=1e-8, atol=1e-10, msg=lambda t, n=name: f"{n}: {t}")
    net.assert_views()


@pytest.mark.parametrize("shape", [(20, 20), (40, 10), (10, 40), (1, 7)])
def test_orthogonal_is_near_u_v_transposed(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    found = orthogonal(matrix, 5)
    # the same singular vectors: in their base only the diagonal is left
    base = u.T @ found @ v.T
    values = base.diagonal()
    torch.testing.assert_close(base, torch.diag(values), rtol=0, atol=1e-9)
    assert 0.65 < float(values.min()) <= float(values.max()) < 1.25
    torch.testing.assert_close(orthogonal(matrix.T, 5), found.T)
    torch.testing.assert_close(orthogonal(1000 * matrix, 5), found)  # the size of a gradient means nothing


def test_a_gradient_of_zero_moves_nothing() -> None:
    assert not orthogonal(torch.zeros(3, 4), 5).any()
    net = FlatModel(Small())
    before = net.parameters.clone()
    rule_for(net).step(RATE)
    assert torch.equal(net.parameters, before)


def test_an_update_has_the_same_length_whatever_the_layers_width() -> None:
    net = FlatModel(Small())
    descend(net, 0)
    before = net.parameters.clone()
    rule_for(net, momentum=0.0, nesterov=False).step(RATE)
    for segment, update in net.views((net.parameters - before) / RATE):
        if segment.name in MATRICES:
            rows, columns = update.flatten(1).shape
            norm = torch.linalg.matrix_norm(update.flatten(1), 2)
            assert 0.6 < float(norm) / math.sqrt(max(1, rows / columns)) < 1.25, segment.name


def test_the_memory_format_of_filters_is_no_matter() -> None:
    nets = [FlatModel(Small().double()), FlatModel(Small().double().to(memory_format=torch.channels_last))]
    nets[1].module.load_state_dict(nets[0].module.state_dict())
    for net in nets:
        rule = rule_for(net)
        for step in range(3):
            descend(net, step)
            rule.step(RATE)
        net.assert_views()
    for name in MATRICES:
        one, other = (net.module.get_parameter(name) for net in nets)
        torch.testing.assert_close(one, other)


def test_muons_state_is_all_that_it_remembers() -> None:
    def training(net: FlatModel, rule: Optimizer) -> Any:
        return SimpleNamespace(net=net, optimizer=rule, schedule=SimpleNamespace(state={}))

    one, two = FlatModel(Small()), FlatModel(Small())
    rule, continued = rule_for(one), rule_for(two)
    for step in range(STEPS):
        if step == STEPS // 2:
            Snapshot.take(training(one, rule), [], 0, 0.0, None).put_back(training(two, continued), [])
        for net, chosen in ((one, rule), (two, continued)):
            if net is one or step >= STEPS // 2:
                descend(net, step)
                chosen.step(RATE)
    assert torch.equal(one.parameters, two.parameters)


def test_a_model_without_hidden_matrices_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^optimizer: muon .*hidden layer.*; write optimizer=adam$"):
        rule_for(FlatModel(nn.Sequential(nn.Flatten(), nn.Linear(4, 2))))


def test_nesterov_without_momentum_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^optimizer\.nesterov: true .*; set optimizer\.momentum=0\.9$"):
        rule_for(FlatModel(Small()), momentum=0.0)
