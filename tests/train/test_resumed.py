"""A resumed run: what its checkpoint has settled, if there is one that this version reads."""

from pathlib import Path

import pytest
import torch

from dltips.config.composition import compose
from dltips.config.validation import validate
from dltips.tips.preprocessing import Affine, save
from dltips.train.resumed import Resumed
from dltips.train.snapshot import FORMAT


def resumed(payload: dict[str, object] | None) -> Resumed:
    return Resumed(Path("run"), validate(compose([])[0]), payload, None, None, None, 0)


@pytest.mark.parametrize(
    ("payload", "is_settled"), [(None, False), ({}, False), ({"format": FORMAT - 1}, False), ({"format": FORMAT}, True)]
)
def test_a_checkpoint_of_another_format_settles_nothing(payload: dict[str, object] | None, is_settled: bool) -> None:
    assert resumed(payload).is_settled == is_settled


def test_what_the_checkpoint_holds_is_handed_on() -> None:
    model = {"w": torch.ones(2)}
    run = resumed({"format": FORMAT, "epoch": 3, "input_shape": [1, 8, 8], "model": model})
    assert (run.epoch, run.input_shape, run.model, run.plan) == (3, (1, 8, 8), model, None)


def test_the_preprocessing_is_the_one_that_was_fitted() -> None:
    fitted = Affine(shift=torch.tensor(0.5), scale=torch.tensor(2.0))
    run = resumed({"format": FORMAT, "preprocessing": save(fitted)})
    inputs = torch.rand(3, 4)
    assert torch.equal(run.preprocess(inputs), fitted(inputs))
