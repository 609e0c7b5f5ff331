"""The columns of the HParams tab: the same in every run, each with values of one type."""

from dltips.config.composition import compose
from dltips.config.validation import Config, validate
from dltips.runs.hparams import hyperparameters


def config_of(*overrides: str) -> Config:
    return validate(compose(list(overrides))[0])


def test_the_columns_of_a_table_are_the_same_in_every_run() -> None:
    chosen = ("regularization=[l2]", "regularization.l2.strength=0.5", "init=xavier", "init.scale=2")
    first, second = hyperparameters(config_of()), hyperparameters(config_of(*chosen))
    assert first[0] == second[0] and list(first[0]) == list(second[0])
    for columns, values in (first, second):
        assert set(values) <= set(columns)
        assert all(type(values[key]) is type(columns[key]) for key in values)
    assert second[1]["regularization"] == "l2" and second[1]["regularization.l2.strength"] == 0.5
    assert second[1]["init"] == "xavier" and second[1]["init.scale"] == 2.0
    assert "regularization.l2.strength" not in first[1] and first[1]["optimizer.lr"] == 0.1


def test_a_key_that_is_a_number_in_one_option_and_text_in_another_is_text() -> None:
    columns, values = hyperparameters(config_of("init=orthogonal", "init.gain=1.5"))
    assert columns["init.gain"] == "" and values["init.gain"] == "1.5"
    assert hyperparameters(config_of())[1]["init.gain"] == "relu"
