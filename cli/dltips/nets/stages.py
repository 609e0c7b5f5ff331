"""Divides a net into named stages, from stem to head: their tensors, their outputs, and nets cut at them.

Our own nets are an `nn.Sequential` of named stages. Any other net, timm's for one, is read by its structure: its
children in the order in which they are registered, those of `blocks`, `stages`, `layers`, `features` one by one.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dltips.errors import ConfigError, suggest
from dltips.nets.pooling import Pool, Widths, tensor_of

HEAD = "head"  # the only stage of a net without parts, such as svm
# children that are one stage, whatever their number of layers
SINGLE_STAGE = ("stem", "patch_embed", "head", "classifier", "fc", "pre_logits")


@dataclass(frozen=True)
class Stage:
    """Consecutive modules, by their paths in the net; the output of the last one is the stage's."""

    name: str
    modules: tuple[str, ...]


class _Reached(Exception):
    """Ends a forward pass once the requested outputs are there."""


class End(nn.Module):
    """Replaces a dropped stage: the forward pass ends here."""

    def forward(self, *inputs: Any, **named: Any) -> Any:
        raise _Reached


# The stages of a net


def stages_of(model: nn.Module) -> list[Stage]:
    """Returns the net's stages in the order of its forward pass; the last one is its head, the final classifier.

    A child begins a stage if it has a weight of two dimensions or more; norms, activations and pools join the stage
    before them, and those in front of the first stage join that one.
    """
    heads = _classifiers(model)
    groups: list[list[str]] = []
    names: list[str] = []
    early: list[str] = []  # before the first stage
    in_head = False
    for path, child in _stage_modules(model, heads):
        is_head = any(child is head for head in heads)
        if is_head and in_head:  # a second classifier beside the first
            groups[-1].append(path)
        elif is_head or (not in_head and _has_weights(child)):
            names.append(path)
            groups.append([path])
            in_head = is_head
        elif groups:
            groups[-1].append(path)
        else:
            early.append(path)
    if not groups:
        return [Stage(HEAD, ("",))]
    groups[0] = early + groups[0]
    return [Stage(name, tuple(group)) for name, group in zip(names, groups, strict=True)]


def find_stage(stages: Sequence[Stage], name: str, key: str, architecture: str) -> Stage:
    """Returns the stage of that name. Raises ConfigError with `key`, and the nearest name or all of them."""
    for stage in stages:
        if stage.name == name:
            return stage
    raise ConfigError(
        f"{key}: {name!r} is not a stage of {architecture}{suggest(name, [stage.name for stage in stages])}"
    )


def tensors_of(model: nn.Module, stage: Stage) -> list[str]:
    """Returns the stage's parameters and buffers, by their names in the net's state dict.

    A tensor outside all stages' modules, such as the net's class token, belongs to the first stage after it.
    """
    owners = {path: candidate for candidate in stages_of(model) for path in candidate.modules}
    return [name for name in model.state_dict(keep_vars=True) if _owner(name, owners) == stage]


def modules_of(model: nn.Module, stage: Stage) -> list[nn.Module]:
    """Returns the stage's modules in order; nested modules are left to them."""
    return [model.get_submodule(path) for path in stage.modules]


def _owner(tensor: str, owners: dict[str, Stage]) -> Stage:
    parent = tensor.rpartition(".")[0]
    path = parent
    while path not in owners and path:
        path = path.rpartition(".")[0]
    if path in owners:
        return owners[path]
    # its module spans several stages: the first one within it
    return next(stage for path, stage in owners.items() if not parent or path.startswith(f"{parent}."))


def _classifiers(model: nn.Module) -> list[nn.Module]:
    """Returns the final linear layer or 1x1 convolution; two of them in nets with a distillation token."""
    if callable(get := getattr(model, "get_classifier", None)):
        found = get()
        found = list(found) if isinstance(found, tuple | list) else [found]
        if found := [module for module in found if isinstance(module, nn.Module) and _has_weights(module)]:
            return found
    weighted = [part for part in model.modules() if part is not model and not any(True for _ in part.children())]
    weighted = [part for part in weighted if _has_weights(part)]
    if isinstance(model, nn.Sequential):  # its own child, undivided
        weighted = [child for child in model.children() if _has_weights(child)]
    return weighted[-1:]


