from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor

from dltips.registry import ConfigError
from dltips.tips.augmentation import Batch, augmentation, crop, flip, none

Augment = Callable[[Tensor, Tensor, Generator], Batch]
TIPS: dict[str, Augment] = {
    "none": none,
    "flip": lambda inputs, targets, generator: flip(inputs, targets, generator, p=0.5),
    "crop": lambda inputs, targets, generator: crop(inputs, targets, generator, padding=4),
}


def seeded(seed: int = 0) -> Generator:
    return torch.Generator().manual_seed(seed)


def batch(count: int = 32, channels: int = 3, height: int = 8, width: int = 10) -> Batch:
    generator = seeded(99)
    # above zero, so that padded black can be told from the image
    return (
        torch.rand(count, channels, height, width, generator=generator) * 0.9 + 0.1,
        torch.randint(10, (count,), generator=generator),
    )


def test_there_is_a_case_for_every_augmentation() -> None:
    assert set(TIPS) == set(augmentation.tips)


@pytest.mark.parametrize("name", TIPS)
def test_labels_shape_type_and_range_stay(name: str) -> None:
    inputs, targets = batch()
    kept, labels = inputs.clone(), targets.clone()
    outputs, same = TIPS[name](inputs, targets, seeded())
    assert torch.equal(same, labels)
    assert outputs.shape == inputs.shape
    assert outputs.dtype == inputs.dtype
    assert 0 <= float(outputs.min()) <= float(outputs.max()) <= 1
    assert torch.equal(inputs, kept)  # the resident store is not written to


@pytest.mark.parametrize("name", TIPS)
def test_the_generator_alone_decides(name: str) -> None:
    inputs, targets = batch()
    before = torch.get_rng_state()
    first, again, other = (TIPS[name](inputs, targets, seeded(seed))[0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (name == "none")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", TIPS)
def test_the_memory_format_changes_no_value(name: str) -> None:
    inputs, targets = batch()
    plain, _ = TIPS[name](inputs, targets, seeded())
    channels_last, _ = TIPS[name](inputs.contiguous(memory_format=torch.channels_last), targets, seeded())
    assert torch.equal(plain, channels_last)


def test_flip_never_always_and_sometimes() -> None:
    inputs, targets = batch()
    assert torch.equal(flip(inputs, targets, seeded(), p=0.0)[0], inputs)
    assert torch.equal(flip(inputs, targets, seeded(), p=1.0)[0], inputs.flip(3))
    outputs, _ = flip(inputs, targets, seeded(), p=0.5)
    mirrored = [torch.equal(output, image.flip(2)) for output, image in zip(outputs, inputs, strict=True)]
    as_it_was = [torch.equal(output, image) for output, image in zip(outputs, inputs, strict=True)]
    assert [a != b for a, b in zip(mirrored, as_it_was, strict=True)] == [True] * len(inputs)


def test_flip_mirrors_a_share_p_of_the_samples() -> None:
    inputs, targets = torch.zeros(4000, 1, 1, 2), torch.zeros(4000, dtype=torch.int64)
    inputs[..., 0] = 1
    outputs, _ = flip(inputs, targets, seeded(), p=0.2)
    assert float(outputs[..., 1].mean()) == pytest.approx(0.2, abs=0.02)


def test_64_identical_images_meet_both_sides_of_flip() -> None:
    image, targets = torch.rand(1, 3, 6, 6, generator=seeded()), torch.zeros(64, dtype=torch.int64)
    outputs, _ = flip(image.repeat(64, 1, 1, 1), targets, seeded(), p=0.5)
    assert len(torch.unique(outputs, dim=0)) == 2


def test_64_identical_images_are_cropped_at_many_places() -> None:
    image, targets = torch.rand(1, 1, 9, 9, generator=seeded()), torch.zeros(64, dtype=torch.int64)
    outputs, _ = crop(image.repeat(64, 1, 1, 1), targets, seeded(), padding=4)
    # 81 places; 64 draws meet 44 of them on average
    assert len(torch.unique(outputs, dim=0)) >= 30


@pytest.mark.parametrize("padding", [1, 4, 12])
def test_crop_is_the_slow_crop_of_each_sample(padding: int) -> None:
    inputs, targets = batch(count=200)
    outputs, _ = crop(inputs, targets, seeded(), padding=padding)
    height, width = inputs.shape[2:]
    met = set()
    for image, output in zip(inputs, outputs, strict=True):
        found = None
        for down in range(-padding, padding + 1):
            for right in range(-padding, padding + 1):
                if found is None and torch.equal(shifted(image, down, right), output):
                    found = (down, right)
        assert found is not None
        met.add(found)
    if padding < min(height, width):  # else all that is left may be black
        for shifts in zip(*met, strict=True):
            assert set(shifts) == set(range(-padding, padding + 1))


def shifted(image: Tensor, down: int, right: int) -> Tensor:
    """The image moved by whole pixels, black where it left, one pixel at a time."""
    _, height, width = image.shape
    result = torch.zeros_like(image)
    rows, columns = (
        slice(max(0, down), max(0, height + min(0, down))),
        slice(max(0, right), max(0, width + min(0, right))),
    )
    from_rows, from_columns = (
        slice(max(0, -down), max(0, height - max(0, down))),
        slice(max(0, -right), max(0, width - max(0, right))),
    )
    result[:, rows, columns] = image[:, from_rows, from_columns]
    return result


def test_crop_pads_with_black() -> None:
    outputs, _ = crop(torch.ones(256, 1, 5, 5), torch.zeros(256, dtype=torch.int64), seeded(), padding=2)
    assert set(outputs.unique().tolist()) == {0.0, 1.0}
    # a shift by two both ways leaves 3 x 3 of 5 x 5
    assert outputs.flatten(1).sum(1).min() == 9
    assert outputs.flatten(1).sum(1).max() == 25


@pytest.mark.parametrize("name", ["flip", "crop"])
def test_vectors_are_refused_with_a_remedy(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^augmentation: {name} takes images, but a sample's shape is \(7,\);"):
        TIPS[name](torch.zeros(4, 7), torch.zeros(4, dtype=torch.int64), seeded())
