"""Fetches weights that timm knows by name: its record, and the file from the cache, the network or the user."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from torch import Tensor

from dltips.errors import ConfigError, suggest
from dltips.weights import files
from dltips.weights.reachability import check_downloadable, endpoint, refuse_offline

# in timm's order: the format without code first
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True)
class Record:
    """timm's record of pretrained weights."""

    name: str  # with its tag: "resnet18.a1_in1k"
    mean: tuple[float, ...]
    std: tuple[float, ...]
    input_size: tuple[int, int, int]  # (C, H, W)
    repository: str | None  # on the hub
    filename: str | None  # there, if it is not one of NAMES
    url: str | None
    classifiers: tuple[str, ...]  # prefixes of the head's tensor names


def record(name: str) -> Record:
    """Returns timm's record. Raises ConfigError for an unknown name, or one without weights."""
    timm = _import_timm()
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        known = timm.list_models()
        hint = suggest(architecture, known).or_else(f"; timm.list_models() has the {len(known)} that there are")
        raise ConfigError(f"finetune.source: timm:{name}: {architecture!r} is not an architecture of timm{hint}")
    known = [each for each in timm.list_pretrained(f"{architecture}*") if each.partition(".")[0] == architecture]
    if not known:
        raise ConfigError(
            f"finetune.source: timm has no weights for {architecture}; give a file (finetune.source=FILE), or take"
            " another architecture"
        )
    if tag and name not in known:
        tags = ", ".join(each.partition(".")[2] for each in known)
        raise ConfigError(f"finetune.source: timm has no weights {name}; the tags of {architecture} are {tags}")
    settings = timm.get_pretrained_cfg(name)
    classifier = settings.classifier
    return Record(
        name=f"{architecture}.{settings.tag}" if settings.tag else architecture,
        mean=tuple(map(float, settings.mean)),
        std=tuple(map(float, settings.std)),
        input_size=tuple(settings.input_size),
        repository=settings.hf_hub_id,
        filename=settings.hf_hub_filename,
        url=settings.url if isinstance(settings.url, str) else None,
        classifiers=tuple(f"{each}." for each in ([classifier] if isinstance(classifier, str) else classifier or [])),
    )


def state_of(name: str, file: str | None) -> tuple[Record, dict[str, Tensor]]:
    """Returns timm's record, and the weights under its net's names; from a local file if one is given.

    Raises ConfigError, within a second if the weights are neither cached nor downloadable.
    """
    if file is None:
        check_downloadable(name)
    weights = record(name)
    state = files.read(cached(weights) or download(weights)) if file is None else files.read(file, "finetune.file")
    return weights, _as_timm_names(weights, state)


def cached(weights: Record) -> Path | None:
    """Returns the file of an earlier download, without network."""
    if weights.repository is not None:
        from huggingface_hub import try_to_load_from_cache

        for name in _names(weights):
            path = try_to_load_from_cache(*_repository(weights), revision=_revision(weights), filename=name)
            if isinstance(path, str):
                return Path(path)
    if weights.url is not None:
        path = _url_cache(weights.url)
        return path if path.is_file() else None
    return None


def download(weights: Record) -> Path:
    """Returns the file, from the hub or from the record's url. Raises ConfigError."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    where = weights.url or "" if weights.repository is None else f"{endpoint()}/{weights.repository}"
    remedy = f"give the file (finetune.file=FILE, from {where})"
    here = f"finetune.source: timm:{weights.name} is not in the cache"
    refuse_offline(where, here, remedy)
    try:
        if weights.repository is None:
            assert weights.url is not None
            target = _url_cache(weights.url)
            target.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(weights.url, str(target), progress=False)
            return target
        for name in _names(weights):
            try:
                return Path(hf_hub_download(*_repository(weights), revision=_revision(weights), filename=name))
            except LocalEntryNotFoundError:  # the connection failed
                raise
            except EntryNotFoundError:
                continue
    except Exception as error:  # of requests, httpx, huggingface_hub, urllib
        reason = (" ".join(str(error).split()) or type(error).__name__)[:100]
        raise ConfigError(f"{here}, and its download failed ({reason}); {remedy}, or try again") from error
    raise ConfigError(f"{here}, and {weights.repository} has none of {', '.join(_names(weights))}; {remedy}")


def _as_timm_names(weights: Record, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns the weights as timm's own loading names and shapes them; unchanged if timm cannot read them."""
    timm = _import_timm()
    with torch.device("meta"):
        try:
            net = {name: tuple(tensor.shape) for name, tensor in timm.create_model(weights.name).state_dict().items()}
        except (RuntimeError, NotImplementedError):  # a net that computes with its weights while it is built
            net = {}
    body = {name: shape for name, shape in net.items() if not name.startswith(weights.classifiers)}
    if body and all(name in state and tuple(state[name].shape) == shape for name, shape in body.items()):
        return state
    try:
        # strict: it raises for unknown tensors, which our own matching reports
        overlay = {"state_dict": dict(state), "custom_load": False}
        with torch.random.fork_rng(devices=[]):
            loaded = timm.create_model(weights.name, pretrained=True, pretrained_cfg_overlay=overlay)
    except Exception:  # each architecture's filter raises types of its own
        return state
    return {name: tensor.detach() for name, tensor in loaded.state_dict().items()}


def _names(weights: Record) -> Sequence[str]:
    if weights.filename is None:
        return WEIGHT_FILES
    safe = weights.filename.replace("pytorch_model", "model").rpartition(".")[0] + ".safetensors"
    return tuple(dict.fromkeys((safe, weights.filename)))


def _repository(weights: Record) -> tuple[str]:
    assert weights.repository is not None
    return (weights.repository.partition("@")[0],)


def _revision(weights: Record) -> str | None:
    assert weights.repository is not None
    return weights.repository.partition("@")[2] or None


def _url_cache(url: str) -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(url).path).name


def _import_timm() -> Any:
    try:
        import timm
    except ImportError as error:
        raise ConfigError(
            f"finetune.source: timm cannot be imported ({error}); write pip install 'dltips[timm]', or give a file"
        ) from error
    return timm
