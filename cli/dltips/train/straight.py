"""A net of modules one after another, without what calling each of them costs: 4 % of a step of the digits mlp."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor, nn
from torch.nn.modules import module as torch_module

Forward = Callable[[Tensor], Tensor]


def straight(forward: Forward) -> Forward:
    """The same operations in the same order. Hooks that modules have now are called, those of later ones are not."""
    if type(forward) is not nn.Sequential:
        return forward
    steps = tuple(_steps(forward))

    def passed(inputs: Tensor) -> Tensor:
        for step in steps:
            inputs = step(inputs)
        return inputs

    return passed


def _steps(module: nn.Module) -> Iterator[Forward]:
    if not _is_plain(module):
        yield module
    elif type(module) is nn.Sequential:
        for part in module:
            yield from _steps(part)
    else:
        yield module.forward


def _is_plain(module: nn.Module) -> bool:
    """Whether a call is nothing but its forward: what torch's `Module._call_impl` asks in each call."""
    hooks = (
        module._forward_hooks,
        module._forward_pre_hooks,
        module._backward_hooks,
        module._backward_pre_hooks,
        torch_module._global_forward_hooks,
        torch_module._global_forward_pre_hooks,
        torch_module._global_backward_hooks,
        torch_module._global_backward_pre_hooks,
        module._compiled_call_impl,
    )
    own = "forward" in vars(module) and type(module) is nn.Sequential
    return not any(hooks) and type(module).__call__ is nn.Module.__call__ and not own
