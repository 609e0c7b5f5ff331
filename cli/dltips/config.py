"""The configuration of one run: validated over all families before any data are touched."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dltips import paths
from dltips.metrics import Score
from dltips.recipe import refuse_resolvers
from dltips.registry import (
    FAMILIES,
    STACKABLE,
    ConfigError,
    Count,
    NonNegative,
    Registry,
    Size,
    Tip,
    check_knobs,
    knobs_of,
    load,
    suggest,
)

ENVIRONMENT = re.compile(r"\$\{(oc\.env:[A-Za-z_][A-Za-z0-9_]*(,[^${}]*)?|[A-Za-z_][A-Za-z0-9_.]*)\}")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The keys at the top of config.yaml; their defaults stand there and nowhere else."""

    seed: Count
    epochs: Count
    batch_size: Size
    accumulate: Size
    device: str
    devices: Size
    precision: Literal["auto", "float32", "bfloat16"]
    compile: bool
    deterministic: bool
    name: str | None
    resume: str | None
    metric: Score


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    interval: NonNegative  # seconds between checkpoints, at the least


@dataclass(frozen=True, kw_only=True)
class Log:
    layers: bool
    histograms: bool
    images: bool
    tensorboard: bool
    pictures: Literal["best", "all", "none"]


SECTIONS: dict[str, type] = {"checkpoint": Checkpoint, "log": Log}


@dataclass(frozen=True)
class Config:
    """A run's configuration, every value checked. `plain` is what config.yaml shows, interpolations unresolved."""

    settings: Settings
    checkpoint: Checkpoint
    log: Log
    tips: Mapping[str, tuple[Tip, ...]]
    common: Mapping[str, Tip]
    plain: Mapping[str, Any]
    resolved: Mapping[str, Any]

    def tip(self, family: str) -> Tip:
        (tip,) = self.tips[family]
        return tip

    @property
    def hash(self) -> str:
        """Of all that decides the result: not of the name, the log, the device or how often checkpoints are written."""
        decides = {key: value for key, value in self.resolved.items() if key not in RESUMABLE or key == "epochs"}
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]


# What may differ between a run and its continuation.
RESUMABLE = ("epochs", "device", "devices", "log", "checkpoint", "name", "resume")


def validate(composed: DictConfig | Mapping[str, Any]) -> Config:
    """Check every key of a composed config, or of one as plain data, over all families.

    Errors: ConfigError, one line with the remedy.
    """
    plain: dict[str, Any] = (
        to_plain(composed) if isinstance(composed, DictConfig) else {str(key): value for key, value in composed.items()}
    )
    _refuse_code("", plain)
    resolved = plain
    if _interpolates(plain):  # a pass through OmegaConf takes as long as all that follows
        try:
            resolved = to_plain(OmegaConf.create(plain), resolve=True)
        except OmegaConfBaseException as error:
            raise ConfigError(" ".join(str(error).split())) from error
    known = [field.name for field in fields(Settings)]
    for key in resolved:
        if key not in (*known, *SECTIONS, *FAMILIES):
            raise ConfigError(f"{key}: there is no such key{suggest(str(key), [*known, *SECTIONS, *FAMILIES])}")
    settings = Settings(**_checked("", {key: resolved[key] for key in known if key in resolved}, Settings))
    sections = {
        name: kind(**_checked(name, _mapping(name, resolved.get(name)), kind)) for name, kind in SECTIONS.items()
    }
    registries = load()
    tips, common = {}, {}
    for family in FAMILIES:
        tips[family], shared = _bind(registries[family], _mapping(family, resolved.get(family)))
        if shared is not None:
            common[family] = shared
    return Config(settings, sections["checkpoint"], sections["log"], tips, common, plain, resolved)


