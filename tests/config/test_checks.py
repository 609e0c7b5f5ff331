"""What was typed against what there is: the key, the value, the nearest name or the owner, in one line."""

import pytest

from dltips.catalog.registry import FAMILIES
from dltips.config.checks import check_choice, check_form, check_value, knobs_of_choice
from dltips.config.option_files import primary_choices
from dltips.config.overrides import parse
from dltips.errors import ConfigError

CHOSEN = {family: choice for family, choice in primary_choices().items() if family in FAMILIES}


def refusal(typed: str, **choices: object) -> str:
    (override,) = parse([typed])
    with pytest.raises(ConfigError) as refused:
        check_form(override)
        check_value(override, CHOSEN | choices)  # type: ignore[arg-type]
    return str(refused.value)


@pytest.mark.parametrize(
    "typed",
    [
        "epochs=1",
        "++epochs=1",
        "log={layers:false}",
        "optimizer.lr=1",
        "+recipe=x",
        "recipe=x",
        "data.split_seed=3",
        "optimizer.rates={head: 3}",
        "optimizer.rates.head.more=3",
        "checkpoint.interval=1",
        "hydra.anything=1",
    ],
)
def test_what_there_is_passes(typed: str) -> None:
    (override,) = parse([typed])
    check_form(override)
    if override.key_or_group not in ("recipe", "hydra.anything"):
        check_value(override, CHOSEN)


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        ("epoch=1", "did you mean epochs?"),
        ("lr=1", "did you mean optimizer.lr?"),
        ("optimiser.lr=1", "did you mean optimizer.lr?"),
        ("num_workers=4", "see data.placement"),
        ("log.drop_last=true", "nothing is dropped"),
        ("quite_other=1", "see dltips train --help"),
        ("optimizer.momentun=1", "did you mean momentum?"),
        ("optimizer.betas=1", "it belongs to adam, adamw, "),
        ("model.stem=cifar", "write model=OPTION"),
        ("augmentation.crop.padding=1", "write 'augmentation=[crop]'"),
        ("optimizer.weight_decay=1", "write regularization=weight_decay"),
        ("log={layers:false,layer:true}", "log.layer: there is no such key; did you mean log.layers?"),
        ("+epochs=3", "write epochs=3 without the plus"),
        ("~epochs", "nothing can be left out"),
        ("init@x=he", "a package cannot be set here"),
        ("+init=he", "init is chosen already"),
        ("init=he,hee", "did you mean he?"),
    ],
)
def test_what_there_is_not_is_named_with_a_hint(typed: str, hint: str) -> None:
    assert hint in refusal(typed)


def test_knobs_are_those_of_what_is_chosen() -> None:
    assert "betas" in knobs_of_choice("optimizer", "adam") and "betas" not in knobs_of_choice("optimizer", "sgd")
    assert list(knobs_of_choice("augmentation", ["flip", "crop"])) == ["flip", "crop"]
    assert "write 'augmentation=[flip,crop]'" in refusal("augmentation.crop.padding=1", augmentation=["flip"])
    check_value(parse(["augmentation.crop.padding=1"])[0], CHOSEN | {"augmentation": ["flip", "crop"]})
    check_value(parse(["optimizer.betas=[0.9,0.9]"])[0], CHOSEN | {"optimizer": "adam"})


@pytest.mark.parametrize(
    ("family", "choice", "reason"),
    [
        ("init", "hee", "did you mean he?"),
        ("init", ["he"], "write init=he"),
        ("init", None, "None is not an option"),
        ("init", "_common", "is not an option"),
        ("init", "../optimizer/sgd", "is not an option"),
        ("regularization", [], "write regularization=none"),
        ("regularization", ["l2", "l2"], "l2 is given twice"),
        ("regularization", ["l2", "none", "ema"], "write 'regularization=[l2,ema]'"),
        ("regularization", ["l2", 3], "3 is not an option"),
    ],
)
def test_a_choice_is_one_of_the_options(family: str, choice: object, reason: str) -> None:
    check_choice("here", "init", "he")
    check_choice("here", "regularization", ["l2", "ema"])
    with pytest.raises(ConfigError) as refused:
        check_choice("here", family, choice)
    assert str(refused.value).startswith("here: ") and reason in str(refused.value)
