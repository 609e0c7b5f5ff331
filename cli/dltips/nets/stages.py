"""A net as a row of named stages, from stem to head: which tensors belong to each, what each puts out, nets cut there.

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

HEAD = "head"  # the one stage of a net that has no parts, as svm
# children that are one stage however many layers they have
SINGLE_STAGE = ("stem", "patch_embed", "head", "classifier", "fc", "pre_logits")


@dataclass(frozen=True)
class Stage:
    """Modules that follow each other, by their paths in the net; the output of the last one is the stage's."""

    name: str
    modules: tuple[str, ...]


class _Reached(Exception):
    """What was asked for is there: the rest of the forward pass is left out."""


class End(nn.Module):
    """In place of a stage that was dropped: the forward pass ends here."""

    def forward(self, *inputs: Any, **named: Any) -> Any:
        raise _Reached


# The stages of a net


def stages_of(model: nn.Module) -> list[Stage]:
    """The net's stages in the order of its forward pass; the last one is its head, the final classifier.

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
    """The stage of that name. Errors: ConfigError, one line with `key`, the nearest name or all of them."""
    for stage in stages:
        if stage.name == name:
            return stage
    raise ConfigError(f"{key}: {name!r} is no stage of {architecture}{suggest(name, [stage.name for stage in stages])}")


def tensors_of(model: nn.Module, stage: Stage) -> list[str]:
    """The stage's parameters and buffers, as the net's state dict names them.

    What belongs to no stage's module, as a class token of the net itself, belongs to the first stage behind it.
    """
    owners = {path: candidate for candidate in stages_of(model) for path in candidate.modules}
    return [name for name in model.state_dict(keep_vars=True) if _owner(name, owners) == stage]


def modules_of(model: nn.Module, stage: Stage) -> list[nn.Module]:
    """The stage's modules in order; the parts in them are theirs to tell."""
    return [model.get_submodule(path) for path in stage.modules]


def _owner(tensor: str, owners: dict[str, Stage]) -> Stage:
    parent = tensor.rpartition(".")[0]
    path = parent
    while path not in owners and path:
        path = path.rpartition(".")[0]
    if path in owners:
        return owners[path]
    # its module is not whole in one stage: the first one of those in it
    return next(stage for path, stage in owners.items() if not parent or path.startswith(f"{parent}."))


def _classifiers(model: nn.Module) -> list[nn.Module]:
    """The final linear layer or 1x1 convolution; two of them in nets with a distillation token."""
    if callable(get := getattr(model, "get_classifier", None)):
        found = get()
        found = list(found) if isinstance(found, tuple | list) else [found]
        if found := [module for module in found if isinstance(module, nn.Module) and _has_weights(module)]:
            return found
    weighted = [part for part in model.modules() if part is not model and not any(True for _ in part.children())]
    weighted = [part for part in weighted if _has_weights(part)]
    if isinstance(model, nn.Sequential):  # its own child, whole
        weighted = [child for child in model.children() if _has_weights(child)]
    return weighted[-1:]


