"""What the YAML files hold: options and knobs, ours before the user's, read once per version of a file."""

import os
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from dltips import paths
from dltips.catalog.registry import FAMILIES
from dltips.config.option_files import (
    common_knobs,
    contains,
    dotted,
    knobs,
    options,
    primary_choices,
    primary_knobs,
    read,
)
from dltips.errors import ConfigError


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's own folder of options for init, on the search path."""
    (tmp_path / "own.py").write_text("")
    folder = tmp_path / "configs" / "init"
    folder.mkdir(parents=True)
    monkeypatch.setenv("DLTIPS_IMPORT", str(tmp_path / "own.py"))
    return folder


@pytest.mark.parametrize("family", FAMILIES)
def test_keys_are_those_that_omegaconf_reads(family: str) -> None:
    for file in (paths.shipped("configs") / family).glob("*.yaml"):
        expected = OmegaConf.to_container(OmegaConf.load(file))
        assert isinstance(expected, dict)
        found = read(f"{family}/{file.stem}")
        assert list(dotted(found)) == list(dotted({str(key): value for key, value in expected.items()}))
        assert file.stem.startswith("_") or file.stem in options(family)


def test_a_file_for_shared_knobs_is_not_an_option() -> None:
    assert "_common" not in options("data") and "split_seed" in common_knobs("data")
    assert common_knobs("init") == {} == knobs("init", "nosuch")


def test_name_is_chosen_and_never_a_knob() -> None:
    assert "name" not in knobs("init", "he") and knobs("augmentation", "crop") == {"crop": {"padding": 4}}
    assert "name" in primary_knobs()  # a run has a name that can be set


def test_the_primary_config_chooses_one_option_of_each_family_and_holds_no_key_of_hydras() -> None:
    chosen = primary_choices()
    assert set(chosen) == set(FAMILIES) and all(name in options(family) for family, name in chosen.items())
    assert not {"hydra", "defaults"} & set(primary_knobs())


def test_the_users_files_lie_behind_ours(own: Path) -> None:
    (own / "mine.yaml").write_text("name: mine\nstd: 1e-4\n")
    (own / "he.yaml").write_text("name: he\nnothing: 1\n")
    assert "mine" in options("init") and list(knobs("init", "mine")) == ["std"]
    assert "nothing" not in knobs("init", "he")


def test_an_edited_file_is_read_again(own: Path) -> None:
    file = own / "mine.yaml"
    file.write_text("name: mine\na: 1\n")
    assert list(knobs("init", "mine")) == ["a"]
    file.write_text("name: mine\nb: 1\n")
    os.utime(file, ns=(1, 1))
    assert list(knobs("init", "mine")) == ["b"]


@pytest.mark.parametrize("text", ["{", "a: [", "a: *b\n", "!!python/object/apply:os.getcwd []\n", "\x00"])
def test_what_is_not_yaml_is_one_line_with_the_file(own: Path, text: str) -> None:
    (own / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError) as refused:
        knobs("init", "mine")
    assert str(own / "mine.yaml") in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("text", ["", "text\n", "- a\n", "3\n"])
def test_what_is_no_mapping_has_no_knobs(own: Path, text: str) -> None:
    (own / "mine.yaml").write_text(text)
    assert knobs("init", "mine") == {}


def test_a_knob_that_takes_any_keys() -> None:
    tree = {"a": {"b": 1}, "any": {}, "c": 2}
    inside = [["a"], ["a", "b"], ["any"], ["any", "x", "y"], ["c"]]
    assert all(contains(tree, path) for path in inside)
    assert not any(contains(tree, path) for path in (["b"], ["a", "c"], ["a", "b", "c"], ["c", "d"]))
    assert list(dotted(tree)) == ["a.b", "any", "c"]
