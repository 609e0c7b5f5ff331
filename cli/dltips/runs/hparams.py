"""The columns of TensorBoard's HParams tab, and a run's values in them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dltips import paths
from dltips.catalog.registry import FAMILIES
from dltips.config.plain import leaves
from dltips.config.redaction import redacted
from dltips.config.validation import Config, plain_yaml

Scalar = bool | float | str


def hyperparameters(config: Config) -> tuple[dict[str, Scalar], dict[str, Scalar]]:
    """Returns HParams' columns, the same in every run, each with an example; and this run's values.

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


@functools.cache  # reading more than a hundred YAMLs takes 0.1 s, and the runs of a sweep share them
def _columns(folders: tuple[Path, ...]) -> Mapping[str, Scalar]:
    """Returns every possible key of a run, with a value of its type: a number, a boolean, or else text."""
    primary = plain_yaml(paths.shipped("configs") / "config.yaml")
    columns = dict(leaves({key: value for key, value in primary.items() if key not in ("defaults", "hydra", "resume")}))
    for family in FAMILIES:
        columns[family] = ""
        for folder in folders:
            for file in sorted((folder / family).glob("*.yaml")):
                settings = leaves(plain_yaml(file), f"{family}.")
                for key, value in settings:
                    if not key.endswith(".name"):
                        # a key may be a number in one option and text in another: then it is text
                        columns[key] = value if type(_example(columns.get(key, value))) is type(_example(value)) else ""
    return {key: _example(value) for key, value in columns.items()}


def _example(value: Any) -> Scalar:
    if isinstance(value, bool):
        return value
    return float(value) if isinstance(value, int | float) else ""
