import ast
import inspect
import math
import re
import sys
from pathlib import Path
from typing import Any, Literal

import pytest
from omegaconf import ListConfig, OmegaConf

from dltips import paths
from dltips.catalog import articles, registry, source_reader
from dltips.catalog.cards import card_of
from dltips.catalog.registry import (
    FAMILIES,
    STACKABLE,
    Count,
    Fraction,
    NonNegative,
    Positive,
    Registry,
    Size,
    check_knobs,
    check_value,
    knobs_of,
)
from dltips.config.validation import Settings
from dltips.errors import ConfigError, suggest

REGISTRIES = registry.load()
OPTIONS = [(family, name) for family in FAMILIES for name in REGISTRIES[family].tips]
COMMON = [family for family in FAMILIES if REGISTRIES[family].shared is not None]


def read(family: str, name: str) -> dict[str, Any]:
    plain = OmegaConf.to_container(OmegaConf.load(paths.shipped("configs") / family / f"{name}.yaml"))
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


@pytest.mark.parametrize(
    ("value", "annotation", "checked"),
    [
        (3, int, 3),
        (3, float, 3.0),
        (0.5, float, 0.5),
        (True, bool, True),
        ("he", str, "he"),
        (0, Count, 0),
        (1, Size, 1),
        (0, NonNegative, 0.0),
        (1e-300, Positive, 1e-300),
        (0, Fraction, 0.0),
        (1, Fraction, 1.0),
        ("a", Literal["a", "b"], "a"),
        (2, Literal[1, 2], 2),
        (True, Literal[True, "auto"], True),
        (None, str | None, None),
        ("x", str | None, "x"),
        (None, Size | None, None),
        (5, Size | None, 5),
        (2.5, int | float, 2.5),
        ([1, 2], tuple[Size, ...], (1, 2)),
        ((), tuple[Size, ...], ()),
        ([1, 0.5], list[float], (1.0, 0.5)),
        ({"a": 1}, dict[str, Any], {"a": 1}),
        ({}, dict, {}),
    ],
)
def test_a_good_value_passes_with_its_type(value: Any, annotation: Any, checked: Any) -> None:
    result = check_value("k", value, annotation)
    assert result == checked
    assert type(result) is type(checked)


