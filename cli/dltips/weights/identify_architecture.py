"""Identifies the architecture of a file's tensors: builds dltips' and timm's nets without memory and compares."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from dltips import paths
from dltips.catalog.registry import Tip, load
from dltips.errors import ConfigError
from dltips.nets.key_maps import KeyMap, key_maps_of

Shapes = dict[str, tuple[int, ...]]

# of the elements of either side: resnet18 in resnet34 has 0.53, a net with another stem or head 0.9
MIN_AGREEMENT = 0.6
TIMM_SECONDS = 2.0  # for timm's nets, some of which take 0.3 s to build
BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
ANY_CLASSES = 10
# characteristic tensor names of a timm family -> its most common nets
TIMM_FAMILIES = (
    (r"^layer1\.0\.conv3\.", "resnet50 resnet101 resnet152 resnext50_32x4d wide_resnet50_2 resnext101_32x8d resnet50d"
     " resnet26 wide_resnet101_2 resnet50c seresnet50 resnetv2_50 ecaresnet50d res2net50_26w_4s resnest50d"),
    (r"^layer1\.0\.conv2\.", "resnet18 resnet34 resnet18d resnet34d resnet10t resnet14t seresnet18 seresnet34"),
    (r"^stages\.0\.", "convnext_tiny convnext_small convnext_base convnextv2_tiny convnextv2_nano convnext_nano"
     " convnext_atto convnextv2_atto resnetv2_50 nfnet_f0 efficientvit_b0 edgenext_small test_convnext"),
    (r"^s1\.b1\.", "regnety_002 regnety_004 regnety_008 regnety_016 regnety_032 regnetx_002 regnetx_004 regnetx_008"),
    (r"^conv_stem\.", "efficientnet_b0 mobilenetv3_large_100 mobilenetv3_small_100 mobilenetv2_100 efficientnet_b1"
     " efficientnet_b2 tf_efficientnetv2_s efficientnet_lite0 mnasnet_100 mobilenetv2_050 mobilenetv4_conv_small"
     " test_efficientnet ghostnet_100 efficientnet_b3 efficientnet_b4 lcnet_050 tinynet_a"),
    (r"^blocks\.0\.(?:attn|norm1)\.", "vit_tiny_patch16_224 vit_small_patch16_224 vit_base_patch16_224"
     " deit_tiny_patch16_224 deit_tiny_distilled_patch16_224 vit_small_patch14_dinov2 vit_base_patch32_224"
     " vit_base_patch14_dinov2 vit_base_patch16_clip_224 vit_base_patch8_224 vit_large_patch16_224 mixer_b16_224"),
    (r"^layers\.0\.blocks\.0\.", "swin_tiny_patch4_window7_224 swin_small_patch4_window7_224"
     " swin_base_patch4_window7_224 swinv2_tiny_window8_256"),
    (r"^features\.denseblock1\.", "densenet121 densenet169 densenet201 densenet161"),
    (r"^features\.\d+\.", "vgg11 vgg11_bn vgg13 vgg13_bn vgg16 vgg16_bn vgg19 vgg19_bn"),
    (r"^Conv2d_1a_3x3\.", "inception_v3"),
)  # fmt: skip


@dataclass(frozen=True)
class ArchitectureMatch:
    """A net that fits a file's tensors."""

    name: str  # "a resnet", "timm's resnext50_32x4d"
    typed: str  # "model=resnet model.depth=34 model.stem=imagenet"
    agreement: float


@dataclass(frozen=True)
class Candidate:
    """One of our models with some of its knobs set."""

    model: str
    knobs: Mapping[str, Any]
    layout: KeyMap | None = None
    others: Mapping[str, Any] = field(default_factory=dict)  # settings outside the model: `activation`

    def typed(self, defaults: Mapping[str, Any], now: Tip | None) -> str:
        """Returns the overrides: its depth, and the knobs that differ from the defaults and from this run's."""
        overrides = [f"model={self.model}"]
        known = now.knobs if now is not None and now.name == self.model else defaults
        for key, value in self.knobs.items():
            if key == "depth" or value != defaults.get(key) or value != known.get(key):
                overrides.append(_typed(f"model.{key}", value))
        return " ".join(overrides + [_typed(key, value) for key, value in self.others.items() if value != "relu"])


def nearest(state: Mapping[str, Tensor], now: Tip | None = None) -> ArchitectureMatch | None:
    """Returns the architecture with most of these tensors, by name and shape, or None below MIN_AGREEMENT.

    `now` is the run's model, which the overrides change.
    """
    best = max(_our_matches(state, now), key=lambda near: near.agreement, default=None)
    if best is None or best.agreement < 0.95:
        timms = max(_timm_matches(state), key=lambda near: near.agreement, default=None)
        if timms is not None and (best is None or timms.agreement > best.agreement):
            best = timms
    return best if best is not None and best.agreement >= MIN_AGREEMENT else None


