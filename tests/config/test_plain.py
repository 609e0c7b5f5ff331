"""Configs as plain data."""

import pytest
from omegaconf import OmegaConf

from dltips.config.plain import flat, leaves, to_plain


def test_leaves_are_full_keys_and_sections_do_not_count() -> None:
    tree = {"a": 1, "b": {"c": [1, 2], "d": {"e": None}}, "f": {}}
    assert list(leaves(tree)) == [("a", 1), ("b.c", [1, 2]), ("b.d.e", None), ("f", {})]


def test_settings_are_flat_with_options_by_family_and_no_secret() -> None:
    plain = {
        "seed": 0,
        "init": {"name": "he", "scale": 1.0},
        "augmentation": {"flip": {"name": "flip", "p": 0.5}, "crop": {"name": "crop"}},
        "log": {"layers": True},
        "data": {"name": "npz", "api_key": "abc", "file": "${oc.env:FILE}"},
    }
    assert flat(plain) == {
        "seed": 0,
        "init": "he",
        "init.scale": 1.0,
        "augmentation": "flip,crop",
        "augmentation.flip.p": 0.5,
        "log.layers": True,
        "data": "npz",
        "data.api_key": "[redacted]",
        "data.file": "${oc.env:FILE}",
    }


@pytest.mark.parametrize(("resolve", "value"), [(False, "${a}"), (True, 1)])
def test_interpolations_stay_unless_they_are_to_be_resolved(resolve: bool, value: object) -> None:
    config = OmegaConf.create({"a": 1, "b": "${a}", 3: [1]})
    assert to_plain(config, resolve=resolve) == {"a": 1, "b": value, "3": [1]}
