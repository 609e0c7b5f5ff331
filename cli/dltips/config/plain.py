"""Turns configs into plain data, interpolations unresolved: mappings, leaves by full key, settings by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import OmegaConf

from dltips.catalog.registry import FAMILIES, STACKABLE
from dltips.config.redaction import redacted


def to_plain(config: Any, *, resolve: bool = False) -> dict[str, Any]:
    """Returns an OmegaConf mapping as plain data; interpolations stay unless `resolve` is set."""
    plain = OmegaConf.to_container(config, resolve=resolve)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields every value with its full key: (`optimizer.lr`, 0.1)."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def flat(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Returns every setting by its full key, chosen options by family: {"init": "he", "seed": 0}.

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
