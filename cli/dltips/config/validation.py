"""Makes a run's checked Config, with its hash: validates all families before any data are read."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dltips import paths
from dltips.catalog.registry import (
    FAMILIES,
    STACKABLE,
    Count,
    NonNegative,
    Registry,
    Score,
    Size,
    Tip,
    check_knobs,
    knobs_of,
    load,
)
from dltips.config.plain import to_plain
from dltips.config.recipes import refuse_resolvers
from dltips.errors import ConfigError, suggest

ENVIRONMENT = re.compile(r"\$\{(oc\.env:[A-Za-z_][A-Za-z0-9_]*(,[^${}]*)?|[A-Za-z_][A-Za-z0-9_.]*)\}")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The keys at the top of config.yaml, whose defaults stand only there."""

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
    interval: NonNegative  # minimum seconds between checkpoints


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
    """A run's checked configuration. `plain` is what config.yaml shows, interpolations unresolved."""

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
        """Returns the hash of everything that decides the result: not the name, log, device or checkpoint interval."""
        decides = {key: value for key, value in self.resolved.items() if key not in RESUMABLE or key == "epochs"}
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]


# What may differ between a run and its continuation
RESUMABLE = ("epochs", "device", "devices", "log", "checkpoint", "name", "resume")


def validate(composed: DictConfig | Mapping[str, Any]) -> Config:
    """Checks every key of a composed config, or of one as plain data, over all families.

    Raises ConfigError, one line with the remedy.
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
    """Raises ConfigError for `_target_` and for any resolver but oc.env, at any depth."""
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


def _checked(prefix: str, values: Mapping[str, Any], kind: type) -> dict[str, Any]:
    return check_knobs(prefix, values, knobs_of(kind), prefix or "the config")


def _mapping(key: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(
            f"{key}: {'is missing' if value is None else f'{value!r} is not a section'}; choose an option"
        )
    return value


def _bind(registry: Registry, section: dict[str, Any]) -> tuple[tuple[Tip, ...], Tip | None]:
    """Returns one family's chosen options in order, and the tip that takes the common knobs."""
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


def completed(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a run's config with the keys that are newer than the run at their defaults."""
    primary = plain_yaml(paths.shipped("configs") / "config.yaml")
    full = {key: value for key, value in primary.items() if key not in ("defaults", "hydra")} | dict(stored)
    for name in SECTIONS:
        if isinstance(full.get(name), Mapping):
            full[name] = {**primary[name], **full[name]}
            if name == "log" and "picture" in full[name]:  # its name in 0.1.0.dev
                full[name]["pictures"] = "best" if full[name].pop("picture") else "none"
    for family in FAMILIES:
        section = full.get(family)
        if isinstance(section, Mapping):
            full[family] = _completed_section(family, section)
    return full


def _completed_section(family: str, section: Mapping[str, Any]) -> dict[str, Any]:
    def defaults(name: Any) -> dict[str, Any]:
        safe = isinstance(name, str) and name.isidentifier()  # a path could leave the folder
        files = [folder / family / f"{name}.yaml" for folder in paths.configs()] if safe else []
        return next((plain_yaml(file) for file in files if file.is_file()), {})

    if family in STACKABLE:
        return {
            name: {**defaults(name).get(str(name), {}), **own} if isinstance(own, Mapping) else own
            for name, own in section.items()
        }
    return {**defaults("_common"), **defaults(section.get("name")), **section}


def plain_yaml(file: Path) -> dict[str, Any]:
    return to_plain(OmegaConf.load(file))
