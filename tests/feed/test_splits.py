import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch

from dltips.feed.splits import Split, Splits, split
from dltips.registry import ConfigError
from dltips.tips.data import Common, Source


def common(**knobs: Any) -> Common:
    usual = {
        "split_seed": 0,
        "val_fraction": 0.1,
        "test_fraction": 0.2,
        "shuffle": True,
        "subset": None,
        "image_size": None,
        "label_noise": 0.0,
        "balance": "none",
        "expand": 0,
        "placement": "auto",
    }
    return Common(**{**usual, **knobs})


def source(count: int = 100, official: int = 0, content: str = "x") -> Source:
    """Each sample is its own number; those of the official test set are negative."""
    numbers, tests = torch.arange(count), -1 - torch.arange(official)
    return Source(
        numbers[:, None].float(),
        numbers,
        ("a", "b"),
        content,
        test_inputs=tests[:, None].float() if official else None,
        test_targets=tests if official else None,
    )


def numbers(part: Split) -> list[int]:
    taken = part.taken()
    assert taken.targets.tolist() == taken.inputs.flatten().tolist()
    assert len(part) == len(taken) == len(taken.targets)
    return taken.targets.tolist()


def parts(splits: Splits) -> tuple[list[int], list[int], list[int]]:
    return numbers(splits.train), numbers(splits.val), numbers(splits.test)


@pytest.mark.parametrize(("count", "sizes"), [(100, (70, 10, 20)), (1797, (1258, 180, 359)), (7, (5, 1, 1))])
def test_the_parts_are_disjoint_and_cover_everything(count: int, sizes: tuple[int, int, int]) -> None:
    found = parts(split(source(count), common()))
    assert tuple(map(len, found)) == sizes
    assert sorted(itertools.chain(*found)) == list(range(count))


def test_an_official_test_set_stays_untouched() -> None:
    whole = source(100, official=30)
    train, val, test = parts(split(whole, common()))
    assert test == (-1 - torch.arange(30)).tolist()
    assert (len(train), len(val)) == (90, 10)  # test_fraction takes nothing away
    assert sorted(train + val) == list(range(100))
    for knobs in ({"split_seed": 5}, {"test_fraction": 0.9}, {"subset": 3}):
        assert numbers(split(whole, common(**knobs)).test) == test


def test_split_seed_alone_decides() -> None:
    first = parts(split(source(), common()))
    torch.manual_seed(123)
    assert parts(split(source(content="y"), common(shuffle=False, placement="stream"))) == first
    other = parts(split(source(), common(split_seed=1)))
    assert all(one != two for one, two in zip(first, other, strict=True))


def test_the_parts_are_drawn_at_random() -> None:
    _, val, test = parts(split(source(1000), common()))
    for part in (val, test):
        assert part != sorted(part)
        assert 400 < sum(part) / len(part) < 600


def test_a_subset_is_the_start_of_the_training_split_and_nothing_else_moves() -> None:
    whole, small = split(source(), common()), split(source(), common(subset=12))
    assert numbers(small.train) == numbers(whole.train)[:12]
    assert (numbers(small.val), numbers(small.test)) == (numbers(whole.val), numbers(whole.test))
    assert numbers(split(source(), common(subset=70)).train) == numbers(whole.train)


def test_the_hash_tells_splits_apart() -> None:
    same = [split(source(), common()), split(source(), common(shuffle=False)), split(source(), common(subset=70))]
    assert len({each.hash for each in same}) == 1
    others = [
        split(source(), common(split_seed=1)),
        split(source(), common(subset=12)),
        split(source(), common(val_fraction=0.2)),
        split(source(content="y"), common()),
        split(source(official=20), common()),
        split(source(), common(label_noise=0.1)),
    ]
    assert len({each.hash for each in [*same, *others]}) == 7


@pytest.mark.parametrize(
    ("knobs", "key"),
    [
        ({"val_fraction": 0.0}, "val_fraction"),
        ({"val_fraction": 0.004}, "val_fraction"),
        ({"val_fraction": 1.0}, "val_fraction"),
        ({"val_fraction": 0.8}, "val_fraction"),
        ({"val_fraction": 0.9, "test_fraction": 0.9}, "val_fraction"),
        ({"test_fraction": 0.001}, "test_fraction"),
        ({"subset": 71}, "subset"),
    ],
)
def test_a_part_that_would_be_empty_or_too_large_is_refused(knobs: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError, match=rf"^data\.{key}: ") as caught:
        split(source(), common(**knobs))
    assert "-" not in str(caught.value)  # no negative number of samples


