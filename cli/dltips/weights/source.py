"""Finds a run's initial weights: of a dltips run, of timm by name, or in a file; and the inputs they require."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dltips.config.validation import Config
from dltips.errors import ConfigError
from dltips.nets.key_maps import KeyMap, key_maps_of
from dltips.runs import checkpoint, folder
from dltips.runs.file_names import CONFIG
from dltips.tips.finetune.base import FinetuneKnobs
from dltips.tips.preprocessing import Affine, restore
from dltips.weights import files, timm_hub
from dltips.weights.identify_architecture import agreement, channels_of, coverage, defaults_of, shapes_of
from dltips.weights.reachability import TIMM

# settings that may differ between a net and its weights: they change no tensor, and nothing in eval mode
FREE_KNOBS = ("dropout", "drop_rate", "drop_path_rate")
MIN_COVERAGE = 0.9  # share of the parameters by which a library's key map is recognized


@dataclass(frozen=True)
class Pretrained:
    """Trained weights, and the form of the inputs that they were trained on."""

    origin: str  # as users write it: the run folder, "timm:resnet18.a1_in1k", the file
    state: Mapping[str, Tensor]  # float32, on the CPU, `module.` removed, names as in the file
    hash: str  # of names, shapes and bytes
    preprocess: nn.Module  # a Step, or a Sequential of them, for inputs in [0, 1]
    channels: int | None  # of the images that the weights were trained on; None for vectors and the like
    sides: tuple[int, int] | None  # (H, W) that belong to the weights; None: the data's own
    shape: tuple[int, ...] | None  # a run's exact input shape; None for others
    notes: tuple[str, ...] = ()


def find(config: Config) -> Pretrained:
    """Returns the weights that finetune.source names. Raises ConfigError."""
    common: FinetuneKnobs = config.common["finetune"]()
    source = common.source
    assert source is not None
    if source.startswith(TIMM):
        return _from_timm(source, common, config)
    if common.file is not None:
        raise ConfigError(
            f"finetune.file: {common.file} goes with finetune.source=timm:NAME alone; for a file by itself write"
            f" finetune.source={common.file}"
        )
    path = Path(source).expanduser()
    if (path / CONFIG).is_file():
        return _from_run(source, _run_checkpoint(path, source), path, config)
    held = files.contents(source)
    if isinstance(held, dict) and set(checkpoint.NET_KEYS) <= set(held):
        return _from_run(source, held, path.parent if (path.parent / CONFIG).is_file() else None, config)
    return _from_file(source, files.tensors(held, source), common, config)


def fingerprint(state: Mapping[str, Tensor]) -> str:
    """Returns the first 16 hex digits of SHA-256 over names, shapes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].contiguous()
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


# A run of dltips


def _run_checkpoint(path: Path, source: str) -> dict[str, Any]:
    """Returns a run's best checkpoint, or else its last. Raises ConfigError."""
    names = [name for name in (checkpoint.BEST, checkpoint.LAST) if (path / name).is_file()]
    if not names:
        raise ConfigError(
            f"finetune.source: {source} has neither {checkpoint.BEST} nor {checkpoint.LAST}: the run wrote no"
            " checkpoint; give another one"
        )
    try:
        return checkpoint.read(path / names[0])
    except checkpoint.Damaged as error:
        remedy = f"write finetune.source={path / names[1]}" if len(names) > 1 else "give another run"
        raise ConfigError(f"finetune.source: {error}; {remedy}") from error


def _from_run(source: str, payload: Mapping[str, Any], run: Path | None, config: Config) -> Pretrained:
    notes = _check_same_net(source, run, config) if run is not None else ()
    shape = tuple(payload["input_shape"])
    state = files.tensors(payload["model"], source)
    images = len(shape) == 3
    return Pretrained(
        origin=source,
        state=state,
        hash=fingerprint(state),
        preprocess=restore(payload["preprocessing"]),
        channels=shape[0] if images else None,
        sides=(shape[1], shape[2]) if images else None,
        shape=shape,
        notes=notes,
    )


def _check_same_net(source: str, run: Path, config: Config) -> tuple[str, ...]:
    """Returns a note if the run had another activation. Raises ConfigError with the overrides if it had another net."""
    theirs = folder.read_config(run)
    stored: dict[str, list[str]] = {"model": [], "activation": []}
    wanted: dict[str, list[str]] = {"model": [], "activation": []}
    for family in stored:
        past, now = theirs.get(family), config.resolved[family]
        if not isinstance(past, dict) or past == now:
            continue
        # another run's interpolations stay unresolved: the tensors' shapes decide
        past = {key: value for key, value in past.items() if not str(value).startswith("${")}
        if past.get("name") != now["name"]:
            base = defaults_of(str(past.get("name")), family)
            different = {key: value for key, value in past.items() if base.get(key, value) != value}
            typed = [f"{family}={past.get('name')}", *_typed(family, different)]
            stored[family] += typed
            wanted[family].append(f"{family}={now['name']}")
        else:
            different = {key: value for key, value in past.items() if key in now and now[key] != value}
            different = {key: value for key, value in different.items() if key not in FREE_KNOBS}
            stored[family] += _typed(family, different)
            wanted[family] += _typed(family, {key: now[key] for key in different})
    if stored["model"]:
        theirs_all, ours_all = (" ".join(both["model"] + both["activation"]) for both in (stored, wanted))
        raise ConfigError(f"finetune.source: {source} holds {theirs_all}, this run has {ours_all}; write {theirs_all}")
    if stored["activation"]:
        return (_trained_with(source, " ".join(stored["activation"]), " ".join(wanted["activation"])),)
    return ()


