"""Every option has one line that says what it is, found without importing anything."""

import inspect
import sys
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from dltips import paths
from dltips.catalog import registry, source_reader
from dltips.catalog.cards import Card, card_of
from dltips.catalog.registry import FAMILIES, STACKABLE
from dltips.catalog.source_reader import Knob


@pytest.mark.parametrize("family", FAMILIES)
def test_every_option_has_a_yaml_file_a_tip_and_one_line(family: str) -> None:
    options = source_reader.options(family)
    assert set(options) == set(registry.load()[family].tips)
    files = (paths.shipped("configs") / family).glob("*.yaml")
    assert set(options) == {file.stem for file in files if file.stem != "_common"}
    for name, line in options.items():
        assert 5 <= len(line) <= 120 and "\n" not in line and line.rstrip().endswith((".", ")")), (name, line)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_line_is_the_docstring_s_first(family: str) -> None:
    for name, line in source_reader.options(family).items():
        assert (registry.load()[family].tips[name].__doc__ or "").splitlines()[0] == line


def test_ten_families_with_a_line_each() -> None:
    assert len(FAMILIES) == 10
    assert list(source_reader.families()) == list(FAMILIES) and all(source_reader.families().values())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_cards_are_those_that_the_functions_have(family: str) -> None:
    """Read from the sources and attached on import: the same, also where a card is continued over several lines."""
    functions = registry.load()[family].tips
    assert source_reader.cards(family) == {name: card_of(functions[name]) for name in source_reader.options(family)}


@pytest.mark.parametrize("family", FAMILIES)
def test_an_entry_is_what_the_function_and_its_yaml_have(family: str) -> None:
    for name in source_reader.options(family):
        entry, function = source_reader.entry(family, name), registry.load()[family].tips[name]
        assert (entry.switch, entry.docstring) == (f"{family}={name}", inspect.getdoc(function))
        assert entry.card == card_of(function)
        section: Any = OmegaConf.to_container(OmegaConf.load(paths.shipped("configs") / family / f"{name}.yaml"))
        prefix = f"{family}.{name}" if family in STACKABLE else family
        knobs = section[name] if family in STACKABLE else section
        assert {knob.key: knob.default for knob in entry.knobs} == {
            f"{prefix}.{key}": value for key, value in knobs.items() if key != "name"
        }
        for knob in entry.knobs:
            assert OmegaConf.create(f"x: {knob.written}").x == knob.default
            assert "#" not in knob.written and not knob.comment.startswith("#")


def test_all_tips_of_all_families() -> None:
    tips = source_reader.tips()
    assert tips["init=he"] == source_reader.options("init")["he"]
    assert len(tips) == sum(len(source_reader.options(family)) for family in FAMILIES)


YAML = """\
decay:
  name: decay
  rate: 1e-3     # per step,
                 # not per epoch
  kind: "a b"
  widths: [1, 2]   # one each
  block:
    - 1
"""


def test_knobs_have_their_comments_and_are_shown_as_they_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "configs" / "regularization").mkdir(parents=True)
    (tmp_path / "configs" / "regularization" / "decay.yaml").write_text(YAML)
    (tmp_path / "own.py").write_text("")
    monkeypatch.setenv("DLTIPS_IMPORT", str(tmp_path / "own.py"))
    assert source_reader.knobs("regularization", "decay") == (
        Knob("regularization.decay.rate", 0.001, "1e-3", "per step, not per epoch"),
        Knob("regularization.decay.kind", "a b", '"a b"', ""),
        Knob("regularization.decay.widths", [1, 2], "[1, 2]", "one each"),
        Knob("regularization.decay.block", [1], "[1]", ""),
    )
    assert source_reader.yaml_of("regularization", "decay") == YAML
    assert (
        source_reader.yaml_of("regularization", "nosuch") == ""
        and source_reader.knobs("regularization", "nosuch") == ()
    )


OWN = """\
from dltips.card import card
from dltips import family
init = family('init')
raise SystemExit('was imported')
@init
@card(when="now " "and then", formula="x", source="-", costs="much", avoid={"model=mlp": "it explodes"})
def exploding(model, generator_for):
    '''Weights that explode.

    Soon.
    '''
@init.named('silent')
def other(model, generator_for): ...
@init
@card(when=str(3), formula="x", source="-", costs="much")
def computed(model, generator_for): ...
@init
@card(when="now", nosuch="x")
def wrong(model, generator_for): ...
"""


def test_the_sources_are_read_and_nothing_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "configs" / "init").mkdir(parents=True)
    for name in ("exploding", "silent", "computed", "wrong"):
        (tmp_path / "configs" / "init" / f"{name}.yaml").write_text(f"name: {name}\n")
    (tmp_path / "own.py").write_text(OWN)
    monkeypatch.setenv("DLTIPS_IMPORT", str(tmp_path / "own.py"))
    options = source_reader.options("init")
    assert options["exploding"] == "Weights that explode." and options["silent"] == ""
    assert source_reader.entry("init", "exploding").docstring == "Weights that explode.\n\nSoon."
    assert source_reader.cards("init")["exploding"] == Card(
        when="now and then", formula="x", source="-", costs="much", avoid={"model=mlp": "it explodes"}
    )
    # without a card, or with one that cannot be read without running it, a tip of the user's is listed all the same
    assert [source_reader.cards("init")[name] for name in ("silent", "computed", "wrong")] == [None, None, None]
    assert "he" in options and "dltips_user_own" not in sys.modules


def test_a_user_s_file_that_cannot_be_read_hides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own.py").write_text("def (")
    monkeypatch.setenv("DLTIPS_IMPORT", str(tmp_path / "own.py"))
    assert "he" in source_reader.options("init")
