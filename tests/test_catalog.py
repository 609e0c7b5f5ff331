"""Every option has one line that says what it is, found without importing anything."""

import re
import sys
from pathlib import Path

import pytest

from dltips import catalog, paths, registry
from dltips.registry import FAMILIES


@pytest.mark.parametrize("family", FAMILIES)
def test_every_option_has_a_yaml_file_a_tip_and_one_line(family: str) -> None:
    options = catalog.options(family)
    assert set(options) == set(registry.load()[family].tips)
    files = (paths.shipped("configs") / family).glob("*.yaml")
    assert set(options) == {file.stem for file in files if file.stem != "_common"}
    for name, line in options.items():
        assert 5 <= len(line) <= 120 and "\n" not in line and line.rstrip().endswith((".", ")")), (name, line)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_line_is_the_docstring_s_first(family: str) -> None:
    for name, line in catalog.options(family).items():
        assert (registry.load()[family].tips[name].__doc__ or "").splitlines()[0] == line


def test_ten_families_with_a_line_each() -> None:
    assert len(FAMILIES) == 10
    assert list(catalog.families()) == list(FAMILIES) and all(catalog.families().values())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_knobs_of_an_option_are_its_yaml(family: str) -> None:
    for name in catalog.options(family):
        assert re.search(rf"^\s*name: {name}$", catalog.knobs(family, name), re.MULTILINE)
    assert catalog.knobs(family, "nosuch") == ""


def test_lines_are_read_from_the_source_and_nothing_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "configs" / "init").mkdir(parents=True)
    (tmp_path / "configs" / "init" / "exploding.yaml").write_text("name: exploding\n")
    (tmp_path / "configs" / "init" / "silent.yaml").write_text("name: silent\n")
    (tmp_path / "own.py").write_text(
        "from dltips.registry import family\n"
        "init = family('init')\n"
        "raise SystemExit('was imported')\n"
        "@init\ndef exploding(model, generator_for):\n    '''Weights that explode.'''\n"
        "@init.named('silent')\ndef other(model, generator_for): ...\n"
    )
    monkeypatch.setenv("DLTIPS_IMPORT", str(tmp_path / "own.py"))
    options = catalog.options("init")
    assert options["exploding"] == "Weights that explode." and options["silent"] == ""
    assert "he" in options and "dltips_user_own" not in sys.modules
