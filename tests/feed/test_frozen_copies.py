"""data.expand: copies that differ, drawn once and frozen."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from dltips.errors import ConfigError
from dltips.feed import frozen_copies
from dltips.feed.frozen_copies import expanded
from dltips.feed.splits import Split
from dltips.tips.augmentation import flip


def noisy(inputs: Tensor, targets: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    return inputs + 0.1 * torch.rand(inputs.shape, generator=generator), targets


def generator_for(copy: int, number: int) -> Generator:
    return Generator().manual_seed(100 * copy + number)


def split(count: int = 50, dtype: torch.dtype = torch.uint8) -> Split:
    inputs = torch.randint(0, 256, (count, 3, 6, 6), dtype=torch.uint8, generator=Generator().manual_seed(0))
    return Split(inputs if dtype == torch.uint8 else inputs.float() / 255, torch.arange(count) % 7)


def test_k_copies_of_every_sample_with_its_label() -> None:
    grown = expanded(split(), 3, [partial(flip, p=0.5)], generator_for)
    assert len(grown) == 150 and grown.indices is None
    for copy in range(3):
        part = slice(50 * copy, 50 * copy + 50)
        assert torch.equal(grown.targets[part], split().targets)
        same = (grown.inputs[part] == split().inputs).flatten(1).all(1)
        mirrored = (grown.inputs[part] == split().inputs.flip(3)).flatten(1).all(1)
        assert bool((same | mirrored).all())  # copies of this sample and of no other, to the bit
        assert 10 < int(mirrored.sum()) < 40


def test_the_copies_differ() -> None:
    grown = expanded(split(), 4, [noisy], generator_for)
    copies = grown.inputs.reshape(4, 50, -1)
    for one in range(4):
        assert not bool((copies[one] == split().inputs.flatten(1)).all(1).any())
        for other in range(one):
            assert not bool((copies[one] == copies[other]).all(1).any())


def test_they_are_drawn_once_from_their_generators_alone() -> None:
    first = expanded(split(), 2, [noisy, partial(flip, p=0.5)], generator_for).inputs
    torch.manual_seed(5)
    assert torch.equal(expanded(split(), 2, [noisy, partial(flip, p=0.5)], generator_for).inputs, first)


def test_more_copies_keep_the_first_ones() -> None:
    two, five = (expanded(split(), copies, [noisy], generator_for).inputs for copies in (2, 5))
    assert torch.equal(five[:100], two)


def test_images_stay_uint8_and_are_rounded_and_clamped() -> None:
    def bright(inputs: Tensor, targets: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        assert inputs.dtype == torch.float32 and float(inputs.max()) <= 1
        return 3 * inputs - 1, targets

    grown = expanded(split(), 1, [bright], generator_for).inputs
    assert grown.dtype == torch.uint8
    assert torch.equal(grown, (3 * split().inputs.double() - 255).clamp(0, 255).round().to(torch.uint8))


def test_floats_stay_floats_and_are_not_clamped() -> None:
    def large(inputs: Tensor, targets: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        return inputs + 10, targets

    whole = split(dtype=torch.float32)
    assert torch.equal(expanded(whole, 1, [large], generator_for).inputs, whole.inputs + 10)


def test_the_source_is_not_written_to() -> None:
    whole = split()
    before = whole.inputs.clone()
    expanded(whole, 2, [noisy], generator_for)
    assert torch.equal(whole.inputs, before)


def test_chunks_carry_the_streams_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frozen_copies, "AUGMENT_CHUNK", 16)
    grown = expanded(split(), 2, [noisy], generator_for)
    assert len(grown) == 100
    # 50 identical samples all get another draw, across the chunks too
    alike = Split(torch.full((50, 1, 4, 4), 100, dtype=torch.uint8), torch.zeros(50, dtype=torch.int64))
    assert len(expanded(alike, 2, [noisy], generator_for).inputs.flatten(1).unique(dim=0)) == 100


def test_samples_of_a_larger_array_are_the_chosen_ones() -> None:
    whole = split()
    chosen = torch.tensor([40, 3, 17])
    part = Split(whole.inputs, whole.targets, chosen)
    grown = expanded(part.taken(), 2, [partial(flip, p=0.0)], generator_for)
    assert torch.equal(grown.inputs, whole.inputs[chosen].repeat(2, 1, 1, 1))


def test_without_an_augmentation_there_is_nothing_to_draw() -> None:
    with pytest.raises(ConfigError, match=r"^data\.expand: .*write 'augment"):
        expanded(split(), 2, [], generator_for)


def test_an_epoch_is_k_times_as_long(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from dltips.config.composition import compose
    from dltips.config.validation import validate
    from dltips.train.build import build_run

    monkeypatch.chdir(tmp_path)
    overrides = ["data.subset=100", "batch_size=20", "augmentation=flip", "model.widths=[8]"]
    plain, grown = (build_run(validate(compose([*overrides, f"data.expand={copies}"])[0])) for copies in (0, 3))
    assert plain.training.steps_per_epoch == 5 and plain.training.inputs.augmentation_names == ["flip"]
    assert grown.training.steps_per_epoch == 15 and list(grown.training.inputs.augmentation_names) == []
    order = grown.training.inputs.order(0)
    assert sorted(order.tolist()) == list(range(300))
    assert len(grown.splits.train) == 100 and len(grown.splits.val) == len(plain.splits.val)
