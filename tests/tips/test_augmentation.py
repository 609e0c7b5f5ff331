from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor

from dltips.errors import ConfigError
from dltips.tips.augmentation import (
    Batch,
    Cutmix,
    FancyPca,
    Mixup,
    Samples,
    Whiten,
    augmentation,
    blur,
    color_jitter,
    contrast,
    crop,
    drop_pixels,
    erase,
    flip,
    noise,
    none,
    rotate,
)

Augment = Callable[[Tensor, Tensor, Generator], Batch]
CLASSES = 10


def seeded(seed: int = 0) -> Generator:
    return torch.Generator().manual_seed(seed)


def batch(count: int = 32, channels: int = 3, height: int = 8, width: int = 10) -> Batch:
    generator = seeded(99)
    return (
        torch.rand(count, channels, height, width, generator=generator) * 0.9 + 0.1,
        torch.randint(CLASSES, (count,), generator=generator),
    )


def samples(channels: int) -> Samples:
    """A training split of images whose channels and neighbours are alike."""
    pixels = torch.rand(100, 1, 4, 5, generator=seeded()) + 0.5 * torch.rand(100, channels, 4, 5, generator=seeded(1))
    images = pixels.mul(170).byte().repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    return Samples(images, torch.zeros(100, dtype=torch.int64), CLASSES)


def with_knobs(function: Callable[..., Batch], **knobs: object) -> Callable[[int], Augment]:
    return lambda channels: lambda inputs, targets, generator: function(inputs, targets, generator, **knobs)


# name -> the augmentation for images of so many channels
TIPS: dict[str, Callable[[int], Augment]] = {
    "none": with_knobs(none),
    "flip": with_knobs(flip, p=0.5),
    "crop": with_knobs(crop, padding=4),
    "rotate": with_knobs(rotate, degrees=15.0),
    "color_jitter": with_knobs(color_jitter, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1),
    "contrast": with_knobs(contrast, strength=0.4),
    "noise": with_knobs(noise, std=0.05),
    "blur": with_knobs(blur, kernel_size=5, sigma=(0.3, 1.5)),
    "drop_pixels": with_knobs(drop_pixels, p=0.1),
    "erase": with_knobs(erase, p=0.5, scale=(0.02, 0.33), ratio=(0.3, 3.3)),
    "fancy_pca": lambda channels: FancyPca(samples(channels), std=0.1),
    "whiten": lambda channels: Whiten(samples(channels), strength=0.5, kernel_size=5, epsilon=0.01),
    "mixup": lambda channels: Mixup(samples(channels), alpha=1.0),
    "cutmix": lambda channels: Cutmix(samples(channels), p=0.5, alpha=1.0),
}
# how many of 64 identical images differ afterwards, at least; the others draw from ever so many possibilities
DIFFERENT = {"none": 1, "flip": 2, "crop": 30, "erase": 20}
MIXING = ("mixup", "cutmix")
LABELS_STAY = [name for name in TIPS if name not in MIXING]


def test_there_is_a_case_for_every_augmentation_of_images() -> None:
    own = {name for name, tip in augmentation.tips.items() if tip.__module__.startswith("dltips.tips.augmentation.")}
    of_sounds = {name for name in own if augmentation.tips[name].__module__.endswith(".audio")}
    assert set(TIPS) == own - of_sounds


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", TIPS)
def test_shape_type_and_range_stay(name: str, channels: int) -> None:
    inputs, targets = batch(channels=channels)
    kept, labels = inputs.clone(), targets.clone()
    outputs, _ = TIPS[name](channels)(inputs, targets, seeded())
    assert outputs.shape == inputs.shape
    assert outputs.dtype == inputs.dtype
    assert 0 <= float(outputs.min()) <= float(outputs.max()) <= 1
    assert torch.equal(inputs, kept)  # the resident store is not written to
    assert torch.equal(targets, labels)


@pytest.mark.parametrize("name", LABELS_STAY)
def test_labels_stay(name: str) -> None:
    inputs, targets = batch()
    _, same = TIPS[name](3)(inputs, targets, seeded())
    assert torch.equal(same, targets)
    assert not getattr(augmentation.tips[name], "after_preprocessing", False)


@pytest.mark.parametrize("name", MIXING)
def test_what_mixes_comes_after_the_preprocessing(name: str) -> None:
    assert augmentation.tips[name].after_preprocessing is True


@pytest.mark.parametrize("name", TIPS)
def test_the_generator_alone_decides(name: str) -> None:
    inputs, targets = batch()
    before = torch.get_rng_state()
    first, again, other = (TIPS[name](3)(inputs, targets, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert torch.equal(first[0], other[0]) == (name == "none")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", TIPS)
def test_the_memory_format_changes_no_value(name: str) -> None:
    inputs, targets = batch()
    plain, _ = TIPS[name](3)(inputs, targets, seeded())
    channels_last, _ = TIPS[name](3)(inputs.contiguous(memory_format=torch.channels_last), targets, seeded())
    assert torch.equal(plain, channels_last)


@pytest.mark.parametrize("name", LABELS_STAY)
def test_of_64_identical_images_each_draws_its_own(name: str) -> None:
    inputs, targets = batch(count=1, height=12, width=12)
    outputs, _ = TIPS[name](3)(inputs.repeat(64, 1, 1, 1), targets.repeat(64), seeded())
    different = len(torch.unique(outputs, dim=0))
    assert different >= DIFFERENT.get(name, 64)
    assert name not in ("none", "flip") or different == DIFFERENT[name]


@pytest.mark.parametrize("name", MIXING)
def test_each_of_64_samples_is_mixed_by_a_share_of_its_own(name: str) -> None:
    inputs, _ = batch(count=64, height=24, width=24)
    _, shares = TIPS[name](3)(inputs, torch.arange(64) % CLASSES, seeded())
    assert len(shares.amax(1).unique()) >= 20


@pytest.mark.parametrize("name", [name for name in TIPS if name not in ("none", "mixup", "fancy_pca", "whiten")])
def test_vectors_are_refused_with_a_remedy(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^augmentation: {name} takes images, but a sample's shape is \(7,\);"):
        TIPS[name](3)(torch.zeros(4, 7), torch.zeros(4, dtype=torch.int64), seeded())


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("fancy_pca", lambda vectors: FancyPca(vectors, std=0.1)),
        ("whiten", lambda vectors: Whiten(vectors, strength=0.5, kernel_size=5, epsilon=0.01)),
    ],
)
def test_what_learns_refuses_vectors_before_the_first_step(name: str, make: Callable[[Samples], Augment]) -> None:
    with pytest.raises(ConfigError, match=rf"^augmentation: {name} takes images, but a sample's shape is \(7,\);"):
        make(Samples(torch.zeros(4, 7), torch.zeros(4, dtype=torch.int64), CLASSES))