def _stage_modules(model: nn.Module, heads: Sequence[nn.Module], prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Yields the modules that make up stages, with their paths."""
    for name, child in model.named_children():
        path = f"{prefix}{name}"
        if any(child is head for head in heads):
            yield path, child
        elif _is_split(path, child) or any(part is head for part in child.modules() for head in heads):
            yield from _stage_modules(child, heads, f"{path}.")
        else:
            yield path, child


def _is_split(path: str, child: nn.Module) -> bool:
    """Returns whether its children are stages: those of `blocks`, but not those of `layer1`."""
    if isinstance(child, nn.ModuleList | nn.ModuleDict) and type(child).forward is nn.Module.forward:
        return True  # a mere list is never called itself
    if not isinstance(child, nn.Sequential) or "." in path or path[-1].isdigit() or path.startswith(SINGLE_STAGE):
        return False
    return sum(_has_weights(part) for part in child) > 1


def _has_weights(module: nn.Module) -> bool:
    """Returns whether it has trainable parameters, one of them more than a scale or a shift."""
    return any(True for _ in module.parameters()) and any(
        tensor.dim() > 1 for tensor in [*module.parameters(), *module.buffers()]
    )


# Cutting a net


def cut(model: nn.Module) -> tuple[nn.Module, nn.Module]:
    """Returns the net without its head, and its head, which share its parameters: head(body(x)) is model(x) to the bit.

    Raises ConfigError for a net that changes its classifier's outputs afterwards.
    """
    *_, last = stages_of(model)
    if last.modules == ("",):
        return nn.Identity(), model
    if isinstance(model, nn.Sequential):
        children = list(model.named_children())
        start = min(index for index, (name, _) in enumerate(children) if name in last.modules)
        return nn.Sequential(OrderedDict(children[:start])), nn.Sequential(OrderedDict(children[start:]))
    classifiers = _classifiers(model)
    paths = [path for path in last.modules if any(model.get_submodule(path) is part for part in classifiers)]
    head = model.get_submodule(paths[0])
    body = _with_replaced(model, {path: nn.Identity() for path in paths})
    if isinstance(head, nn.Conv2d):  # the net flattens the output of its 1x1 convolution
        head = nn.Sequential(
            OrderedDict(unflatten=nn.Unflatten(1, (head.in_channels, 1, 1)), layer=head, flatten=nn.Flatten())
        )
    if len(paths) > 1 or not _hands_over(model, body, head):
        raise ConfigError(
            f"finetune.views: {type(model).__name__} does more than hand over its classifier's outputs, so that its"
            " features cannot be computed once; write finetune.views=0"
        )
    return body, head


def up_to(model: nn.Module, stage_name: str) -> nn.Module:
    """Returns a net whose output is that stage's, unpooled; it shares the parameters and drops the later stages.

    It loads the state dict of the same cut of another net of its architecture.
    """
    stages = stages_of(model)
    stage = find_stage(stages, stage_name, "finetune.stage", type(model).__name__)
    if stage.modules == ("",):
        return model
    later = [path for other in stages[stages.index(stage) + 1 :] for path in other.modules]
    if isinstance(model, nn.Sequential):
        return nn.Sequential(OrderedDict((name, part) for name, part in model.named_children() if name not in later))
    return UpTo(_with_replaced(model, {path: End() for path in later}), stage)


class UpTo(nn.Module):
    """Ends the net's forward pass after one of its stages and returns that stage's output."""

    def __init__(self, net: nn.Module, stage: Stage) -> None:
        super().__init__()
        self.net = net
        self.stage = stage

    def forward(self, inputs: Tensor) -> Any:
        found: dict[str, Any] = {}
        _watch(self.net, inputs, [self.stage], (), found.__setitem__)
        return found[self.stage.name]


def _with_replaced(model: nn.Module, replaced: dict[str, nn.Module]) -> nn.Module:
    """Returns the net with other modules at these paths; everything else is shared with the original."""
    twin = _shallow_copy(model)
    for path, module in replaced.items():
        parent, original = twin, model
        *way, name = path.split(".")
        for step in way:
            original = original.get_submodule(step)
            if parent._modules[step] is original:
                parent._modules[step] = _shallow_copy(original)
            parent = parent.get_submodule(step)
        parent._modules[name] = module
    return twin


def _shallow_copy(module: nn.Module) -> nn.Module:
    """Returns a copy with registers of its own; parameters, buffers and children are shared."""
    twin = copy.copy(module)
    for register in ("_parameters", "_buffers", "_modules", "_forward_hooks", "_forward_pre_hooks"):
        setattr(twin, register, copy.copy(getattr(module, register)))
    return twin


def _hands_over(model: nn.Module, body: nn.Module, head: nn.Module) -> bool:
    """Returns whether head(body(x)) is model(x) to the bit, in eval mode, for one image; restores the modes."""
    modes = [(part, part.training) for net in (model, body, head) for part in net.modules()]
    try:
        for net in (model, body, head):
            net.eval()
        with torch.no_grad():
            images = _example(model)
            features = body(images)
            same = torch.equal(head(features), model(images))
            # a head of zeros would hide its inputs
            return same and features.dim() == 2 and torch.equal(_classifier_inputs(model, head, images), features)
    except (RuntimeError, ValueError, TypeError, AttributeError, AssertionError, LookupError):
        return False
    finally:
        for part, mode in modes:
            part.training = mode


def _classifier_inputs(model: nn.Module, head: nn.Module, images: Tensor) -> Tensor:
    """Returns the flat input of the net's classifier."""
    classifier = head.get_submodule("layer") if isinstance(head, nn.Sequential) else head
    seen: list[Tensor] = []
    handle = classifier.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        model(images)
    finally:
        handle.remove()
    return seen[0].flatten(1)


def _example(model: nn.Module) -> Tensor:
    """Returns an input that the net takes: an image (1, C, H, W) of its own size or timm's for it, or a vector."""
    weights = {parameter.dim(): parameter for parameter in reversed(list(model.parameters()))}  # the first of each
    weight = weights[4] if 4 in weights else weights[2]
    shape: tuple[int, ...] = (1, weight.shape[1])
    if weight.dim() == 4:
        record = getattr(model, "pretrained_cfg", None) or {}
        bound = [getattr(part, "img_size", None) for part in model.modules()]
        sides = [size for size in bound if isinstance(size, tuple) and len(size) == 2]
        shape += tuple(sides[0] if sides else record.get("input_size", (3, 224, 224))[1:])
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(weight.device, weight.dtype)


# Outputs of stages


def outputs(model: nn.Module, inputs: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
    """Returns each named stage's output, pooled: (N, F); one forward pass, which ends after the last of them."""
    pool = pool_of(model)
    found: dict[str, Tensor] = {}

    def see(name: str, output: Any) -> None:
        found[name] = pool(output)

    stages = stages_of(model)
    indices = [stages.index(find_stage(stages, name, "finetune.stage", type(model).__name__)) for name in names]
    if indices:
        wanted = [stages[index] for index in sorted(set(indices))]
        _watch(model, inputs, wanted, stages[max(indices) + 1 :], see)
    return {name: found[name] for name in names}


def shapes(model: nn.Module, inputs: Tensor) -> dict[str, tuple[int, ...]]:
    """Returns each stage's output shape without the batch, in the order of the forward pass.

    A stage that the net never calls itself, such as one of many heads, is left out.
    """
    found: dict[str, tuple[int, ...]] = {}

    def see(name: str, output: Any) -> None:
        found[name] = tuple(tensor_of(output).shape[1:])

    with suppress(ConfigError):  # the error names a stage that the forward pass did not reach
        _watch(model, inputs, stages_of(model), (), see)
    return found


def pool_of(model: nn.Module) -> Pool:
    """Returns a layer that turns any stage's output into (N, F): the mean over positions, tokens or steps."""
    return Pool(Widths.of(model, _classifiers(model)))


def _watch(
    net: nn.Module,
    inputs: Tensor,
    wanted: Sequence[Stage],
    later: Sequence[Stage],
    see: Callable[[str, Any], None],
) -> None:
    """Runs the net until these stages are done; passes each module's outputs to `see`, of which the last counts.

    Raises ConfigError if the net skips one of the stages, or calls it after a dropped one.
    """
    begun: set[str] = set()
    done: set[str] = set()  # a last module that is called again, for another token, has no further output

    def hook(stage: Stage, path: str) -> Callable[[nn.Module, Any, Any], None]:
        def record(_: nn.Module, __: Any, output: Any) -> None:
            if path == stage.name or path == "":
                begun.add(stage.name)
            # before a net's first layer there is no output yet
            if stage.name in begun - done:
                see(stage.name, output)
                if path == stage.modules[-1]:
                    done.add(stage.name)

        return record

    def leave(*_: Any) -> None:
        if len(begun) == len(wanted):
            raise _Reached

    with ExitStack() as stack:
        for stage in wanted:
            for path in stage.modules:
                module = net.get_submodule(path)
                stack.callback(module.register_forward_hook(hook(stage, path)).remove)
        # at once: later layers may change the output in place
        stack.callback(modules_of(net, wanted[-1])[-1].register_forward_hook(leave).remove)
        for stage in later:
            for module in modules_of(net, stage):
                stack.callback(module.register_forward_pre_hook(leave).remove)
        with suppress(_Reached):
            net(inputs)
    for stage in wanted:
        if stage.name not in begun:
            raise ConfigError(
                f"finetune.stage: {type(net).__name__} does not call {stage.name} before the stages behind it; take"
                " another stage"
            )