def test_a_test_fraction_of_zero_does_without_a_test_set() -> None:
    train, val, test = parts(split(source(), common(test_fraction=0.0)))
    assert (len(train), len(val), len(test)) == (90, 10, 0)


def test_a_test_set_that_would_be_empty_is_refused_with_both_remedies() -> None:
    with pytest.raises(ConfigError) as caught:
        split(source(), common(test_fraction=0.001))
    assert str(caught.value) == (
        "data.test_fraction: 0.001 of 100 samples leaves none for the test; raise it, or set it to 0 to do without"
    )


def test_an_official_validation_set_stays_untouched() -> None:
    whole = replace(source(), val_inputs=torch.full((7, 1), -2.0), val_targets=torch.full((7,), -2))
    train, val, test = parts(split(whole, common()))
    assert val == [-2] * 7
    assert (len(train), len(test)) == (80, 20)  # val_fraction takes nothing away
    assert sorted(train + test) == list(range(100))
    for knobs in ({"split_seed": 5}, {"val_fraction": 0.9}, {"val_fraction": 0.0}, {"subset": 3}):
        assert numbers(split(whole, common(**knobs)).val) == val


# Label noise.


def labels(count: int = 1000, classes: int = 10) -> Source:
    """Each sample is its own number, its class the last digit."""
    numbers = torch.arange(count)
    return Source(numbers[:, None].float(), numbers % classes, tuple(map(str, range(classes))), "x")


def wrong(part: Split) -> set[int]:
    """The numbers of the samples with another label than their own."""
    taken = part.taken()
    own = taken.inputs.flatten().long()
    return set(own[taken.targets != own % 10].tolist())


@pytest.mark.parametrize("share", [0.0, 0.1, 0.25, 1.0])
def test_label_noise_is_exactly_that_share_of_the_training_split_and_of_nothing_else(share: float) -> None:
    splits = split(labels(), common(label_noise=share))
    assert len(splits.train) == 700
    assert len(wrong(splits.train)) == round(share * 700)
    assert wrong(splits.val) == wrong(splits.test) == set()
    assert set(splits.train.taken().targets.tolist()) == set(range(10))


def test_label_noise_leaves_the_source_and_the_split_as_they_are() -> None:
    whole = labels()
    noisy, clean = split(whole, common(label_noise=0.5)), split(whole, common())
    assert torch.equal(whole.targets, torch.arange(1000) % 10)
    assert noisy.train.indices is not None and clean.train.indices is not None
    assert torch.equal(noisy.train.indices, clean.train.indices)
    assert noisy.hash != clean.hash


def test_more_noise_keeps_what_less_noise_had() -> None:
    less, more = (split(labels(), common(label_noise=share)).train for share in (0.2, 0.6))
    assert wrong(less) < wrong(more)
    where = torch.tensor([number in wrong(less) for number in less.taken().inputs.flatten().tolist()])
    assert torch.equal(less.taken().targets[where], more.taken().targets[where])


def test_label_noise_hangs_on_split_seed_alone() -> None:
    first = split(labels(), common(label_noise=0.3)).train.taken().targets
    torch.manual_seed(99)
    assert torch.equal(split(labels(), common(label_noise=0.3)).train.taken().targets, first)


def test_each_wrong_class_is_as_likely() -> None:
    train = split(labels(20_000), common(label_noise=1.0)).train.taken()
    offsets = (train.targets - train.inputs.flatten().long()) % 10
    counts = torch.bincount(offsets, minlength=10)
    assert counts[0] == 0
    expected = len(train) / 9
    # chi-squared with 8 degrees of freedom: above 26 once in 1,000
    assert float((counts[1:] - expected).square().sum() / expected) < 26


def test_noise_with_a_single_class_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^data\.label_noise: there is one class only"):
        split(replace(labels(), classes=("a",)), common(label_noise=0.1))


def test_a_subset_is_noisy_in_the_same_share() -> None:
    assert len(wrong(split(labels(), common(label_noise=0.25, subset=100)).train)) == 25


def test_taken_samples_are_copies() -> None:
    whole = source()
    taken = split(whole, common()).train.taken()
    taken.inputs.fill_(-1)
    assert whole.inputs.flatten().tolist() == list(range(100))
