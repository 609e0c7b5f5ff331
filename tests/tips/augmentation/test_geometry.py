import math

import pytest
import torch
from torch import Generator, Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as torchvision

from dltips.errors import ConfigError
from dltips.tips.augmentation import Batch, crop, flip, rotate
from dltips.tips.augmentation.geometry import rotated


def seeded(seed: int = 0) -> Generator:
    return torch.Generator().manual_seed(seed)


def batch(count: int = 32, channels: int = 3, height: int = 8, width: int = 10) -> Batch:
    # above zero, so that padded black can be told from the image
    images = torch.rand(count, channels, height, width, generator=seeded(99)) * 0.9 + 0.1
    return images, torch.zeros(count, dtype=torch.int64)


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


@pytest.mark.parametrize("padding", [1, 4, 7])
def test_crop_is_the_slow_crop_of_each_sample(padding: int) -> None:
    inputs, targets = batch(count=200)
    outputs, _ = crop(inputs, targets, seeded(), padding=padding)
    met = set()
    for image, output in zip(inputs, outputs, strict=True):
        found = None
        for down in range(-padding, padding + 1):
            for right in range(-padding, padding + 1):
                if found is None and torch.equal(shifted(image, down, right), output):
                    found = (down, right)
        assert found is not None
        met.add(found)
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


@pytest.mark.parametrize("padding", [8, 12])
def test_crop_refuses_to_lose_the_whole_image(padding: int) -> None:
    inputs, targets = batch()
    with pytest.raises(ConfigError) as caught:
        crop(inputs, targets, seeded(), padding=padding)
    assert str(caught.value) == (
        f"augmentation.crop.padding: {padding} could push all of a 8x10 image out of sight; take less than 8"
    )


@pytest.mark.parametrize(("height", "width"), [(8, 8), (9, 9), (8, 11)])
def test_rotated_is_torchvisions_rotation_of_each_image(height: int, width: int) -> None:
    images, _ = batch(count=9, height=height, width=width)
    degrees = torch.tensor([0.0, 1, -7.5, 15, 30, 45, -90, 180, -133])
    expected = [
        torchvision.rotate(image, float(angle), InterpolationMode.BILINEAR)
        for image, angle in zip(images, degrees, strict=True)
    ]
    torch.testing.assert_close(rotated(images, degrees), torch.stack(expected), rtol=0, atol=2e-5)


def test_a_quarter_turn_is_exact_and_counter_clockwise() -> None:
    images, _ = batch(count=1, height=8, width=8)
    turned = rotated(images, torch.tensor([90.0]))
    torch.testing.assert_close(turned, torch.rot90(images, 1, (2, 3)), rtol=0, atol=1e-5)


def test_rotate_draws_evenly_up_to_its_degrees_and_to_both_sides() -> None:
    # a bright point right of the middle tells by how much its image was turned
    images = torch.zeros(500, 1, 21, 21)
    images[:, :, 10, 20] = 1
    outputs, _ = rotate(images, torch.zeros(500, dtype=torch.int64), seeded(), degrees=30.0)
    distance = torch.arange(21) - 10.0
    down = (outputs.sum((1, 3)) * distance).sum(1)
    right = (outputs.sum((1, 2)) * distance).sum(1)
    degrees = torch.atan2(-down, right) * 180 / math.pi
    # bilinear weights place the point to a third of a degree
    assert 29 < float(degrees.max()) < 30.5
    assert -30.5 < float(degrees.min()) < -29
    assert float(degrees.mean()) == pytest.approx(0, abs=2.5)  # 3 standard errors of a uniform draw


def test_what_comes_into_sight_is_black() -> None:
    turned = rotated(torch.ones(1, 1, 9, 9), torch.tensor([45.0]))
    assert float(turned[0, 0, 0, 0]) == 0
    assert float(turned[0, 0, 4, 4]) == 1
