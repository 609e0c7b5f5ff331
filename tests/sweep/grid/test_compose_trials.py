"""A grid's trials: the same configs as Hydra composes one by one, all of them before the first starts."""

from pathlib import Path

import hydra
import pytest

from dltips.config.composition import compose
from dltips.config.overrides import parse
from dltips.config.plain import to_plain
from dltips.errors import ConfigError
from dltips.sweep.grid.compose_trials import freeze, jobs


def varied(*overrides: str, zipped=()):
    return [dict(cell.varied) for cell in freeze(list(overrides), zipped).cells]


def test_every_trial_is_what_hydra_composes_for_it_alone() -> None:
    grid = (
        ["+recipe=quickstart", "init=he,xavier"],
        ["optimizer.lr=0.1,1e-3", "model.widths=[8],[4,4]", "name=null,'a, b'", "optimizer.rates={head:10},{}"],
    )
    frozen = freeze([*grid[0], *grid[1]])
    assert len(frozen.cells) == 32
    for job, cell in zip(jobs(parse([*grid[0], *grid[1]])), frozen.cells, strict=True):
        assert cell.plain == to_plain(compose(job)[0])


def test_the_product_counts_up_from_the_last_list() -> None:
    assert varied("init=he,xavier", "seed=range(2)") == [
        {"init": "he", "seed": 0},
        {"init": "he", "seed": 1},
        {"init": "xavier", "seed": 0},
        {"init": "xavier", "seed": 1},
    ]


def test_a_glob_lists_the_options_of_a_family() -> None:
    assert varied("init=glob(x*)") == [{"init": "xavier"}, {"init": "xavier_fc_gaussian_conv"}]
    with pytest.raises(ConfigError, match=r"^epochs: glob is for the options of a family; write the values"):
        freeze(["epochs=glob(*)"])
    with pytest.raises(ConfigError, match=r"^init=glob\(q\*\): holds no value"):
        freeze(["init=glob(q*)"])


def test_hydra_composes_once_for_each_set_of_options(monkeypatch: pytest.MonkeyPatch) -> None:
    """A composition takes a tenth of a second: 240 trials of three inits may not cost half a minute."""
    calls: list[list[str]] = []

    def counted(name: str, overrides: list[str], **options: object) -> object:
        calls.append(overrides)
        return compose_by_hydra(name, overrides, **options)

    compose_by_hydra = hydra.compose
    monkeypatch.setattr(hydra, "compose", counted)
    frozen = freeze(["init=he,xavier,zeros", "seed=range(40)", "optimizer.lr=0.1,0.2"])
    assert len(frozen.cells) == 240 and len(calls) == 3
    assert frozen.cells[-1].plain["seed"] == 39 and frozen.cells[-1].plain["optimizer"]["lr"] == 0.2


def test_knobs_of_an_option_that_is_swept_are_checked_against_each() -> None:
    cells = freeze(["optimizer=adam,adamw", "optimizer.betas=[0.8,0.9]"]).cells
    assert [cell.plain["optimizer"]["betas"] for cell in cells] == [[0.8, 0.9]] * 2
    with pytest.raises(ConfigError, match=r"^optimizer.betas: optimizer=sgd has no such knob"):
        freeze(["optimizer=adam,sgd", "optimizer.betas=[0.8,0.9]"])


def test_zipped_lists_go_in_step() -> None:
    found = varied("init=he,xavier", "seed=3,4", "activation=relu,tanh", zipped=[["init", "activation"]])
    assert found == [
        {"init": init, "activation": activation, "seed": seed}
        for init, activation in (("he", "relu"), ("xavier", "tanh"))
        for seed in (3, 4)
    ]


@pytest.mark.parametrize(
    ("zipped", "message"),
    [
        (["init", "epochs"], "--zip: lists that go in step are equally long, but init has 2, epochs has 3 values"),
        (
            ["init=he,zeros"],
            "--zip: 'init=he,zeros' is not a key; write --zip=init,activation, and their lists after it",
        ),
        (["init", "sed"], "--zip: sed has no list of values here; did you mean seed?"),
        (["init", "batch_size"], "--zip: batch_size has no list of values here; there is: epochs, init, seed"),
    ],
)
def test_what_cannot_go_in_step(zipped: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        freeze(["init=he,xavier", "seed=3,4", "epochs=1,2,3", "batch_size=8"], [zipped])
    assert str(refused.value) == message


def test_a_key_in_two_groups_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^--zip: init goes in step with one group only; name it once$"):
        freeze(["init=he,xavier", "seed=3,4", "epochs=1,2"], [["init", "seed"], ["init", "epochs"]])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.lr=0.1,fast", "optimizer.lr: 'fast' is not a number"),
        ("init=he,hee", "init: 'hee' is not an option; did you mean he?"),
        ("optimizer.lr=interval(0,1)", "optimizer.lr=interval(0,1): an interval has no list of values"),
        ("seed=range(3,3)", "seed=range(3,3): holds no value"),
        ("regularization.dropout.p=0.1,0.2", "regularization.dropout.p: dropout is not switched on"),
        ("resume=last", "resume: is for one run; a grid goes on by itself when the same command is given again"),
        ("hydra/sweeper=basic", "hydra/sweeper=basic: grids are laid out by dltips itself"),
    ],
)
def test_a_wrong_trial_is_refused_before_the_first(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        freeze(["seed=1,2" if "seed" not in override else "epochs=1,2", override])
    assert str(refused.value).startswith(message)


def test_what_is_edited_afterwards_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = tmp_path / "recipes" / "mine.yaml"
    recipe.parent.mkdir()
    recipe.write_text("epochs: 3\n")
    frozen = freeze(["+recipe=mine", "seed=1,2"])
    recipe.write_text("epochs: 9\n")
    assert [cell.plain["epochs"] for cell in frozen.cells] == [3, 3]