def _stage_modules(model: nn.Module, heads: Sequence[nn.Module], prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The modules that stages are made of, with their paths."""
    for name, child in model.named_children():
        path = f"{prefix}{name}"
        if any(child is head for head in heads):
            yield path, child
        elif _is_split(path, child) or any(part is head for part in child.modules() for head in heads):
            yield from _stage_modules(child, heads, f"{path}.")
        else:
            yield path, child


def _is_split(path: str, child: nn.Module) -> bool:
    """Whether its children are stages: those of `blocks`, but not those of `layer1`."""
    if isinstance(child, nn.ModuleList | nn.ModuleDict) and type(child).forward is nn.Module.forward:
        return True  # a mere list is never called as a whole
    if not isinstance(child, nn.Sequential) or "." in path or path[-1].isdigit() or path.startswith(SINGLE_STAGE):
        return False
    return sum(_has_weights(part) for part in child) > 1


def _has_weights(module: nn.Module) -> bool:
    """Whether it has something to learn, and a tensor that is more than a scale or a shift."""
    return any(True for _ in module.parameters()) and any(
        tensor.dim() > 1 for tensor in [*module.parameters(), *module.buffers()]
    )


# Cutting a net


def cut(model: nn.Module) -> tuple[nn.Module, nn.Module]:
    """The net without its head, and its head, which share its parameters: head(body(x)) is model(x) to the bit.

    Errors: ConfigError for a net that does more to its classifier's outputs than hand them over.
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
    if isinstance(head, nn.Conv2d):  # the net flattens what comes out of its 1x1 convolution
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
    """A net whose output is that stage's, unpooled; it shares the parameters, and what comes after is dropped.

    Made anew of a net of the same architecture it takes the same state dict.
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
    """A net that is left when one of its stages has its output."""

    def __init__(self, net: nn.Module, stage: Stage) -> None:
        super().__init__()
        self.net = net
        self.stage = stage

    def forward(self, inputs: Tensor) -> Any:
        found: dict[str, Any] = {}
        _watch(self.net, inputs, [self.stage], (), found.__setitem__)
        return found[self.stage.name]


def _with_replaced(model: nn.Module, replaced: dict[str, nn.Module]) -> nn.Module:
    """The net with other modules at these paths; all else is shared with it, and it stays as it is."""
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
    """The same parameters, buffers and children, in registers of its own."""
    twin = copy.copy(module)
    for register in ("_parameters", "_buffers", "_modules", "_forward_hooks", "_forward_pre_hooks"):
        setattr(twin, register, copy.copy(getattr(module, register)))
    return twin


def _hands_over(model: nn.Module, body: nn.Module, head: nn.Module) -> bool:
    """Whether head(body(x)) is model(x) to the bit, in eval mode, for one image; the modes are left as they were."""
    modes = [(part, part.training) for net in (model, body, head) for part in net.modules()]
    try:
        for net in (model, body, head):
            net.eval()
        with torch.no_grad():
            images = _example(model)
            features = body(images)
            same = torch.equal(head(features), model(images))
            # a head of zeros would hide what goes into it
            return same and features.dim() == 2 and torch.equal(_classifier_inputs(model, head, images), features)
    except (RuntimeError, ValueError, TypeError, AttributeError, AssertionError, LookupError):
        return False
    finally:
        for part, mode in modes:
            part.training = mode


def _classifier_inputs(model: nn.Module, head: nn.Module, images: Tensor) -> Tensor:
    """What the net hands to its classifier, flat."""
    classifier = head.get_submodule("layer") if isinstance(head, nn.Sequential) else head
    seen: list[Tensor] = []
    handle = classifier.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        model(images)
    finally:
        handle.remove()
    return seen[0].flatten(1)


def _example(model: nn.Module) -> Tensor:
    """An image that the net takes, (1, C, H, W), of the size that it is bound to or timm's for it; or a vector."""
    weights = {parameter.dim(): parameter for parameter in reversed(list(model.parameters()))}  # the first of each
    weight = weights[4] if 4 in weights else weights[2]
    shape: tuple[int, ...] = (1, weight.shape[1])
    if weight.dim() == 4:
        record = getattr(model, "pretrained_cfg", None) or {}
        bound = [getattr(part, "img_size", None) for part in model.modules()]
        sides = [size for size in bound if isinstance(size, tuple) and len(size) == 2]
        shape += tuple(sides[0] if sides else record.get("input_size", (3, 224, 224))[1:])
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(weight.device, weight.dtype)


# What stages put out


def outputs(model: nn.Module, inputs: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
    """Each named stage's output, pooled: (N, F); one forward pass, which ends behind the last of them."""
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
    """Each stage's output shape without the batch, in the order in which the net comes to them.

    A stage that the net does not call as a whole, as one of many heads, is not among them.
    """
    found: dict[str, tuple[int, ...]] = {}

    def see(name: str, output: Any) -> None:
        found[name] = tuple(tensor_of(output).shape[1:])

    with suppress(ConfigError):  # says which one it did not come to
        _watch(model, inputs, stages_of(model), (), see)
    return found


def pool_of(model: nn.Module) -> Pool:
    """What makes (N, F) of any stage's output: the mean over places, tokens or steps, as a layer behind the stage."""
    return Pool(Widths.of(model, _classifiers(model)))


def _watch(
    net: nn.Module,
    inputs: Tensor,
    wanted: Sequence[Stage],
    later: Sequence[Stage],
    see: Callable[[str, Any], None],
) -> None:
    """Run the net until these stages are done; show what each one's modules put out, of which the last counts.

    Errors: ConfigError if the net leaves out one of the stages, or calls it behind one of those that were dropped.
    """
    begun: set[str] = set()
    done: set[str] = set()  # a last module that is called again, for another token, puts out no more

    def hook(stage: Stage, path: str) -> Callable[[nn.Module, Any, Any], None]:
        def record(_: nn.Module, __: Any, output: Any) -> None:
            if path == stage.name or path == "":
                begun.add(stage.name)
            # what comes in front of a net's first layer is no output yet
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
        # at once, because what follows may change the output in place
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
