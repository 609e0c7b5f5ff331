import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch

from dltips.errors import ConfigError
from dltips.feed.splits import Split, Splits, split
from dltips.tips.data import DataKnobs, Source
from dltips.tips.data.pictures import Form


def common(**knobs: Any) -> DataKnobs:
    usual = {
        "split_seed": 0,
        "val_fraction": 0.1,
        "test_fraction": 0.2,
        "shuffle": True,
        "subset": None,
        "per_class": None,
        "only_classes": None,
        "image_size": None,
        "label_noise": 0.0,
        "balance": "none",
        "expand": 0,
        "placement": "auto",
    }
    return DataKnobs(**{**usual, **knobs})


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
    with pytest.raises(ConfigError, match=r"^data\.test_fraction: 0\.001 of 100 samples .*set it to 0"):
        split(source(), common(test_fraction=0.001))


def test_an_official_validation_set_stays_untouched() -> None:
    whole = replace(source(), val_inputs=torch.full((7, 1), -2.0), val_targets=torch.full((7,), -2))
    train, val, test = parts(split(whole, common()))
    assert val == [-2] * 7
    assert (len(train), len(test)) == (80, 20)  # val_fraction takes nothing away
    assert sorted(train + test) == list(range(100))
    for knobs in ({"split_seed": 5}, {"val_fraction": 0.9}, {"val_fraction": 0.0}, {"subset": 3}):
        assert numbers(split(whole, common(**knobs)).val) == val


# So many of each class.


def test_per_class_takes_the_first_of_each_class_and_nothing_else_moves() -> None:
    whole, few = split(labels(), common()), split(labels(), common(per_class=20))
    own = whole.train.taken()
    expected = [own.inputs.flatten()[own.targets == label][:20].tolist() for label in range(10)]
    found = few.train.taken()
    assert torch.bincount(found.targets).tolist() == [20] * 10
    assert numbers_of(few.train) == [number for number in numbers_of(whole.train) if number in numbers_of(few.train)]
    assert [found.inputs.flatten()[found.targets == label].tolist() for label in range(10)] == expected
    for part in ("val", "test"):
        one, other = getattr(whole, part).taken(), getattr(few, part).taken()
        assert torch.equal(one.inputs, other.inputs) and torch.equal(one.targets, other.targets)


def test_few_of_each_class_are_among_more_and_in_their_order() -> None:
    few, more = (split(labels(), common(per_class=count)).train.taken().inputs.flatten() for count in (5, 30))
    assert few.tolist() == [number for number in more.tolist() if number in set(few.tolist())]
    assert len(few) == 50 and len(more) == 300


def test_per_class_hangs_on_split_seed_alone_and_the_hash_tells() -> None:
    same = [split(labels(), common(per_class=5)), split(labels(), common(per_class=5, shuffle=False))]
    assert numbers_of(same[0].train) == numbers_of(same[1].train) and same[0].hash == same[1].hash
    others = [
        split(labels(), common(per_class=5, split_seed=1)),
        split(labels(), common(per_class=6)),
        split(labels(), common(subset=50)),  # as many
        split(labels(), common()),
    ]
    assert numbers_of(others[0].train) != numbers_of(same[0].train)
    assert len({each.hash for each in [same[0], *others]}) == 5


def numbers_of(part: Split) -> list[int]:
    return part.taken().inputs.flatten().long().tolist()


def test_noise_comes_after_the_choice_and_has_its_share_of_what_was_chosen() -> None:
    clean, noisy = (split(labels(), common(per_class=20, label_noise=share)).train for share in (0.0, 0.25))
    assert numbers_of(noisy) == numbers_of(clean)
    assert len(wrong(noisy)) == 50 and wrong(clean) == set()


def test_a_class_with_too_few_samples_is_named() -> None:
    scarce = replace(labels(), targets=torch.cat([torch.arange(985) % 9, torch.full((15,), 9)]))
    count = int((split(scarce, common()).train.taken().targets == 9).sum())
    assert 0 < count < 15
    with pytest.raises(ConfigError, match=rf"^data\.per_class: {count + 1} .*{count} samples of class 9 .*lower it$"):
        split(scarce, common(per_class=count + 1))
    assert len(split(scarce, common(per_class=count)).train) == 10 * count


