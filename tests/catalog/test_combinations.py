"""What a card warns of is said of a run that has both, once, with the reason."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dltips.catalog.cards import card, card_of
from dltips.catalog.combinations import is_on, warnings
from dltips.catalog.registry import load
from dltips.config.composition import compose
from dltips.config.validation import Config, validate
from dltips.main import main

REGISTRIES = load()
QUICK = ("epochs=0", "log.tensorboard=false", "log.pictures=none", "log.layers=false")


def warned(config: Config) -> list[str]:
    return warnings(config.tips, config.resolved)


def config_of(*overrides: str) -> Config:
    return validate(compose(list(overrides))[0])


@pytest.fixture(scope="module")
def some_run() -> Config:
    return config_of("augmentation=flip", "model.norm=layer", "epochs=3")


def reason(tip: str, switch: str) -> str:
    family, _, name = tip.partition("=")
    found = card_of(REGISTRIES[family].tips[name])
    assert found is not None
    return found.avoid[switch]


def test_the_default_config_and_the_first_recipe_are_warned_of_nothing() -> None:
    assert warned(config_of()) == []
    assert warned(config_of("+recipe=quickstart")) == []


@pytest.mark.parametrize(
    ("tip", "switch", "overrides"),
    [
        ("init=he", "activation=sigmoid", ()),
        ("preprocessing=pca_whiten", "augmentation=crop", ()),
        ("regularization=dropout", "model.norm=batch", ("model.norm=batch",)),
    ],
)
def test_a_combination_that_makes_no_sense_is_warned_of_with_the_reason(
    tip: str, switch: str, overrides: tuple[str, ...]
) -> None:
    said = warned(config_of(tip, *({switch, *overrides})))
    assert said == [f"{tip} with {switch}: {reason(tip, switch)}"]


@pytest.mark.parametrize(
    ("switch", "on"),
    [
        ("init=he", True),
        ("init=xavier", False),
        ("augmentation=flip", True),
        ("augmentation=none", False),
        ("augmentation.flip.p=0.5", True),
        ("augmentation.crop.padding=4", False),
        ("model.norm=layer", True),
        ("model.nosuch=layer", False),
        ("model.norm.deeper=layer", False),
        ("data.shuffle=true", True),
        ("data.subset=null", True),
        ("data.subset=none", False),
        ("epochs=3", True),
        ("nosuch=3", False),
    ],
)
def test_what_a_run_has(switch: str, on: bool, some_run: Config) -> None:
    assert is_on(some_run.tips, some_run.resolved, switch) == on


def test_of_two_tips_that_warn_of_each_other_one_is_heard() -> None:
    words = {"when": "-", "formula": "-", "source": "-", "costs": "-"}

    @card(**words, avoid={"init=mine": "two"})
    def yours() -> None: ...

    @card(**words, avoid={"activation=yours": "one", "epochs=3": "three"})
    def mine() -> None: ...

    tips: Any = {
        "activation": [SimpleNamespace(name="yours", function=yours)],
        "init": [SimpleNamespace(name="mine", function=mine)],
    }
    assert warnings(tips, {"epochs": 3}) == ["activation=yours with init=mine: two", "init=mine with epochs=3: three"]


def test_a_run_says_it_before_it_starts_and_writes_it_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", *QUICK, "activation=sigmoid"]) == 0
    said = f"init=he with activation=sigmoid: {reason('init=he', 'activation=sigmoid')}"
    err = capsys.readouterr().err
    assert err.count(said) == 1 and err.index(said) < err.index("run outputs")
    (log,) = Path("outputs").glob("*/run.log")
    assert log.read_text().count(said) == 1


def test_a_grid_says_it_once_and_every_run_writes_it_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "-m", *QUICK, "activation=sigmoid,relu,tanh", "seed=0,1"]) == 0
    said = f"init=he with activation=sigmoid: {reason('init=he', 'activation=sigmoid')}"
    assert capsys.readouterr().err.count(said) == 1
    logs = [log.read_text() for log in Path("outputs").glob("*/*/run.log")]
    assert (len(logs), sum(log.count(said) for log in logs)) == (6, 2)
