import itertools
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from dltips.feed.batches import Batch, Batches, Feed, Resident, Streaming, batch_sizes, to_float
from dltips.feed.splits import Split
from dltips.tips.augmentation import crop, flip
from dltips.tips.preprocessing import none, standardize

CPU = torch.device("cpu")


def images(count: int = 103, channels: int = 3) -> Split:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randint(0, 256, (count, channels, 6, 7), dtype=torch.uint8, generator=generator)
    return Split(inputs, torch.arange(count))


def vectors(count: int = 103) -> Split:
    return Split(torch.randn(count, 9, generator=torch.Generator().manual_seed(0)), torch.arange(count))


def chosen(part: Split) -> Split:
    """The same as every other sample of something larger, in reverse order."""
    positions = torch.arange(2 * len(part) - 1, 0, -2)
    inputs = torch.zeros((2 * len(part), *part.inputs.shape[1:]), dtype=part.inputs.dtype)
    targets = torch.zeros(2 * len(part), dtype=torch.int64)
    inputs[positions], targets[positions] = part.inputs, part.targets
    return Split(inputs, targets, positions)


def shuffled(count: int = 103) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(1))


def generators() -> list[Generator]:
    return [torch.Generator().manual_seed(seed) for seed in (3, 4)]


AUGMENT = (partial(flip, p=0.5), partial(crop, padding=2))
DATA = {
    "gray images": images(channels=1),
    "images": images(),
    "vectors": vectors(),
    "chosen images": chosen(images()),
    "chosen vectors": chosen(vectors()),
}


def same(one: Sequence[Batch], two: Sequence[Batch]) -> None:
    """Bit for bit, in values and in memory."""
    assert len(one) == len(two)
    for (inputs, targets), (others, labels) in zip(one, two, strict=True):
        assert torch.equal(targets, labels)
        assert inputs.dtype == others.dtype
        assert torch.equal(inputs, others)
        assert inputs.stride() == others.stride()


@pytest.mark.parametrize(
    ("count", "batch_size", "sizes"),
    [
        (10, 5, [5, 5]),
        (12, 5, [5, 5, 2]),
        (11, 5, [5, 6]),
        (6, 5, [6]),
        (5, 5, [5]),
        (3, 5, [3]),
        (1, 5, [1]),
        (3, 2, [3]),
        (3, 1, [1, 1, 1]),
        (0, 5, []),
    ],
)
def test_batch_sizes(count: int, batch_size: int, sizes: list[int]) -> None:
    assert batch_sizes(count, batch_size) == sizes


def test_batch_sizes_add_up_and_never_leave_one_sample_alone() -> None:
    for count, batch_size in itertools.product(range(2, 70), range(2, 20)):
        sizes = batch_sizes(count, batch_size)
        assert sum(sizes) == count
        assert min(sizes) > 1
        assert max(sizes) <= batch_size + 1
        assert set(sizes[:-1]) <= {batch_size}


@pytest.mark.parametrize("batch_size", [2, 17, 34, 200])
@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("store", [Resident, Streaming])
def test_a_store_gives_the_samples_in_the_given_order(store: type[Any], name: str, batch_size: int) -> None:
    part, order = DATA[name], shuffled()
    found = list(store(part, CPU)(order, batch_size))
    assert [len(targets) for _, targets in found] == batch_sizes(len(order), batch_size)
    taken = part.taken()
    assert torch.equal(torch.cat([targets for _, targets in found]), taken.targets[order])
    assert torch.equal(torch.cat([inputs for inputs, _ in found]), taken.inputs[order])
    assert found[0][0].dtype == part.inputs.dtype


def test_gray_levels_become_the_nearest_floats_in_0_to_1() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_float(levels), (levels.double() / 255).float())
    floats = vectors().inputs
    assert to_float(floats) is floats


