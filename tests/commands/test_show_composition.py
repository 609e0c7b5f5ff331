"""What is printed in place of a run: --help, --cfg, --info, each of what would be run."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from dltips import paths
from dltips.catalog import source_reader
from dltips.catalog.registry import FAMILIES
from dltips.commands.show_composition import config_of, help_of, info_of
from dltips.config.composition import compose
from dltips.config.plain import to_plain
from dltips.errors import ConfigError


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def shown(text: str) -> object:
    return OmegaConf.to_container(OmegaConf.create(text))


TYPED = ["+recipe=quickstart", "init=xavier", "optimizer.lr=0.25", "batch_size=${epochs}"]


def test_the_job_is_what_would_be_run() -> None:
    assert shown(config_of(TYPED, "job", None, resolve=False)) == to_plain(compose(TYPED)[0])
    assert shown(config_of(TYPED, "job", None, resolve=True)) == to_plain(compose(TYPED)[0], resolve=True)


def test_all_is_the_job_and_hydras_own() -> None:
    job, own, both = (shown(config_of(TYPED, kind, None, resolve=False)) for kind in ("job", "hydra", "all"))
    assert isinstance(job, dict) and isinstance(own, dict) and list(own) == ["hydra"] and both == own | job
    assert own["hydra"]["overrides"]["task"] == TYPED and not {"help", "hydra_help"} & set(own["hydra"])
    assert own["hydra"]["runtime"]["choices"]["init"] == "xavier"


@pytest.mark.parametrize(
    ("kind", "package", "expected"),
    [
        ("job", "init", "# @package init\nname: xavier\ndistribution: uniform\nscale: 1.0\n"),
        ("job", "optimizer.lr", "0.25\n"),
        ("hydra", "hydra.launcher.name", "ray\n"),
        ("all", "hydra.launcher.num_cpus", "2\n"),
        ("job", "model.widths", "# @package model.widths\n- 128\n- 128\n"),
    ],
)
def test_a_package_is_a_part_of_it(kind: str, package: str, expected: str) -> None:
    typed = ["init=xavier", "optimizer.lr=0.25", "hydra/launcher=ray", "hydra.launcher.num_cpus=2"]
    assert config_of(typed, kind, package, resolve=False) == expected
    whole = config_of(typed, kind, None, resolve=False)
    assert config_of(typed, kind, "_global_", resolve=False) == f"# @package _global_\n{whole}"


@pytest.mark.parametrize(("kind", "package"), [("job", "optimiser"), ("job", "hydra"), ("hydra", "init")])
def test_a_package_that_is_not_there_is_one_line(kind: str, package: str) -> None:
    with pytest.raises(ConfigError, match=f"^--package: {package!r} is not in the config; "):
        config_of([], kind, package, resolve=False)


def test_the_defaults_stand_in_the_order_in_which_they_apply() -> None:
    Path("recipes").mkdir()
    Path("recipes/base.yaml").write_text("defaults:\n  - optimizer: adam\n")
    Path("recipes/x.yaml").write_text("defaults:\n  - recipe: base\n  - augmentation: [flip, crop]\n")
    lines = [line.split("|")[1:-1] for line in info_of(["recipe=x"], "defaults").splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in line] for line in lines]
    assert rows[0] == ["Config path", "Package", "_self_", "Parent"]
    assert [row[0] for row in rows[-3:]] == ["config", "recipe/base", "recipe/x"]
    assert [row[3] for row in rows[-3:]] == ["<root>", "recipe/x", "config"]
    named = [row[0] for row in rows]
    assert "optimizer/adam" in named and "optimizer/sgd" not in named
    assert named.index("augmentation/flip") + 1 == named.index("augmentation/crop") < named.index("config")
    assert {row[1] for row in rows[1:]} == {*FAMILIES, ""}


def test_the_search_path_names_every_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "own.py").write_text("")
    monkeypatch.setenv("DLTIPS_IMPORT", "own.py")
    text = info_of([], "searchpath")
    places = [f"file://{folder}" for folder in (paths.shipped("configs"), tmp_path / "configs", *paths.recipes())]
    assert [line.split("|")[2].strip() for line in text.splitlines() if "file://" in line] == places


def test_config_is_all_of_it() -> None:
    text = info_of(["init=xavier"], "config")
    assert text == info_of(["init=xavier"], "all")
    assert info_of([], "searchpath") in text and info_of(["init=xavier"], "defaults") in text
    assert text.endswith(OmegaConf.to_yaml(compose(["init=xavier"])[0]))


def test_help_lists_every_option_and_the_config_after_the_overrides() -> None:
    text = help_of(["epochs=77"])
    for family in FAMILIES:
        assert f"\n{family}: {', '.join(sorted(source_reader.options(family)))}\n" in text
    assert "\nepochs: 77\n" in text
