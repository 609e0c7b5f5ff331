"""The search space: Hydra's sweep syntax, composed once, checked before the first trial."""

import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from dltips.config.composition import compose
from dltips.config.plain import to_plain
from dltips.config.validation import validate
from dltips.errors import ConfigError
from dltips.sweep.search.space import Space, from_json, resolve


def refusal(*overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        resolve(overrides).check()
    return str(caught.value)


@pytest.mark.parametrize(
    ("typed", "distribution"),
    [
        ("optimizer.lr=interval(0.1,1)", FloatDistribution(0.1, 1.0)),
        ("optimizer.lr=tag(log,interval(1e-4,1))", FloatDistribution(1e-4, 1.0, log=True)),
        ("epochs=int(interval(5,20))", IntDistribution(5, 20)),
        ("batch_size=tag(log,int(interval(8,256)))", IntDistribution(8, 256, log=True)),
        ("batch_size=range(16,64,16)", IntDistribution(16, 48, step=16)),  # Hydra's range leaves its end out
        ("batch_size=range(64,16,-16)", IntDistribution(32, 64, step=16)),
        ("optimizer.lr=range(0.1,0.5,0.1)", FloatDistribution(0.1, 0.4, step=0.1)),
        ("optimizer.lr=0.1,0.01", CategoricalDistribution(("0.1", "0.01"))),
        ("model.widths=[64],[128,128]", CategoricalDistribution(("[64]", "[128,128]"))),
        ("init=choice(he,xavier)", CategoricalDistribution(("he", "xavier"))),
    ],
)
def test_hydras_syntax_becomes_a_distribution(typed: str, distribution: object) -> None:
    space = resolve(["+recipe=quickstart", typed])
    space.check()
    assert list(space.distributions().values()) == [distribution]


def test_a_glob_takes_the_options_of_a_family() -> None:
    (dimension,) = resolve(["init=glob(x*)"]).dimensions
    assert dimension.labels == ("xavier", "xavier_fc_gaussian_conv")


def test_a_trials_config_is_what_hydra_composes_for_its_values() -> None:
    space = resolve(
        ["+recipe=quickstart", "optimizer=sgd,adam", "optimizer.lr=interval(0.1,1)", "model.widths=[8],[9]"]
    )
    plain = space.plain({"optimizer": "adam", "optimizer.lr": 0.25, "model.widths": "[9]"})
    composed, _ = compose(["+recipe=quickstart", "optimizer=adam", "optimizer.lr=0.25", "model.widths=[9]"])
    assert validate(OmegaConf.create(plain)).plain == to_plain(composed)


def test_stacks_of_options_are_choices_too() -> None:
    space = resolve(["regularization=[l2],[l2,dropout]"])
    space.check()
    assert list(space.plain({"regularization": "[l2,dropout]"})["regularization"]) == ["l2", "dropout"]
    assert space.varied({"regularization": "[l2,dropout]"}) == {"regularization": "[l2,dropout]"}


def test_an_edited_yaml_changes_nothing_in_a_frozen_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = tmp_path / "recipes" / "mine.yaml"
    recipe.parent.mkdir()
    recipe.write_text("name: mine\nepochs: 3\n")
    space = resolve(["+recipe=mine", "init=he,xavier"])
    recipe.write_text("name: mine\nepochs: 4\n")
    assert space.plain({"init": "xavier"})["epochs"] == 3
    assert space.plain({"init": "xavier"})["init"]["name"] == "xavier"


def test_a_space_survives_json() -> None:
    space = resolve(["init=he,xavier", "optimizer.lr=tag(log,interval(1e-4,1))", "model.widths=[8],[8,8]"])
    again = from_json(json.loads(json.dumps(space.to_json())))
    values = {"init": "he", "optimizer.lr": 0.5, "model.widths": "[8,8]"}
    assert again.plain(values) == space.plain(values)
    assert again.differences(space) == []


def test_steps_are_the_numbers_that_were_typed() -> None:
    (dimension,) = resolve(["optimizer.lr=range(0.1,0.5,0.1)"]).dimensions
    assert dimension.setting(0.1 + 2 * 0.1) == 0.3


@pytest.mark.parametrize(
    ("other", "differs"),
    [
        (["init=he,zeros"], ["init=he,xavier (not he,zeros)"]),
        (["init=he,xavier", "epochs=7"], ["epochs=30 (not 7)"]),
        (["init=he,xavier", "optimizer=adam"], ["optimizer=sgd (not adam)"]),
        (["init=he,xavier", "batch_size=8,16"], ["batch_size=as it is (not 8,16)"]),
        (["init=he,xavier", "name=other", "device=cpu", "log.layers=false"], []),
    ],
)
def test_two_spaces_differ_in_what_changes_a_result(other: list[str], differs: list[str]) -> None:
    found = resolve(["init=he,xavier"]).differences(resolve(other))
    assert found[: len(differs)] == differs and bool(found) == bool(differs)


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (
            ["optimizer.lr=log(1e-4,1)"],
            "optimizer.lr=log(1e-4,1): is not a range; write 'optimizer.lr=tag(log,interval(1e-4,1))'",
        ),
        (
            ["optimizer.lr=tag(log,1e-4,1)"],
            "optimizer.lr=tag(log,1e-4,1): is not a range; write 'optimizer.lr=tag(log,interval(1e-4,1))'",
        ),
        (
            ["optimizer.lr=uniform(0.1, 1)"],
            "optimizer.lr=uniform(0.1, 1): is not a range; write 'optimizer.lr=interval(0.1,1)'",
        ),
        (
            ["optimizer.lr=interval(1,1e-4)"],
            "optimizer.lr: interval(1,1e-4) begins above its end; write 'optimizer.lr=interval(1e-4,1)'",
        ),
        (
            ["optimizer.lr=tag(log,interval(1,0.1))"],
            "optimizer.lr: tag(log,interval(1,0.1)) begins above its end;"
            " write 'optimizer.lr=tag(log,interval(0.1,1))'",
        ),
        (["optimizer.lr=interval(1,1)"], "optimizer.lr: interval(1,1) has one value alone; write optimizer.lr=1"),
        (
            ["optimizer.lr=tag(log,interval(0,1))"],
            "optimizer.lr: tag(log,interval(0,1)) begins at 0, which has no logarithm; begin above 0",
        ),
        (["optimizer.lr=0.1,0.1"], "optimizer.lr: 0.1 is given twice; once is enough"),
        (["optimizer.lr=0.1,0.2", "optimizer.lr=0.3"], "optimizer.lr: is given twice; once is enough"),
        (["optimizer.lr=tag(fast,interval(0.1,1))"], "optimizer.lr: the tag fast means nothing here; there is: log"),
        (
            ["optimizer.lr=tag(log,choice(0.1,1))"],
            "optimizer.lr: log goes with an interval; write 'optimizer.lr=tag(log,interval(LOW,HIGH))'",
        ),
        (
            ["optimizer.lr=shuffle(0.1,1)"],
            "optimizer.lr: shuffle means nothing in a search, which draws as its sampler does; leave it out",
        ),
        (
            ["regularization.dropout.p=interval(0,0.5)"],
            "regularization.dropout.p: dropout is not switched on; write 'regularization=[dropout]'",
        ),
        (["init=he,hee"], "init: 'hee' is not an option; did you mean he?"),
        (["init=interval(0,1)"], "init: takes options, not an interval; see dltips ls init"),
        (
            ["seed=range(5)"],
            "seed: seeds are not searched over, or the luckiest wins; write seeds=5 to average over as many",
        ),
        (["data=digits,cifar10"], "data: scores on different data cannot be compared; write data=ONE and search apart"),
        (["log.layers=true,false"], "log.layers: it does not change the result"),
        (["optimizer.lr=-1,1"], "optimizer.lr: -1.0 is out of range; it must be above 0"),
        (
            ["regularization=[dropout]", "regularization.dropout.p=interval(0,2)"],
            "regularization.dropout.p: 2.0 is out of range; it must be from 0 to 1",
        ),
        (["epochs=interval(5,20)"], "epochs: takes whole numbers; write 'epochs=int(interval(5,20))'"),
        (["init=he,xavier", "epochs=interval(5,9)"], "epochs: takes whole numbers; write 'epochs=int(interval(5,9))'"),
        (
            ["init=he,lsuv", "init.mode=fan_in,fan_out"],
            "init=lsuv: init.mode: init=lsuv has no such knob; it belongs to he: write init=he; a knob of one option"
            " only is searched apart: leave out init or init.mode",
        ),
        (
            ["init=he"],
            "sweep: nothing is searched over; give a key choices or an interval:"
            " 'optimizer.lr=tag(log,interval(1e-4,1))'",
        ),
    ],
)
def test_a_wrong_space_is_refused_in_one_line(typed: list[str], message: str) -> None:
    assert refusal(*typed) == message


