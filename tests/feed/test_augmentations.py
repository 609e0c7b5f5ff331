"""The augmentations of a run: built from the training split, in order, the mixing ones last."""

from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from dltips.catalog.registry import Tip
from dltips.errors import ConfigError
from dltips.feed.augmentations import Augmentations
from dltips.feed.splits import Split
from dltips.tips.augmentation import Samples

SPLIT = Split(torch.arange(48, dtype=torch.uint8).reshape(12, 1, 2, 2), torch.arange(12) % 3)
SAMPLES = Samples(SPLIT.inputs, SPLIT.targets, 3)


def brighten(inputs: Tensor, targets: Tensor, generator: Generator, *, by: float) -> tuple[Tensor, Tensor]:
    return inputs + by, targets


class Learned:
    """Remembers what it was made from."""

    def __init__(self, samples: Samples, *, scale: float) -> None:
        self.mean = scale * float(samples.inputs.float().mean())

    def __call__(self, inputs: Tensor, targets: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        return inputs + self.mean, targets


class Mixing:
    after_preprocessing = True

    def __init__(self, samples: Samples) -> None:
        self.classes = samples.classes

    def __call__(self, inputs: Tensor, targets: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        return inputs.flip(0), torch.nn.functional.one_hot(targets, self.classes).float()


def tip(name: str, function: Any, **knobs: Any) -> Tip:
    return Tip("augmentation", name, function, knobs)


BRIGHTEN, LEARNED, MIXING = tip("brighten", brighten, by=1.0), tip("learned", Learned, scale=2.0), tip("mixing", Mixing)
NONE = tip("none", lambda inputs, targets, generator: (inputs, targets))


def test_functions_and_classes_stand_in_the_order_given_and_none_is_left_out() -> None:
    built = Augmentations.build([LEARNED, NONE, BRIGHTEN], SAMPLES)
    assert built.names == ["learned", "brighten"] and len(built.before) == 2 and not built.after
    inputs, targets = built.before[0](torch.zeros(2, 1), torch.zeros(2), Generator())
    assert inputs.unique().tolist() == [2 * 23.5]
    inputs, _ = built.before[1](inputs, targets, Generator())
    assert inputs.unique().tolist() == [48]


def test_what_comes_after_preprocessing_is_named_last() -> None:
    built = Augmentations.build([MIXING, BRIGHTEN], SAMPLES)
    assert built.names == ["brighten", "mixing"]
    assert (len(built.before), len(built.after)) == (1, 1)


def test_each_is_tried_on_a_few_samples_as_floats() -> None:
    seen = []

    def watch(inputs: Tensor, targets: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        seen.append((tuple(inputs.shape), inputs.dtype, float(inputs.max()) <= 1))
        return inputs, targets

    Augmentations.build([tip("watch", watch)], SAMPLES).check_applicable(SPLIT)
    assert seen == [((3, 1, 2, 2), torch.float32, True)]


def test_what_cannot_augment_these_data_says_so_before_training() -> None:
    def refuse(inputs: Tensor, targets: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        raise ConfigError("augmentation: no")

    with pytest.raises(ConfigError, match=r"^augmentation: no$"):
        Augmentations.build([BRIGHTEN, tip("refuse", refuse)], SAMPLES).check_applicable(SPLIT)


def test_trying_changes_neither_the_samples_nor_the_global_stream() -> None:
    before, state = SPLIT.inputs.clone(), torch.get_rng_state()
    Augmentations.build([BRIGHTEN, MIXING], SAMPLES).check_applicable(SPLIT)
    assert torch.equal(SPLIT.inputs, before) and torch.equal(torch.get_rng_state(), state)


def test_frozen_copies_take_the_augmentations_along_each_with_streams_of_its_name() -> None:
    asked = []

    def generator_for(name: str, copy: int) -> Generator:
        asked.append((name, copy))
        return Generator().manual_seed(copy)

    grown, rest = Augmentations.build([LEARNED, BRIGHTEN], SAMPLES).frozen(SPLIT, 2, generator_for)
    assert asked == [("learned", 0), ("brighten", 0), ("learned", 1), ("brighten", 1)]
    assert len(grown) == 24
    assert (list(rest.names), list(rest.before), list(rest.after)) == ([], [], [])


def test_what_mixes_a_batch_cannot_be_frozen() -> None:
    with pytest.raises(ConfigError, match=r"^data\.expand: mixing mixes .*leave it out$"):
        Augmentations.build([MIXING, BRIGHTEN], SAMPLES).frozen(SPLIT, 2, lambda name, copy: Generator())