def _trained_with(source: str, theirs: str, ours: str) -> str:
    """Returns the note: another activation changes no tensor and may be intended, so it is not refused."""
    return f"finetune.source: {source} was trained with {theirs}, this run has {ours}"


def _typed(family: str, knobs: Mapping[str, Any]) -> list[str]:
    """Returns overrides quoted for a shell."""
    texts = []
    for key, value in knobs.items():
        if isinstance(value, list | tuple):
            texts.append(f"'{family}.{key}=[{','.join(map(str, value))}]'")
        else:
            texts.append(f"{family}.{key}={_yaml_word(value)}")
    return texts


def _yaml_word(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


# timm


def _from_timm(source: str, common: FinetuneKnobs, config: Config) -> Pretrained:
    name = source.removeprefix(TIMM).strip()
    if not name:
        raise ConfigError("finetune.source: 'timm:' names no weights; write timm:NAME, such as timm:resnet18.a1_in1k")
    architecture, tip = name.partition(".")[0], config.tip("model")
    if tip.name != "timm" or tip.knobs["architecture"] != architecture:
        chosen = f"model={tip.name}"
        chosen += f" model.architecture={tip.knobs['architecture']}" if tip.name == "timm" else ""
        needed = f"model=timm model.architecture={architecture}"
        timm_hub.record(name)  # reports an unknown name first
        raise ConfigError(f"finetune.source: {source} goes with {needed}, this run has {chosen}; write {needed}")
    record, state = timm_hub.state_of(name, common.file)
    channels, height, width = record.input_size
    origin = f"{TIMM}{record.name}" + (f" ({common.file})" if common.file else "")
    return Pretrained(
        origin=origin,
        state=state,
        hash=fingerprint(state),
        preprocess=_affine(record.mean, record.std, channels),
        channels=channels,
        sides=(height, width),
        shape=None,
    )


# A file


def _from_file(source: str, state: Mapping[str, Tensor], common: FinetuneKnobs, config: Config) -> Pretrained:
    key_map, others = _recognized(source, state, config)
    channels = channels_of(key_map.translated(state) if key_map else state)
    mean, std = list(common.mean), list(common.std)
    for key, values in (("mean", mean), ("std", std)):
        if len(values) not in (1, channels or 1):
            takes = f"images of {channels} channel{'s' if channels != 1 else ''}" if channels else "no images"
            many = f"1 or {channels}" if channels and channels > 1 else "1"
            raise ConfigError(
                f"finetune.{key}: {values} has {len(values)} values, but {source} takes {takes}; give {many}, those"
                f" that it was trained with: 'finetune.{key}=[NUMBER]'"
            )
    note = (
        f"finetune.source: {source} says nothing of its preprocessing; taking finetune.mean={mean} finetune.std={std}"
    )
    return Pretrained(
        origin=source,
        state=state,
        hash=fingerprint(state),
        preprocess=_affine(mean, std, channels),
        channels=channels,
        sides=(key_map.size, key_map.size) if key_map else None,
        shape=None,
        notes=(note, *others),
    )


def _recognized(source: str, state: Mapping[str, Tensor], config: Config) -> tuple[KeyMap | None, tuple[str, ...]]:
    """Returns the key map of this run's model that the file matches, and a note if its activation differs.

    Raises ConfigError if this run has other switches than these names belong to: they may change no tensor, and would
    go unnoticed.
    """
    tip = config.tip("model")
    channels = channels_of(state) or 3
    best, most = None, 0.0
    for key_map in key_maps_of(tip.function):
        settings = {key.removeprefix("model."): value for key, value in key_map.settings.items() if "." in key}
        net = shapes_of(tip.name, {**tip.knobs, **settings}, (channels, key_map.size, key_map.size))
        if net is None:
            continue
        theirs = key_map.translated(state)
        share = agreement(theirs, net)
        # a file may have more, such as vgg's dense layers
        if share > most and coverage(theirs, net) >= MIN_COVERAGE:
            best, most = key_map, share
    if best is None:
        return None, ()
    wrong = {key: value for key, value in best.settings.items() if _setting(config, key) != value}
    activation = wrong.pop("activation", None) if list(wrong) == ["activation"] else None
    if activation is not None:
        ours = f"activation={_setting(config, 'activation')}"
        return best, (_trained_with(source, f"activation={activation}", ours),)
    if wrong:
        has = " ".join(f"{key}={_yaml_word(_setting(config, key))}" for key in wrong)
        needed = " ".join(f"{key}={_yaml_word(value)}" for key, value in wrong.items())
        raise ConfigError(
            f"finetune.source: {source} is {best.name}'s {tip.name}, which goes with {needed}, this run has {has};"
            f" write {needed}"
        )
    return best, ()


def _setting(config: Config, key: str) -> Any:
    family, _, knob = key.partition(".")
    tip = config.tip(family)
    return tip.knobs.get(knob) if knob else tip.name


def _affine(mean: Sequence[float], std: Sequence[float], channels: int | None) -> nn.Module:
    """Returns the step (inputs - mean) / std, per channel; a single value is for all channels."""
    shape = (channels, 1, 1) if channels is not None and len(mean) > 1 else ()
    scale = (channels, 1, 1) if channels is not None and len(std) > 1 else ()
    return Affine(shift=torch.tensor(mean).reshape(shape), scale=torch.tensor(std).reshape(scale))