def _refuse_code(key: str, value: Any) -> None:
    """Errors: ConfigError for `_target_` and for any resolver but oc.env, however deep."""
    if isinstance(value, dict):
        for name, inner in value.items():
            path = f"{key}.{name}" if key else str(name)
            if name == "_target_":
                raise ConfigError(f"{path}: is refused; a config names tips, never code")
            _refuse_code(path, inner)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            _refuse_code(f"{key}[{index}]", inner)
    elif isinstance(value, str):
        refuse_resolvers(key, value, ENVIRONMENT)


def _interpolates(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_interpolates, value.values()))
    return any(map(_interpolates, value)) if isinstance(value, list) else isinstance(value, str) and "${" in value


def to_plain(config: Any, *, resolve: bool = False) -> dict[str, Any]:
    """An OmegaConf mapping as plain data, interpolations left as they are unless they are to be resolved."""
    plain = OmegaConf.to_container(config, resolve=resolve)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _checked(prefix: str, values: Mapping[str, Any], kind: type) -> dict[str, Any]:
    return check_knobs(prefix, values, knobs_of(kind), prefix or "the config")


def _mapping(key: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{key}: {'is missing' if value is None else f'{value!r} is no section'}; choose an option")
    return value


def _bind(registry: Registry, section: dict[str, Any]) -> tuple[tuple[Tip, ...], Tip | None]:
    """The chosen options of one family, in order, and the tip that takes the knobs common to all of them."""
    family = registry.family
    common = {key: value for key, value in section.items() if key in registry.common_knobs()}
    own = {key: value for key, value in section.items() if key not in common}
    shared = registry.bind_common(common) if registry.shared is not None else None
    if family not in STACKABLE:
        wanted = registry.knobs_wanted_from_common(section.get("name"))
        own |= {key: value for key, value in common.items() if key in wanted}
        return (_bind_one(registry, own, family),), shared
    for key, value in own.items():
        if not isinstance(value, dict) or value.get("name") != key:
            raise ConfigError(f"{family}.{key}: {key} is not switched on; write '{family}=[{key}]'")
    return tuple(_bind_one(registry, value, f"{family}.{key}") for key, value in own.items()), shared


def _bind_one(registry: Registry, section: dict[str, Any], prefix: str) -> Tip:
    if not isinstance(section.get("name"), str):
        raise ConfigError(f"{prefix}.name: is missing; choose an option with {registry.family}=OPTION")
    return registry.bind(section["name"], {key: value for key, value in section.items() if key != "name"}, prefix)


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every value with its full key: (`optimizer.lr`, 0.1)."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def flat(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Every setting of a config by its full key, a family's chosen options by its name: {"init": "he", "seed": 0}.

    Interpolations stay unresolved and secrets are redacted, as in config.yaml.
    """
    found: dict[str, Any] = {}
    for key, section in redacted(plain).items():
        if key not in FAMILIES or not isinstance(section, Mapping):
            found |= dict(leaves({key: section}))
            continue
        found[key] = ",".join(section) if key in STACKABLE else section.get("name")
        found |= {name: value for name, value in leaves(section, f"{key}.") if not name.endswith(".name")}
    return found


Scalar = bool | float | str


def hyperparameters(config: Config) -> tuple[dict[str, Scalar], dict[str, Scalar]]:
    """For TensorBoard's HParams: the columns, the same in every run, each with an example; and this run's values.

    `model` is the chosen option, `augmentation` the chosen ones in order; numbers stay numbers, the rest is text. A
    column without a value belongs to an option that is off.
    """
    texts, numbers = dict(leaves(redacted(config.plain))), dict(leaves(config.resolved))
    texts |= {family: ",".join(tip.name for tip in tips) for family, tips in config.tips.items()}
    columns, values = dict(_columns(tuple(paths.configs()))), {}
    for key, example in columns.items():
        if key in texts:
            values[key] = texts[key] if isinstance(example, str) else numbers[key]
    return columns, {key: type(columns[key])(value) for key, value in values.items()}


@functools.cache  # more than a hundred YAMLs take 0.1 s to read, and the runs of a sweep have the same ones
def _columns(folders: tuple[Path, ...]) -> Mapping[str, Scalar]:
    """Every key that some run may have, with a value of its type: a number, a truth value, or else text."""
    primary = _plain_yaml(paths.shipped("configs") / "config.yaml")
    columns = dict(leaves({key: value for key, value in primary.items() if key not in ("defaults", "hydra", "resume")}))
    for family in FAMILIES:
        columns[family] = ""
        for folder in folders:
            for file in sorted((folder / family).glob("*.yaml")):
                found = leaves(_plain_yaml(file), f"{family}.")
                for key, value in found:
                    if not key.endswith(".name"):
                        # one key may be a number in one option and text in another: text holds both
                        columns[key] = value if type(_example(columns.get(key, value))) is type(_example(value)) else ""
    return {key: _example(value) for key, value in columns.items()}


def _example(value: Any) -> Scalar:
    if isinstance(value, bool):
        return value
    return float(value) if isinstance(value, int | float) else ""


def completed(stored: Mapping[str, Any]) -> dict[str, Any]:
    """A run's config with what this version has and the one that wrote it had not, at its default."""
    primary = _plain_yaml(paths.shipped("configs") / "config.yaml")
    full = {key: value for key, value in primary.items() if key not in ("defaults", "hydra")} | dict(stored)
    for name in SECTIONS:
        if isinstance(full.get(name), Mapping):
            full[name] = {**primary[name], **full[name]}
            if name == "log" and "picture" in full[name]:  # as it was called in 0.1.0.dev
                full[name]["pictures"] = "best" if full[name].pop("picture") else "none"
    for family in FAMILIES:
        section = full.get(family)
        if isinstance(section, Mapping):
            full[family] = _completed_section(family, section)
    return full


def _completed_section(family: str, section: Mapping[str, Any]) -> dict[str, Any]:
    def defaults(name: Any) -> dict[str, Any]:
        safe = isinstance(name, str) and name.isidentifier()  # no path to anywhere
        files = [folder / family / f"{name}.yaml" for folder in paths.configs()] if safe else []
        return next((_plain_yaml(file) for file in files if file.is_file()), {})

    if family in STACKABLE:
        return {
            name: {**defaults(name).get(str(name), {}), **own} if isinstance(own, Mapping) else own
            for name, own in section.items()
        }
    return {**defaults("_common"), **defaults(section.get("name")), **section}


def _plain_yaml(file: Path) -> dict[str, Any]:
    return to_plain(OmegaConf.load(file))


# Secrets: what looks like one, by its key's name, its shape, or because the environment calls it one.
SECRET_KEY = re.compile(r"(?i)(token|secret|password|passwd|credential|api_?key|access_?key)")
SECRET_VALUE = re.compile(
    r"(?<![A-Za-z0-9])(sk-[A-Za-z0-9_-]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}|hf_[A-Za-z0-9]{20,}"
    r"|AKIA[0-9A-Z]{16}|xox[abprs]-[A-Za-z0-9-]{10,})|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"
)


def redact(text: str) -> str:
    """The text without what looks like a secret, or equals an environment variable whose name says so."""
    return _without(_secrets(), text)


def redacted(tree: Any) -> Any:
    """A config tree with every secret-looking value replaced; unresolved interpolations stay."""
    return _redacted(tree, "", _secrets())


def _secrets() -> list[str]:
    return [value for name, value in os.environ.items() if len(value) >= 6 and SECRET_KEY.search(name)]


def _without(secrets: list[str], text: str) -> str:
    for secret in secrets:
        text = text.replace(secret, "[redacted]")
    return SECRET_VALUE.sub("[redacted]", text)


def _redacted(tree: Any, key: str, secrets: list[str]) -> Any:
    if isinstance(tree, Mapping):
        return {name: _redacted(value, str(name), secrets) for name, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_redacted(value, key, secrets) for value in tree]
    if isinstance(tree, str):
        hidden = SECRET_KEY.search(key) and not tree.startswith("${")
        return "[redacted]" if hidden else _without(secrets, tree)
    return tree