def test_a_linear_interval_over_two_decades_is_doubted() -> None:
    assert resolve(["optimizer.lr=interval(0.01,1)"]).notes == (
        "optimizer.lr: interval(0.01,1) is linear over 2 decades, so that nine of ten trials draw from the last one;"
        " did you mean 'optimizer.lr=tag(log,interval(0.01,1))'?",
    )
    assert resolve(["optimizer.lr=interval(0.02,1)"]).notes == ()


def test_a_secret_is_not_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "hunter2hunter2")
    assert refusal("data=mnist", "data.root=/mnt/hunter2hunter2", "init=he,xavier") == (
        "data.root: looks like a secret, and a sweep stores its config; write '${oc.env:NAME}'"
    )
    space = resolve(["data=mnist", "data.root=${oc.env:MY_TOKEN}", "init=he,xavier"])
    assert space.base["data"]["root"] == "${oc.env:MY_TOKEN}"


def test_the_greatest_number_of_epochs() -> None:
    assert resolve(["init=he,xavier", "epochs=7"]).most("epochs") == 7
    assert resolve(["epochs=int(interval(3,9))"]).most("epochs") == 9
    assert isinstance(resolve(["epochs=5,8"]), Space) and resolve(["epochs=5,8"]).most("epochs") == 8


@pytest.mark.parametrize(
    ("typed", "values"),
    [
        (["optimizer.lr=tag(log,interval(1e-4,1))"], {"optimizer.lr": 0.01}),
        (["epochs=range(5,30,5)", "model.widths=[64],[128,128]"], {"epochs": 15, "model.widths": "[128,128]"}),
        (["init=he,xavier", "regularization=[l2],[l2,label_smoothing]"], {"init": "xavier", "regularization": "[l2]"}),
        (["optimizer=sgd,adam", "optimizer.lr=interval(0.1,1)"], {"optimizer": "adam", "optimizer.lr": 0.2}),
    ],
)
def test_a_config_tells_its_values(typed: list[str], values: dict[str, object]) -> None:
    space = resolve(["+recipe=quickstart", *typed])
    assert space.values(space.plain(values)) == values
    key = space.dimensions[0].key
    assert space.values({**space.plain(values), key.split(".")[0]: {"name": "another", "lr": 7.0}}) is None
