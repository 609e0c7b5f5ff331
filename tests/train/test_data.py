"""What is fitted on the training split serves the others too."""

from dataclasses import replace

import pytest
import torch

from dltips.catalog.registry import Tip
from dltips.tips.data import Source
from dltips.tips.preprocessing import none, standardize
from dltips.train.data import fit_preprocessing, lacks_values

VECTORS = torch.tensor([[1.0, 2.0], [3.0, 6.0]])
HOLE = torch.tensor([[5.0, torch.nan]])
SOURCE = Source(VECTORS, torch.tensor([0, 1]), ("a", "b"), "x")


def test_one_missing_number_anywhere_is_enough() -> None:
    assert not lacks_values(SOURCE)
    assert not lacks_values(replace(SOURCE, inputs=torch.zeros(2, 1, 4, 4, dtype=torch.uint8)))
    assert lacks_values(replace(SOURCE, inputs=HOLE))
    assert lacks_values(replace(SOURCE, val_inputs=HOLE))
    assert lacks_values(replace(SOURCE, test_inputs=HOLE))


@pytest.mark.parametrize("name", ["none", "standardize"])
def test_what_is_missing_only_in_validation_becomes_the_training_mean(name: str) -> None:
    tip = Tip("preprocessing", name, *{"none": (none, {}), "standardize": (standardize, {"epsilon": 1e-5})}[name])
    preprocess = fit_preprocessing(tip, VECTORS, missing=True)
    expected = fit_preprocessing(tip, VECTORS, missing=False)(torch.tensor([[5.0, 4.0]]))
    assert torch.equal(preprocess(HOLE), expected)


def test_the_means_are_of_what_is_there() -> None:
    tip = Tip("preprocessing", "none", none, {})
    inputs = torch.tensor([[1.0, torch.nan, torch.nan], [3.0, 8.0, torch.nan]])
    filled = fit_preprocessing(tip, inputs, missing=True)(torch.full((1, 3), torch.nan))
    assert filled.tolist() == [[2.0, 8.0, 0.0]]  # nothing is known of the last