HEAD_TENSORS = ("head.weight", "head.bias")


def agreement(state: Mapping[str, Tensor], net: Shapes, classifier: Sequence[str] = HEAD_TENSORS) -> float:
    """Returns the shared elements, by parameters' names and shapes, over those of either side: 0 to 1.

    Without the classifier, whose classes differ.
    """
    inner, given, both = _compared(state, net, classifier)
    either = inner + given - both
    return both / either if either else 0.0


def coverage(state: Mapping[str, Tensor], net: Shapes, classifier: Sequence[str] = HEAD_TENSORS) -> float:
    """Returns the share of the net's parameters in the file by name and shape, without the classifier: 0 to 1."""
    inner, _, both = _compared(state, net, classifier)
    return both / inner if inner else 0.0


def _compared(state: Mapping[str, Tensor], net: Shapes, classifier: Sequence[str]) -> tuple[int, int, int]:
    """Returns the elements of the net's parameters, of the file's, and of the shared ones."""
    inner, given = (
        {name: shape for name, shape in side.items() if name not in classifier and not name.endswith(BUFFERS)}
        for side in (net, {name: tuple(tensor.shape) for name, tensor in state.items()})
    )
    counts = [sum(map(math.prod, side.values())) for side in (inner, given)]
    return counts[0], counts[1], sum(math.prod(shape) for name, shape in inner.items() if given.get(name) == shape)


def shapes_of(model: str, knobs: Mapping[str, Any], input_shape: tuple[int, ...]) -> Shapes | None:
    """Returns the tensors of one of our models, built without memory; None if it cannot be built so."""
    try:
        with torch.device("meta"):
            net: nn.Module = load()["model"].tips[model](input_shape, ANY_CLASSES, nn.ReLU, **knobs)
    except (ConfigError, RuntimeError, NotImplementedError, ValueError, TypeError, ZeroDivisionError):
        return None
    return {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}


def defaults_of(option: str, family: str = "model") -> dict[str, Any]:
    """Returns the knobs of an option's YAML."""
    for folder in paths.configs():
        file = folder / family / f"{option}.yaml"
        if file.is_file():
            plain = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
            assert isinstance(plain, dict)
            return {str(key): value for key, value in plain.items() if key != "name"}
    return {}


def channels_of(state: Mapping[str, Tensor]) -> int | None:
    """Returns the input channels of the first convolution; None without one."""
    return next((tensor.shape[1] for tensor in state.values() if tensor.dim() == 4), None)


def _our_matches(state: Mapping[str, Tensor], now: Tip | None) -> Iterator[ArchitectureMatch]:
    channels = channels_of(state) or 3
    known = load()["model"].tips
    defaults: dict[str, dict[str, Any]] = {}
    for candidate in _candidates(state):
        if candidate.model not in known:
            continue
        names = defaults.setdefault(candidate.model, defaults_of(candidate.model))
        side = candidate.layout.size if candidate.layout else 64
        shape = (channels, side, side)
        if candidate.model == "mlp":
            first = state.get("hidden1.layer.weight")
            shape = (1, 1, first.shape[1] if first is not None else 1)
        net = shapes_of(candidate.model, names | dict(candidate.knobs), shape)
        if net is not None:
            translated = candidate.layout.translated(state) if candidate.layout else state
            article = "an" if candidate.model[0] in "aeiom" and candidate.model != "mobilenet_v2" else "a"
            yield ArchitectureMatch(
                f"{article} {candidate.model}", candidate.typed(names, now), agreement(translated, net)
            )


def _candidates(state: Mapping[str, Tensor]) -> Iterator[Candidate]:
    """Yields our models in their usual variants, except those that the file's names and widths rule out."""
    filters = [tensor for tensor in state.values() if tensor.dim() == 4]
    norm = "batch" if any(name.endswith("running_mean") for name in state) else "none"
    if not filters:
        yield from _dense(state, norm)
        return
    first, count = filters[0].shape[0], len(filters)
    for depth in (8, 14, 18, 20, 32, 34, 44, 50, 56, 101, 110, 152):
        if depth - 2 <= count <= depth + 5:  # all but the head, and up to four shortcuts
            large = depth in (18, 34, 50, 101, 152)
            width = first / (64 if large else 16)
            yield from _variants("resnet", {"depth": depth, "width": width, "norm": norm}, RESNET_STEMS)
    for depth, convolutions in ((11, 8), (13, 10), (16, 13), (19, 16)):
        if convolutions == count:
            yield from _variants("vgg", {"depth": depth, "width": first / 64, "norm": norm} | _vgg_head(state), ({},))
    if 45 <= count <= 60:
        yield from _variants("mobilenet_v2", {"width": first / 32, "norm": norm}, ({"stem": "imagenet"},))
    if 20 <= count <= 30:
        versions = ({"stem": "imagenet", "version": 1.0}, {"stem": "imagenet", "version": 1.1}, {"stem": "imagenet"})
        yield from _variants("squeezenet", {"norm": norm}, versions)
    yield from _plain_cnn(state, norm)


