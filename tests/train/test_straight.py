"""A net called without the ceremony: the same bits, and nobody's hook is left out."""

from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn

from dltips.train.straight import straight


def net() -> nn.Sequential:
    torch.manual_seed(1)
    block = nn.Sequential(OrderedDict(layer=nn.Linear(4, 8), norm=nn.BatchNorm1d(8), dropout=nn.Dropout(0.5)))
    return nn.Sequential(OrderedDict(block=block, deeper=nn.Sequential(nn.Sequential(nn.ReLU())), head=nn.Linear(8, 3)))


def passed(module: nn.Sequential, inputs: Tensor, *, straightened: bool) -> tuple[Tensor, list[Tensor]]:
    torch.manual_seed(2)  # for the dropout
    outputs = (straight(module) if straightened else module)(inputs)
    outputs.square().sum().backward()
    return outputs, [parameter.grad for parameter in module.parameters() if parameter.grad is not None]


def test_outputs_gradients_and_running_statistics_have_the_same_bits() -> None:
    inputs = torch.randn(6, 4)
    called, straightened = net(), net()
    expected, gradients = passed(called, inputs, straightened=False)
    outputs, found = passed(straightened, inputs, straightened=True)
    assert torch.equal(outputs, expected)
    assert len(found) == len(gradients) == 6
    assert all(torch.equal(one, other) for one, other in zip(found, gradients, strict=True))
    state = called.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in straightened.state_dict().items())


def test_it_follows_a_change_between_training_and_evaluation() -> None:
    module, inputs = net(), torch.randn(6, 4)
    forward = straight(module)
    assert torch.equal(forward(inputs), module.eval()(inputs)) is False
    assert torch.equal(forward(inputs), module(inputs))


@pytest.mark.parametrize("where", ["", "block", "block.norm", "deeper.0", "head"])
@pytest.mark.parametrize("kind", ["forward", "forward_pre", "full_backward"])
def test_hooks_are_called(where: str, kind: str) -> None:
    module, heard = net(), list[str]()
    getattr(module.get_submodule(where), f"register_{kind}_hook")(lambda *_: heard.append(where))
    straight(module)(torch.randn(6, 4, requires_grad=True)).sum().backward()
    assert heard == [where]


def test_hooks_of_all_modules_are_called() -> None:
    heard: list[str] = []
    handle = nn.modules.module.register_module_forward_hook(lambda module, *_: heard.append(type(module).__name__))
    try:
        straight(net())(torch.randn(6, 4))
    finally:
        handle.remove()
    assert heard.count("Sequential") == 4 and heard.count("Linear") == 2


class Doubled(nn.Sequential):
    """A container with a mind of its own."""

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = super().forward(inputs)
        return 2 * outputs


def test_a_container_that_does_more_is_asked_itself() -> None:
    layer, inputs = nn.Linear(4, 3), torch.randn(6, 4)
    assert torch.equal(straight(nn.Sequential(Doubled(layer)))(inputs), 2 * layer(inputs))
    replaced = nn.Sequential(nn.Sequential(layer))
    replaced[0].forward = lambda inputs: 3 * layer(inputs)
    assert torch.equal(straight(replaced)(inputs), 3 * layer(inputs))


def test_what_is_no_chain_is_left_as_it_is() -> None:
    layer = nn.Linear(4, 3)
    assert straight(layer) is layer
