"""Detects a file's naming scheme and loads all tensors but the head's into our model."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from dltips.catalog.registry import Tip
from dltips.errors import ConfigError
from dltips.formatting import few
from dltips.nets import stages
from dltips.nets.key_maps import KeyMap, key_maps_of
from dltips.tips.finetune.base import FinetuneKnobs
from dltips.weights.identify_architecture import nearest

if TYPE_CHECKING:
    from dltips.weights.source import Pretrained

# prefixes of a net that was part of another one
PREFIXES = ("backbone.", "encoder.", "net.", "network.", "model.", "body.", "base_model.", "student.", "teacher.")
ANY_SIDE, ANY_CLASSES = 224, 10  # of a net that is built only for the names of its tensors
COUNTER = "num_batches_tracked"  # of batch norm: the number of updates, which nothing reads


@dataclass(frozen=True)
class Naming:
    """A file's tensors under our names, by one way of reading its own names."""

    key_map: KeyMap | None  # None: the file has our names
    state: Mapping[str, Tensor]
    theirs: Mapping[str, str]  # our name -> the file's


@dataclass(frozen=True)
class Loaded:
    """The outcome of loading."""

    report: str  # one line: the matching, missing and unused tensors
    missing: Sequence[str]  # parameters and statistics before the head that keep their initial values


def load_into(pretrained: Pretrained, model: nn.Module, model_tip: Tip, common: FinetuneKnobs) -> Loaded:
    """Loads the file's values into all of the net but its head.

    A tensor matches if name and shape agree; of all ways to read the file's names, the one with most matches is taken.
    Raises ConfigError below common.min_match of the parameters, and for values that are not finite.
    """
    net = model.state_dict()
    head = set(stages.tensors_of(model, stages.stages_of(model)[-1]))
    parameters = [name for name, _ in model.named_parameters(remove_duplicate=False) if name not in head]
    total = sum(net[name].numel() for name in parameters)
    if total == 0:
        raise ConfigError(f"finetune.source: model={model_tip.name} has nothing before its head to be set; take a net")

    def matched(naming: Naming) -> int:
        return sum(net[name].numel() for name in parameters if _matches(naming.state, net, name))

    def rank(naming: Naming) -> tuple[int, int, int]:
        return matched(naming), len(head & naming.state.keys()), -_contradictions(naming.key_map, model_tip)

    naming = max(namings(pretrained, model_tip, common), key=rank)
    count = matched(naming)
    if count < common.min_match * total:
        raise ConfigError(_mismatch_message(pretrained, model_tip, common, naming, net, parameters, count, total))
    taken = [name for name in net if name not in head and _matches(naming.state, net, name)]
    invalid = [name for name in taken if not bool(naming.state[name].isfinite().all())]
    if invalid:
        raise ConfigError(
            f"finetune.source: {pretrained.origin} has values that are not finite (NaN or infinite) in {few(invalid)};"
            " its training diverged, or the file is damaged: take another one"
        )
    with torch.no_grad():
        for name in taken:
            net[name].copy_(naming.state[name])
    done = set(taken)
    missing = [name for name in parameters if name not in done]
    known = {*parameters, *head, *taken}
    statistics = [name for name in net if name not in known and not name.endswith(COUNTER)]
    left = [naming.theirs[name] for name in naming.state if name not in done and not name.endswith(COUNTER)]
    line = f"{pretrained.origin}: {count:,} of {total:,} parameters matched ({_naming_text(naming, model_tip)})"
    line += "; the head is new"
    line += f"; missing, and new as well: {few(missing)}" if missing else ""
    line += f"; without statistics, which begin anew: {few(statistics)}" if statistics else ""
    line += f"; left over: {few(left)}" if left else ""
    return Loaded(line, [*missing, *statistics])


def refuse_foreign(pretrained: Pretrained, model_tip: Tip, common: FinetuneKnobs) -> None:
    """Refuses, before any data are read, a bare file that shares hardly a name with the net.

    The net is built without memory for its weights, for images of any size: names do not depend on it. Raises the same
    ConfigError as `load_into`.
    """
    recognized = pretrained.shape is not None or pretrained.sides is not None
    if recognized or model_tip.name == "timm":  # slow to build, and then only once
        return
    try:
        with torch.device("meta"):
            net: nn.Module = model_tip((pretrained.channels or 3, ANY_SIDE, ANY_SIDE), ANY_CLASSES, nn.ReLU)
    except (ConfigError, RuntimeError, NotImplementedError):
        return
    names = set(net.state_dict())
    shared = max(len(names & naming.state.keys()) for naming in namings(pretrained, model_tip, common))
    if 2 * shared < len(names):
        load_into(pretrained, net, model_tip, common)