def test_a_subset_and_so_many_of_each_class_are_not_both_given() -> None:
    with pytest.raises(ConfigError, match=r"^data\.per_class: 20 .*data\.subset=100 .*leave one out$"):
        common(subset=100, per_class=20)


# Images that are yet to be brought to another form.


def pictures(**parts: Any) -> Source:
    """100 gray pictures of 4x4 as RGB of 8x8; each is flat, with its own number as its level."""
    levels = torch.arange(100, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 4, 4)
    return Source(
        **{"inputs": levels, "targets": torch.arange(100) % 2, "form": Form(3, (8, 8)), **parts},
        classes=("a", "b"),
        hash="x",
    )


@pytest.fixture
def formed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images have been brought to another form, each time."""
    counts: list[int] = []
    call = Form.__call__

    def counted(form: Form, images: torch.Tensor) -> torch.Tensor:
        counts.append(len(images))
        return call(form, images)

    monkeypatch.setattr(Form, "__call__", counted)
    return counts


@pytest.mark.parametrize(("knobs", "count"), [({"subset": 12}, 12), ({"per_class": 7}, 14), ({}, 70)])
def test_only_the_samples_that_are_used_are_brought_to_another_form(
    formed: list[int], knobs: dict[str, Any], count: int
) -> None:
    splits = split(pictures(), common(**knobs))
    assert (len(splits.train), len(splits.val), len(splits.test)) == (count, 10, 20)
    assert len(splits.test.targets) == 20 and formed == []
    for _ in range(2):  # once, however often it is asked for
        assert splits.train.inputs.shape == (count, 3, 8, 8)
        assert splits.train.taken().inputs is splits.train.inputs  # nothing else is held, and nothing twice
    assert formed == [count]
    assert splits.val.inputs.shape == (10, 3, 8, 8) and formed == [count, 10]
    assert splits.test.taken().inputs.shape == (20, 3, 8, 8) and formed == [count, 10, 20]


def test_another_form_leaves_the_split_as_it_is() -> None:
    official = {"test_inputs": torch.full((5, 1, 4, 4), 200, dtype=torch.uint8), "test_targets": torch.ones(5).long()}
    plain, other = (split(pictures(**official, form=form), common()) for form in (None, Form(3, (8, 8))))
    for part in ("train", "val", "test"):
        one, two = getattr(plain, part).taken(), getattr(other, part).taken()
        assert two.indices is None and torch.equal(one.targets, two.targets)
        assert torch.equal(one.inputs[:, 0, 0, 0], two.inputs[:, 2, 7, 7])
    # an index of a split is of its own arrays
    assert other.train.indices is not None
    chosen = other.train.indices[:9]
    assert torch.equal(other.train.inputs[chosen], other.train.taken().inputs[:9])
    assert torch.equal(other.train.targets[chosen], other.train.taken().targets[:9])


@pytest.mark.parametrize(
    ("knobs", "part", "key"),
    [
        ({}, "train", "subset"),
        ({"per_class": 9}, "train", "per_class"),
        ({}, "val", "image_size"),
        ({}, "test", "image_size"),
    ],
)
def test_what_would_not_fit_into_memory_is_refused(
    monkeypatch: pytest.MonkeyPatch, knobs: dict[str, Any], part: str, key: str
) -> None:
    large = getattr(split(pictures(form=Form(3, (20_000, 30_000))), common(**knobs)), part)
    needed = len(large) * 20_000 * 30_000 / 1e9  # gray, and repeated without a copy
    monkeypatch.setattr("dltips.free_memory.available", lambda: 4 * 10**9)
    with pytest.raises(ConfigError, match=rf"^data\.{key}: .*{needed:,.1f} GB.* 4\.0 GB .*lower it"):
        large.taken()


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
    with pytest.raises(ConfigError, match=r"^data\.label_noise: .*one class"):
        split(replace(labels(), classes=("a",)), common(label_noise=0.1))


def test_a_subset_is_noisy_in_the_same_share() -> None:
    assert len(wrong(split(labels(), common(label_noise=0.25, subset=100)).train)) == 25


def test_taken_samples_are_copies() -> None:
    whole = source()
    taken = split(whole, common()).train.taken()
    taken.inputs.fill_(-1)
    assert whole.inputs.flatten().tolist() == list(range(100))
