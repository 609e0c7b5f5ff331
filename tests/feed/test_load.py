"""data.image_size: the resize of torchvision, for every part of the source."""

from dataclasses import replace
from typing import Any

import numpy
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from dltips.feed.load import load
from dltips.registry import ConfigError
from dltips.tips.data import Common, Source
from dltips.tips.data.pictures import resize


def common(image_size: int | None) -> Common:
    return Common(
        split_seed=0,
        val_fraction=0.1,
        test_fraction=0.1,
        shuffle=True,
        subset=None,
        image_size=image_size,
        label_noise=0.0,
        balance="none",
        expand=0,
        placement="auto",
    )


def images(count: int = 5, channels: int = 3, height: int = 12, width: int = 9) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, channels, height, width), dtype=torch.uint8, generator=generator)


def source(**parts: Any) -> Source:
    return Source(
        **{"inputs": images(), "targets": torch.zeros(5, dtype=torch.int64), "hash": "x", **parts}, classes=()
    )


@pytest.mark.parametrize("size", [(4, 4), (6, 9), (12, 9), (20, 31), (1, 1), (128, 4)])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_resize_is_torchvision_s_bilinear_antialiased_one(size: tuple[int, int], channels: int) -> None:
    found = resize(images(channels=channels), size)
    # on floats, rounded once at the end, as exactly as can be
    expected = v2.functional.resize(
        images(channels=channels).double(), list(size), interpolation=v2.InterpolationMode.BILINEAR, antialias=True
    )
    assert found.dtype == torch.uint8 and found.is_contiguous()
    assert float((found.double() - expected).abs().max()) <= 0.5 + 1e-4


def test_it_is_pillow_s_within_a_level() -> None:
    whole = images(height=40, width=40)
    for image, found in zip(whole, resize(whole, (13, 13)), strict=True):
        picture = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((13, 13), Image.Resampling.BILINEAR)
        assert numpy.abs(numpy.array(picture).astype(int) - found.permute(1, 2, 0).numpy()).max() <= 1


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = resize(images(7), (5, 5))
    monkeypatch.setattr("dltips.tips.data.pictures.CHUNK", 3)
    assert torch.equal(resize(images(7), (5, 5)), whole)


def test_a_flat_image_stays_flat() -> None:
    for level in (0, 77, 255):
        assert resize(torch.full((2, 3, 9, 9), level, dtype=torch.uint8), (4, 17)).unique().tolist() == [level]


def test_every_part_has_the_size_and_the_hash_tells() -> None:
    parts = {name: images(3) for name in ("val_inputs", "test_inputs")}
    whole = source(**parts)
    loaded = load(lambda: whole, common(6))
    for name in ("inputs", *parts):
        assert torch.equal(getattr(loaded, name), resize(getattr(whole, name), (6, 6)))
    assert loaded.hash not in (whole.hash, load(lambda: whole, common(7)).hash)
    assert loaded.targets is whole.targets


def test_without_a_size_or_with_the_source_s_own_nothing_is_touched() -> None:
    square = source(inputs=images(height=8, width=8))
    assert load(lambda: square, common(None)) is square
    assert load(lambda: square, common(8)) is square


@pytest.mark.parametrize("inputs", [torch.zeros(5, 4), torch.zeros(5, 1, 100)])
def test_what_is_no_image_is_refused(inputs: Tensor) -> None:
    shape = tuple(inputs.shape[1:])
    with pytest.raises(ConfigError) as caught:
        load(lambda: replace(source(), inputs=inputs), common(8))
    assert str(caught.value) == (f"data.image_size: is for images, but a sample's shape is {shape}; leave it out")