def namings(pretrained: Pretrained, model_tip: Tip, common: FinetuneKnobs) -> Iterator[Naming]:
    """Yields every reading of the file's names: unchanged, by finetune.keys, by key maps, without a prefix."""
    theirs = _by_keys(pretrained, common)
    for names in (theirs, *_unprefixed(theirs)):
        state = {ours: pretrained.state[name] for ours, name in names.items()}
        yield Naming(None, state, names)
        for key_map in key_maps_of(model_tip.function):
            translated = key_map.translated(state)
            back = {key_map.ours(name): names[name] for name in names}
            yield Naming(key_map, translated, {name: back[name] for name in translated})


def _by_keys(pretrained: Pretrained, common: FinetuneKnobs) -> dict[str, str]:
    """Returns our names -> the file's, by finetune.keys. Raises ConfigError for an invalid or unused pattern."""
    renamed = {name: name for name in pretrained.state}
    for key in common.keys:
        pattern, arrow, replacement = key.partition("->")
        if not arrow:
            raise ConfigError(
                f"finetune.keys: '{key}' is not a PATTERN->REPLACEMENT; write 'finetune.keys=[\"^layer->stage\"]'"
            )
        try:
            after = {re.sub(pattern, replacement, ours): theirs for ours, theirs in renamed.items()}
        except (re.error, IndexError) as error:
            raise ConfigError(
                f"finetune.keys: '{key}' is not a regular expression with its replacement ({error}); fix it"
            ) from error
        if list(after) == list(renamed):
            raise ConfigError(
                f"finetune.keys: '{key}' changes none of the names in {pretrained.origin} ({few(renamed)}); fix it"
            )
        if len(after) < len(renamed):
            raise ConfigError(
                f"finetune.keys: '{key}' gives {len(renamed) - len(after)} tensors the name of another; fix it"
            )
        renamed = after
    return renamed


def _unprefixed(theirs: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Yields the tensors without a prefix that at least half of the names have, one prefix after the other."""
    for _ in PREFIXES:
        for prefix in PREFIXES:
            inside = {name.removeprefix(prefix): file for name, file in theirs.items() if name.startswith(prefix)}
            if 2 * len(inside) >= len(theirs) > 0:
                # the others may be a head beside it
                theirs = {name: file for name, file in theirs.items() if not name.startswith(prefix)} | inside
                yield dict(theirs)
                break
        else:
            return


def _matches(state: Mapping[str, Tensor], net: Mapping[str, Tensor], name: str) -> bool:
    return name in state and state[name].shape == net[name].shape


def _contradictions(key_map: KeyMap | None, model_tip: Tip) -> int:
    """Returns how many of the model's switches differ from those of the nets with these names."""
    settings = key_map.settings if key_map is not None else {}
    wanted = {key.removeprefix("model."): value for key, value in settings.items() if key.startswith("model.")}
    return sum(model_tip.knobs.get(key) != value for key, value in wanted.items())


def _naming_text(naming: Naming, model_tip: Tip) -> str:
    if naming.key_map is not None:
        return f"{naming.key_map.name}'s names"
    return f"{'timm' if model_tip.name == 'timm' else 'dltips'}'s names".replace("s's", "s'")


def _mismatch_message(
    pretrained: Pretrained,
    model_tip: Tip,
    common: FinetuneKnobs,
    naming: Naming,
    net: Mapping[str, Tensor],
    parameters: Sequence[str],
    count: int,
    total: int,
) -> str:
    """Returns the error: how much matched, what did not, and the remedy."""
    missing = [name for name in parameters if name not in naming.state]
    shapes = [
        f"{name} {_shape(naming.state[name])} for {_shape(net[name])}"
        for name in parameters
        if name in naming.state and not _matches(naming.state, net, name)
    ]
    architecture = str(model_tip.knobs["architecture"]) if model_tip.name == "timm" else model_tip.name
    line = f"finetune.source: {pretrained.origin} has {count:,} of {architecture}'s {total:,} parameters"
    line += f" ({count / total:.0%}), and finetune.min_match asks for {common.min_match:.0%}"
    line += f"; missing: {few(missing)}" if missing else ""
    line += f"; of another shape: {few(shapes)}" if shapes else ""
    unchanged = {name: name for name in pretrained.state}
    *_, plain = (unchanged, *_unprefixed(unchanged))
    near = nearest({name: pretrained.state[theirs] for name, theirs in plain.items()}, model_tip)
    chosen = {f"model={model_tip.name}", *(f"model.{key}={value}" for key, value in model_tip.knobs.items())}
    if near is not None and {word.replace("'", "") for word in near.typed.split()} <= {
        word.replace(" ", "").replace("(", "[").replace(")", "]").replace(",]", "]") for word in chosen
    }:
        return f"{line}; it is this net for inputs of another size: write data.image_size with that of its training"
    if near is not None:
        return f"{line}; the file looks like {near.name}: write {near.typed}"
    return f"{line}; its names are like {few(_examples(list(pretrained.state)))}: map them by finetune.keys"


def _examples(names: Sequence[str]) -> list[str]:
    weights = [name for name in names if name.endswith("weight")] or list(names)
    return weights[:2] + weights[-1:] if len(weights) > 2 else weights


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "()"