@pytest.mark.parametrize("batch_size", [5, 34])
@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("prepare", [none, partial(standardize, epsilon=1e-5)])
def test_resident_prepared_and_streaming_give_the_same_bits(prepare: Any, name: str, batch_size: int) -> None:
    part = DATA[name]
    preprocess = prepare(part.taken().inputs)
    prepared = Feed(Resident(part, CPU), len(part), preprocess)
    assert prepared.prepared is not None
    streamed = Feed(Streaming(part, CPU), len(part), preprocess)
    assert streamed.prepared is None
    resident = Feed(Resident(part, CPU), len(part), preprocess, [lambda inputs, targets, generator: (inputs, targets)])
    assert resident.prepared is None
    order = shuffled()
    first = list(prepared(order, batch_size))
    same(first, list(streamed(order, batch_size)))
    same(first, list(resident(order, batch_size, generators()[:1])))
    same(first, list(prepared(order, batch_size)))  # and again in the next epoch


@pytest.mark.parametrize("name", ["gray images", "images", "chosen images"])
def test_augmented_batches_do_not_depend_on_the_store(name: str) -> None:
    part = DATA[name]
    preprocess = standardize(part.taken().inputs, epsilon=1e-5)
    stores: list[Batches] = [Resident(part, CPU), Streaming(part, CPU)]
    one, two = (list(Feed(store, len(part), preprocess, AUGMENT)(shuffled(), 10, generators())) for store in stores)
    same(one, two)


def test_more_than_fits_one_chunk_is_prepared_as_well() -> None:
    part = images(count=2100, channels=1)
    preprocess = standardize(part.inputs, epsilon=1e-5)
    order = shuffled(2100)
    same(
        list(Feed(Resident(part, CPU), 2100, preprocess)(order, 256)),
        list(Feed(Streaming(part, CPU), 2100, preprocess)(order, 256)),
    )


def test_images_come_in_channels_last_and_vectors_as_they_are() -> None:
    for part in (images(), vectors()):
        for store, augment in ((Resident, ()), (Streaming, ()), (Resident, AUGMENT), (Streaming, AUGMENT)):
            if part.inputs.dim() == 4:
                feed = Feed(store(part, CPU), len(part), none(part.inputs), augment)
                for inputs, _ in feed(shuffled(), 10, generators() if augment else ()):
                    assert inputs.is_contiguous(memory_format=torch.channels_last)
                    assert inputs.shape[1:] == (3, 6, 7)
            elif not augment:
                feed = Feed(store(part, CPU), len(part), none(part.inputs))
                assert all(inputs.is_contiguous() for inputs, _ in feed(shuffled(), 10))


def test_the_order_of_things_is_float_then_augmentation_then_clamp_then_preprocessing() -> None:
    part = images()
    seen: list[tuple[float, float]] = []

    def brighten(inputs: Tensor, targets: Tensor, generator: Generator) -> Batch:
        seen.append((float(inputs.min()), float(inputs.max())))
        return inputs + 0.5, targets + 1000

    feed = Feed(Streaming(part, CPU), len(part), none(part.inputs), [brighten])
    (inputs, targets), *_ = feed(torch.arange(103), 103, generators()[:1])
    assert seen == [(0.0, 1.0)]
    torch.testing.assert_close(inputs, (to_float(part.inputs) + 0.5).clamp(max=1) * 255)
    assert torch.equal(targets, part.targets + 1000)


def test_a_batch_can_be_changed_without_harm_to_the_store() -> None:
    part = vectors()
    for store in (Resident(part, CPU), Streaming(part, CPU)):
        feed = Feed(store, len(part), none(part.inputs))
        before = [inputs.clone() for inputs, _ in feed(shuffled(), 10)]
        for inputs, targets in feed(shuffled(), 10):
            inputs.zero_()
            targets.zero_()
        after = [inputs for inputs, _ in feed(shuffled(), 10)]
        assert all(map(torch.equal, before, after))


@pytest.mark.parametrize("store", [Resident, Streaming])
def test_reading_batches_leaves_the_global_stream_of_randomness_alone(store: type[Any]) -> None:
    # dropout draws from it: where the data lie must not change the masks
    part = images()
    feed = Feed(store(part, CPU), len(part), none(part.inputs), AUGMENT)
    before = torch.get_rng_state()
    assert len(list(feed(shuffled(), 10, generators()))) == 11
    assert torch.equal(torch.get_rng_state(), before)


def test_one_generator_for_each_augmentation() -> None:
    part = images()
    feed = Feed(Streaming(part, CPU), len(part), none(part.inputs), AUGMENT)
    with pytest.raises(ValueError, match="zip"):
        list(feed(shuffled(), 10, generators()[:1]))
