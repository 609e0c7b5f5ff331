import itertools
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
        tests[:, None].float() if official else None,
        tests if official else None,
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
    ]
    assert len({each.hash for each in [*same, *others]}) == 6


@pytest.mark.parametrize(
    ("knobs", "key"),
    [
        ({"val_fraction": 0.0}, "val_fraction"),
        ({"val_fraction": 0.004}, "val_fraction"),
        ({"val_fraction": 1.0}, "val_fraction"),
        ({"val_fraction": 0.8}, "val_fraction"),
        ({"val_fraction": 0.9, "test_fraction": 0.9}, "val_fraction"),
        ({"test_fraction": 0.0}, "test_fraction"),
        ({"subset": 71}, "subset"),
    ],
)
def test_a_part_that_would_be_empty_or_too_large_is_refused(knobs: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError, match=rf"^data\.{key}: ") as caught:
        split(source(), common(**knobs))
    assert "-" not in str(caught.value)  # no negative number of samples


def test_taken_samples_are_copies() -> None:
    whole = source()
    taken = split(whole, common()).train.taken()
    taken.inputs.fill_(-1)
    assert whole.inputs.flatten().tolist() == list(range(100))