@pytest.mark.parametrize(
    ("value", "annotation", "message"),
    [
        ("3", int, "k: '3' is not a whole number"),
        (3.0, int, "k: 3.0 is not a whole number"),
        (True, int, "k: True is not a whole number"),
        (False, float, "k: False is not a number"),
        ("0.1", float, "k: '0.1' is not a number"),
        (math.inf, float, "k: inf is out of range; it must be finite"),
        (math.nan, Positive, "k: nan is out of range; it must be finite"),
        (1, bool, "k: 1 is not true or false"),
        ("true", bool, "k: 'true' is not true or false"),
        (1, str, "k: 1 is not a text"),
        (None, int, "k: null is not allowed; it takes a whole number"),
        (None, Positive, "k: null is not allowed; it takes a number"),
        (0, Positive, "k: 0.0 is out of range; it must be above 0"),
        (-0.1, NonNegative, "k: -0.1 is out of range; it must be at least 0"),
        (1.1, Fraction, "k: 1.1 is out of range; it must be from 0 to 1"),
        (-1, Count, "k: -1 is out of range; it must be at least 0"),
        (0, Size, "k: 0 is out of range; it must be at least 1"),
        (True, Size, "k: True is not a whole number"),
        ("c", Literal["a", "b"], "k: 'c' is not one of a, b"),
        ("bathc", Literal["none", "batch"], "k: 'bathc' is not one of none, batch; did you mean batch?"),
        (True, Literal[1, 2], "k: True is not one of 1, 2"),
        (1, Literal[True, False], "k: 1 is not one of True, False"),
        (1.0, Literal[1, 2], "k: 1.0 is not one of 1, 2"),
        (None, Literal["a"], "k: None is not one of a"),
        (["a"], Literal["a"], "k: ['a'] is not one of a"),
        (0, Size | None, "k: 0 is out of range; it must be at least 1"),
        (1, str | None, "k: 1 is not a text"),
        (3, tuple[Size, ...], "k: 3 is not a list; write 'k=[...]'"),
        ("12", tuple[Size, ...], "k: '12' is not a list; write 'k=[...]'"),
        ([4, 0], tuple[Size, ...], "k[1]: 0 is out of range; it must be at least 1"),
        ([1], dict[str, Any], "k: [1] is not a mapping; write 'k.NAME=VALUE'"),
    ],
)
def test_a_bad_value_is_refused_in_one_line(value: Any, annotation: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_value("k", value, annotation)
    assert str(caught.value) == message


def test_suggest_names_what_is_close_and_else_lists_all() -> None:
    assert str(suggest("hee", ["xavier", "he"])) == "; did you mean he?"
    assert str(suggest("zzz", ["b", "a"])) == "; there is: a, b"
    assert str(suggest("zzz", [])) == "; there is: nothing"


def test_knobs_must_be_all_there_and_no_others() -> None:
    schema = {"lr": Positive, "nesterov": bool}
    good = {"lr": 1, "nesterov": True}
    assert check_knobs("optimizer", good, schema, "optimizer=sgd") == {"lr": 1.0, "nesterov": True}
    for values, message in [
        ({**good, "lrr": 1}, "optimizer.lrr: optimizer=sgd has no such key; did you mean lr?"),
        ({"lr": 1}, "optimizer.nesterov: is missing; give it a value"),
        ({**good, "lr": "fast"}, "optimizer.lr: 'fast' is not a number"),
    ]:
        with pytest.raises(ConfigError) as caught:
            check_knobs("optimizer", values, schema, "optimizer=sgd")
        assert str(caught.value) == message
    with pytest.raises(ConfigError, match=r"^seed: is missing"):
        check_knobs("", {}, {"seed": Count}, "the config")


def test_binding_an_option_checks_its_name_and_its_knobs() -> None:
    tips = Registry("init")

    @tips.named("he")
    def kaiming(model: object, *, scale: NonNegative) -> tuple[object, float]:
        return model, scale

    tip = tips.bind("he", {"scale": 2}, "init")
    assert tip("net") == ("net", 2.0)
    assert (tip.family, tip.name) == ("init", "he")
    with pytest.raises(ConfigError, match=r"^init: 'hee' is not an option; did you mean he\?$"):
        tips.bind("hee", {}, "init")
    with pytest.raises(ConfigError, match=r"^init.scale: -1.0 is out of range; it must be at least 0$"):
        tips.bind("he", {"scale": -1.0}, "init")


def test_a_tip_of_another_module_cannot_take_a_name_that_is_taken() -> None:
    tips = Registry("init")

    def first() -> None: ...

    def second() -> None: ...

    tips.named("he")(first)
    second.__module__ = "elsewhere"
    with pytest.raises(ConfigError, match=r"^init=he: elsewhere defines a tip that dltips has already$"):
        tips.named("he")(second)
    assert tips.tips["he"] is first


# The walk over all families: YAML file, registered function and signature agree, for every newcomer too.


@pytest.mark.parametrize("family", FAMILIES)
def test_every_option_has_a_yaml_file_and_every_yaml_file_an_option(family: str) -> None:
    folder = paths.shipped("configs") / family
    assert {file.stem for file in folder.iterdir() if not file.stem.startswith("_")} == set(REGISTRIES[family].tips)
    assert (folder / "_common.yaml").exists() == (REGISTRIES[family].shared is not None)
    assert {file.suffix for file in folder.iterdir()} == {".yaml"}


def test_there_is_no_family_without_a_name() -> None:
    folders = {folder.name for folder in paths.shipped("configs").iterdir() if folder.is_dir()}
    assert folders == {*FAMILIES, "hydra"}  # where a grid's trials run is Hydra's own group
    assert set(STACKABLE) <= set(FAMILIES)


@pytest.mark.parametrize(("family", "name"), OPTIONS)
def test_yaml_and_signature_agree(family: str, name: str) -> None:
    section = read(family, name)
    if family in STACKABLE:
        assert list(section) == [name]
        section = section[name]
    assert section.pop("name") == name
    # a knob that the whole family has may be named once more, to be handed over: its default stands in _common.yaml
    common = REGISTRIES[family].common_knobs()
    schema = {key: kind for key, kind in knobs_of(REGISTRIES[family].tips[name]).items() if key not in common}
    assert list(section) == list(schema)
    checked = check_knobs(family, section, schema, f"{family}={name}")
    assert all(checked[key] == (tuple(value) if isinstance(value, list) else value) for key, value in section.items())


@pytest.mark.parametrize("family", COMMON)
def test_common_yaml_and_the_common_function_agree(family: str) -> None:
    section = read(family, "_common")
    shared = REGISTRIES[family].shared
    assert shared is not None
    assert list(section) == list(knobs_of(shared))
    plain = {key: tuple(value) if isinstance(value, list) else value for key, value in section.items()}
    assert check_knobs(family, section, knobs_of(shared), family) == plain


@pytest.mark.parametrize(("family", "name"), [*OPTIONS, *((family, "_common") for family in COMMON)])
def test_no_signature_has_a_default(family: str, name: str) -> None:
    function = REGISTRIES[family].shared if name == "_common" else REGISTRIES[family].tips[name]
    assert function is not None
    parameters = inspect.signature(function).parameters.values()
    assert [p.name for p in parameters if p.default is not inspect.Parameter.empty] == []
    assert not [p.name for p in parameters if p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]


@pytest.mark.parametrize(("family", "name"), OPTIONS)
def test_every_tip_says_in_one_sentence_what_it_does(family: str, name: str) -> None:
    lines = (REGISTRIES[family].tips[name].__doc__ or "").splitlines()
    assert lines, f"{family}={name} has no docstring"
    first = lines[0]
    assert len(first) > 10
    assert first.endswith(".")
    # what `dltips ls` shows without importing anything
    assert source_reader.options(family)[name] == first


@pytest.mark.parametrize(("family", "name"), OPTIONS)
def test_every_tip_has_a_card(family: str, name: str) -> None:
    card = card_of(REGISTRIES[family].tips[name])
    assert card is not None, f"{family}={name} has no card"
    for text in (card.when, card.formula, card.source, card.costs):
        assert text, card
    for text in (card.when, card.formula, card.source, card.costs, card.recommends, *card.avoid.values()):
        assert text == " ".join(text.split()) and not text.endswith((",", ";", ":"))
        assert not text.endswith(".") or text.endswith("...")
        assert text.count("(") == text.count(")") or "[" in text  # a half-open interval has one of each
    assert bool(articles.cited(card.source)) == bool(re.search(r"\btips?\b", card.source)), card.source


@pytest.mark.parametrize(("family", "name"), OPTIONS)
def test_a_card_warns_of_what_there_is_and_says_why(family: str, name: str) -> None:
    card = card_of(REGISTRIES[family].tips[name])
    for switch, reason in (card.avoid if card else {}).items():
        assert_switch(switch)
        assert len(reason) > 10 and switch != f"{family}={name}"


@pytest.mark.parametrize(("family", "name"), OPTIONS)
def test_what_a_tip_wants_beside_it_is_there(family: str, name: str) -> None:
    card = card_of(REGISTRIES[family].tips[name])
    for override in card.try_with if card else ():
        assert_switch(override)


def assert_switch(switch: str) -> None:
    """`family=option`, or `family.knob=value` with a knob that some option has and a value that it takes."""
    key, separator, written = switch.partition("=")
    value: Any = OmegaConf.create(f"value: {written}").value if written != "???" else None
    assert separator, switch
    family, *path = key.split(".")
    if not path:
        if family in FAMILIES:
            for option in value if isinstance(value, ListConfig) else [value]:
                assert str(option) in REGISTRIES[family].tips, switch
        else:
            assert family in knobs_of(Settings), switch
        return
    tips = REGISTRIES[family].tips
    owners = [tips[path[0]]] if family in STACKABLE else [*tips.values(), REGISTRIES[family].shared]
    annotations = [knobs_of(owner)[path[-1]] for owner in owners if owner and path[-1] in knobs_of(owner)]
    assert annotations, f"{switch}: no option has this knob"
    plain = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
    assert any(accepts(switch, plain, annotation) for annotation in annotations), f"{switch}: no option takes this"


def accepts(key: str, value: Any, annotation: Any) -> bool:
    try:
        check_value(key, value, annotation)
    except ConfigError:
        return False
    return True


def test_an_option_is_registered_by_a_module_of_its_own_family() -> None:
    for family, name in OPTIONS:
        assert REGISTRIES[family].tips[name].__module__.startswith(f"dltips.tips.{family}")


def test_no_yaml_file_names_code() -> None:
    for file in paths.shipped("configs").rglob("*.yaml"):
        assert "_target_" not in file.read_text(encoding="utf-8"), file.name


def test_tips_know_neither_hydra_nor_the_run_folder() -> None:
    for file in Path(registry.__file__).with_name("tips").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not [n for n in names if n.startswith(("hydra", "omegaconf", "dltips.train", "dltips.insight"))]


def test_a_new_module_of_a_family_s_package_is_found_without_being_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dltips.tips.model as package

    (tmp_path / "newcomer.py").write_text(
        "from dltips.nets.blocks import model\n\n\n@model\ndef newcomer(shape, classes, activation): ...\n"
    )
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    tips = registry.family("model").tips
    try:
        assert "newcomer" in registry.load()["model"].tips
    finally:
        tips.pop("newcomer", None)
        sys.modules.pop("dltips.tips.model.newcomer", None)
