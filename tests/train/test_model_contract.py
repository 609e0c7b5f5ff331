"""Models that keep their own weights and activations, and those that are fitted."""

import re
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from dltips.config.composition import compose
from dltips.config.validation import Config, validate
from dltips.errors import ConfigError
from dltips.feed.batches import to_float
from dltips.feed.splits import Split
from dltips.tips.preprocessing import Affine
from dltips.train import model_contract
from dltips.train.build import build_run


class Keeper(nn.Module):
    keeps = ("init", "activation")
    remedy = "; it has its own"


class Fitted(nn.Module):
    """Remembers what it was given."""

    def fit(self, inputs: Tensor, targets: Tensor) -> None:
        self.given = inputs, targets


def config_of(*overrides: str) -> Config:
    return validate(compose(list(overrides))[0])


def test_a_plain_net_keeps_nothing_and_has_nothing_to_say() -> None:
    assert model_contract.kept_families(nn.Linear(2, 2)) == ()
    assert model_contract.notes(nn.Linear(2, 2), config_of("init=xavier", "activation=tanh")) == []


def test_what_a_model_does_not_take_is_said_once() -> None:
    (note,) = model_contract.notes(Keeper(), config_of("model=svm"))
    assert re.match(r"model=svm .*init .*activation; it has its own$", note)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("init=xavier",), r"^init: xavier .*model=mlp; it has its own$"),
        (("activation=tanh",), r"^activation: tanh .*model=mlp; it has its own$"),
        (("init.scale=2",), r"^init\.scale: 2\.0 .*model=mlp; it has its own$"),
    ],
)
def test_what_a_model_does_not_take_and_was_chosen_is_refused(overrides: Sequence[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        model_contract.notes(Keeper(), config_of(*overrides))


def split(count: int) -> Split:
    images = torch.randint(0, 256, (count, 1, 4, 4), dtype=torch.uint8)
    return Split(images, torch.randint(0, 3, (count,)), torch.arange(count))


def test_a_model_is_fitted_to_all_preprocessed_samples() -> None:
    part, model = split(model_contract.PREPROCESS_CHUNK + 7), Fitted()
    preprocess = Affine(shift=torch.tensor(0.5), scale=torch.tensor(2.0))
    model_contract.fit(model, config_of("model=svm"), preprocess, part)
    inputs, targets = model.given
    assert torch.equal(inputs, preprocess(to_float(part.inputs)))
    assert torch.equal(targets, part.targets)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "augmentation=crop",
            r"^augmentation: model=svm .*data\.expand=4, .*augmentation=none$",
        ),
        (
            "data.balance=loss",
            r"^data\.balance: model=svm .*loss; write data\.balance=none$",
        ),
    ],
)
def test_what_a_fit_would_not_see_is_refused(override: str, message: str) -> None:
    quick = ("model=svm", "data.subset=100", "device=cpu")
    with pytest.raises(ConfigError, match=message):
        build_run(config_of(*quick, override))


def test_frozen_copies_are_fitted_as_samples() -> None:
    sizes = []
    for override in ("augmentation=none", "data.expand=3"):
        augmentation = () if override == "augmentation=none" else ("augmentation=crop",)
        run = build_run(config_of("model=svm", "data.subset=100", "device=cpu", override, *augmentation))
        sizes.append(len(run.training.net.module.get_buffer("vectors")))
    assert sizes[1] > sizes[0]
