"""The grammar of what is typed: Hydra's own, each value once, in one line where it is wrong."""

import pytest

from dltips.config.overrides import (
    is_hydras,
    parse,
    recipe_names,
    refuse_sweeps,
    typed_keys,
    value_of,
    values,
    with_plus,
)
from dltips.errors import ConfigError


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("x=3", [3]),
        ("x=1,1e-3,a", [1, 0.001, "a"]),
        ("x='a, b','c'", ["a, b", "c"]),
        ("x='1','true'", ["1", "true"]),
        ("x=[8],[8,'9']", [[8], [8, "9"]]),
        ("x={a: 1},{}", [{"a": 1}, {}]),
        ("x=choice(he,xavier)", ["he", "xavier"]),
        ("x=null", [None]),
        ("x=", [""]),
        ("x=range(3)", []),
        ("x=interval(0,1)", []),
        ("x=glob(*)", []),
    ],
)
def test_the_values_of_a_list_are_what_each_is_alone(typed: str, expected: list[object]) -> None:
    (override,) = parse([typed])
    assert values(override) == expected
    assert [type(value) for value in values(override)] == [type(value) for value in expected]


@pytest.mark.parametrize(
    ("text", "expected"), [("'1'", "1"), ("1e3", 1000.0), ("[a,'b c']", ["a", "b c"]), ("${x}", "${x}"), ("true", True)]
)
def test_a_value_alone(text: str, expected: object) -> None:
    assert value_of(text) == expected and type(value_of(text)) is type(expected)


def test_what_the_grammar_refuses_is_one_line() -> None:
    with pytest.raises(
        ConfigError, match=r"^'model.widths=\[8': is not KEY=VALUE as Hydra reads it \(.*quote it as in"
    ):
        parse(["model.widths=[8"])


def test_keys_and_hydras_own() -> None:
    keys = typed_keys(["+recipe=x", "init=he", "++optimizer.rates.a=1", "hydra/launcher=ray", "hydra.launcher.a=1"])
    assert keys == ["recipe", "init", "optimizer.rates.a", "hydra/launcher", "hydra.launcher.a"]
    assert [is_hydras(key) for key in keys] == [False, False, False, True, True]
    assert is_hydras("hydra") and not is_hydras("hydration.x")


@pytest.mark.parametrize(
    ("typed", "names"),
    [
        (["epochs=1"], []),
        (["recipe=a"], ["a"]),
        (["+recipe=[a,b]"], ["a", "b"]),
        (["++recipe=a,b"], ["a", "b"]),
        (["recipe=[a,b],c"], ["a", "b", "c"]),
    ],
)
def test_the_recipes_that_are_asked_for(typed: list[str], names: list[str]) -> None:
    assert recipe_names(parse(typed)) == names


@pytest.mark.parametrize("typed", [["recipe=a", "+recipe=b"], ["~recipe"]])
def test_recipes_are_given_once(typed: list[str]) -> None:
    with pytest.raises(ConfigError, match="recipe"):
        recipe_names(parse(typed))


def test_a_list_for_one_run_names_the_flag() -> None:
    refuse_sweeps(parse(["init=he", "model.widths=[1,2]", "name='a,b'"]))
    with pytest.raises(ConfigError, match=r"^seed=1,2: .* dltips train -m 'seed=1,2'"):
        refuse_sweeps(parse(["init=he", "seed=1,2"]))


def test_a_recipe_with_its_plus() -> None:
    assert [with_plus(typed) for typed in ("recipe=a", "+recipe=a", "init=he")] == ["+recipe=a", "+recipe=a", "init=he"]