RESNET_STEMS: tuple[dict[str, Any], ...] = (
    {"stem": "imagenet", "shortcut": "projection"},
    {"stem": "cifar", "shortcut": "pad"},
    {"stem": "cifar", "shortcut": "projection"},
)


def _variants(model: str, knobs: Mapping[str, Any], choices: Sequence[Mapping[str, Any]]) -> Iterator[Candidate]:
    """Yields a model with each set of choices, under its own names and by each key map that leaves the knobs open."""
    for choice in choices:
        yield Candidate(model, {**knobs, **choice})
    for layout in key_maps_of(load()["model"].tips.get(model, object)):
        settings = {key.removeprefix("model."): value for key, value in layout.settings.items() if "." in key}
        others = {key: value for key, value in layout.settings.items() if "." not in key}
        if all(settings.get(key, value) == value for key, value in knobs.items()):
            yield Candidate(model, {**knobs, **settings}, layout, others)


def _vgg_head(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Returns the original's dense layers, if the file has them."""
    rows = [tensor.shape[0] for tensor in state.values() if tensor.dim() == 2]
    return {"head": "dense", "head_widths": rows[:-1]} if len(rows) > 1 else {}


def _dense(state: Mapping[str, Tensor], norm: str) -> Iterator[Candidate]:
    rows = [tensor.shape[0] for name, tensor in state.items() if tensor.dim() == 2 and name.startswith("hidden")]
    if rows:
        layer = norm == "none" and any(name.endswith("norm.weight") for name in state)
        yield Candidate("mlp", {"widths": rows, "norm": "layer" if layer else norm})


def _plain_cnn(state: Mapping[str, Tensor], norm: str) -> Iterator[Candidate]:
    """Yields the cnn whose knobs the names tell: stage2.conv1.layer.weight."""
    found = [(re.fullmatch(r"stage(\d+)\.conv(\d+)\.layer\.weight", name), state[name]) for name in state]
    layers = [(int(match[1]), int(match[2]), tensor) for match, tensor in found if match]
    if not layers:
        return
    widths = [next(tensor.shape[0] for stage, _, tensor in layers if stage == number) for number in
              sorted({stage for stage, _, _ in layers})]  # fmt: skip
    knobs = {"widths": widths, "depth": max(index for _, index, _ in layers), "kernel_size": layers[0][2].shape[2]}
    yield Candidate("cnn", knobs | {"norm": norm})


def _timm_net(name: str, channels: int) -> Any:
    """Returns timm's net, without memory unless it computes with its weights; None if it cannot be built."""
    import timm

    for device in ("meta", "cpu"):
        with torch.device(device), torch.random.fork_rng(devices=[]):
            try:
                return timm.create_model(name, in_chans=channels)
            except (RuntimeError, NotImplementedError, ValueError, TypeError):
                continue
    return None


def _timm_matches(state: Mapping[str, Tensor]) -> Iterator[ArchitectureMatch]:
    """Yields timm's nets of the family that the names indicate, within the time limit."""
    candidates = [
        name
        for pattern, names in TIMM_FAMILIES
        if any(re.search(pattern, key) for key in state)
        for name in names.split()
    ]
    if not candidates or find_spec("timm") is None:
        return
    import timm

    started = time.monotonic()
    for name in dict.fromkeys(candidates):
        if time.monotonic() - started > TIMM_SECONDS:
            return
        if not timm.is_model(name):
            continue
        net = _timm_net(name, channels_of(state) or 3)
        if net is None:
            continue
        classifiers = (net.pretrained_cfg or {}).get("classifier") or ()
        classifiers = (classifiers,) if isinstance(classifiers, str) else classifiers
        ends = [f"{each}.{part}" for each in classifiers for part in ("weight", "bias")]
        shapes = {key: tuple(tensor.shape) for key, tensor in net.state_dict().items()}
        near = ArchitectureMatch(
            f"timm's {name}", f"model=timm model.architecture={name}", agreement(state, shapes, ends)
        )
        yield near
        if near.agreement > 0.99:
            return


def _typed(key: str, value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"'{key}=[{','.join(map(str, value))}]'"
    if isinstance(value, float):
        return f"{key}={value:g}" if value != int(value) else f"{key}={value}"
    return f"{key}={value}"
