import pytest
import torch
from torch import Generator, Tensor
from torchvision.transforms.v2 import functional as torchvision

from dltips.errors import ConfigError
from dltips.tips.augmentation import blur, drop_pixels, erase, noise
from dltips.tips.augmentation.corruption import blurred


def seeded(seed: int = 0) -> Generator:
    return torch.Generator().manual_seed(seed)


def labels(images: Tensor) -> Tensor:
    return torch.zeros(len(images), dtype=torch.int64)


def test_noise_is_normal_with_its_std_and_drawn_for_every_value() -> None:
    images = torch.full((50, 3, 16, 16), 0.5)
    drawn = noise(images, labels(images), seeded(), std=0.05)[0] - 0.5
    assert float(drawn.mean()) == pytest.approx(0, abs=1e-3)
    assert float(drawn.std()) == pytest.approx(0.05, rel=0.02)
    assert float(drawn.div(0.05).pow(4).mean()) == pytest.approx(3, rel=0.05)  # a normal distribution's
    assert float(torch.corrcoef(drawn.transpose(0, 1).flatten(1))[0, 1]) == pytest.approx(0, abs=0.03)


@pytest.mark.parametrize("kernel_size", [1, 3, 5, 9])
def test_blurred_is_torchvisions_blur_of_each_image(kernel_size: int) -> None:
    images = torch.rand(6, 3, 8, 11, generator=seeded())
    sigma = torch.tensor([0.05, 0.1, 0.5, 1.0, 1.5, 4.0])
    expected = [
        torchvision.gaussian_blur(image, [kernel_size, kernel_size], [float(own), float(own)])
        for image, own in zip(images, sigma, strict=True)
    ]
    torch.testing.assert_close(blurred(images, sigma, kernel_size), torch.stack(expected), rtol=0, atol=1e-6)


def test_blur_keeps_a_plain_image_and_its_draws_lie_in_the_range() -> None:
    plain = torch.full((20, 1, 8, 8), 0.7)
    outputs, _ = blur(plain, labels(plain), seeded(), kernel_size=5, sigma=(0.1, 1.5))
    torch.testing.assert_close(outputs, plain)
    point = torch.zeros(300, 1, 9, 9)
    point[:, :, 4, 4] = 1
    outputs, _ = blur(point, labels(point), seeded(), kernel_size=9, sigma=(0.5, 1.0))
    # the point's peak falls with sigma
    most, least = (float(blurred(point[:1], torch.tensor([sigma]), 9).max()) for sigma in (0.5, 1.0))
    peaks = outputs.amax((1, 2, 3))
    assert least <= float(peaks.min()) < least * 1.05
    assert most * 0.95 < float(peaks.max()) <= most


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        (
            {"kernel_size": 4, "sigma": (0.1, 1.0)},
            "augmentation.blur.kernel_size: 4 has no middle; take 5, an odd number",
        ),
        (
            {"kernel_size": 17, "sigma": (0.1, 1.0)},
            "augmentation.blur.kernel_size: 17 is too wide for 8x9; take 15 or less",
        ),
        (
            {"kernel_size": 5, "sigma": (2.0, 1.0)},
            "augmentation.blur.sigma: [2.0, 1.0] is not a range; write [smallest, largest]",
        ),
        (
            {"kernel_size": 5, "sigma": (2.0,)},
            "augmentation.blur.sigma: [2.0] is not a range; write [smallest, largest]",
        ),
    ],
)
def test_blur_says_what_it_cannot_do(knobs: dict[str, object], message: str) -> None:
    images = torch.zeros(2, 1, 8, 9)
    with pytest.raises(ConfigError) as caught:
        blur(images, labels(images), seeded(), **knobs)
    assert str(caught.value) == message


def test_the_widest_kernel_that_blur_allows_works() -> None:
    images = torch.rand(2, 1, 8, 9, generator=seeded())
    assert blur(images, labels(images), seeded(), kernel_size=15, sigma=(1.0, 1.0))[0].shape == images.shape


def test_drop_pixels_blackens_a_share_p_of_the_pixels_with_all_their_channels() -> None:
    images = torch.rand(50, 3, 16, 16, generator=seeded(1)) * 0.9 + 0.1
    outputs, _ = drop_pixels(images, labels(images), seeded(), p=0.2)
    dropped = outputs == 0
    assert float(dropped.float().mean()) == pytest.approx(0.2, abs=0.01)
    assert torch.equal(dropped.all(1), dropped.any(1))
    assert torch.equal(outputs[~dropped], images[~dropped])


@pytest.mark.parametrize(("p", "left"), [(0.0, 1.0), (1.0, 0.0)])
def test_drop_pixels_drops_none_and_all(p: float, left: float) -> None:
    images = torch.ones(2, 1, 8, 8)
    assert torch.equal(drop_pixels(images, labels(images), seeded(), p=p)[0], images * left)


def test_erase_blackens_one_rectangle_of_the_asked_size_and_shape() -> None:
    images = torch.rand(400, 3, 40, 40, generator=seeded(1)) * 0.9 + 0.1
    outputs, _ = erase(images, labels(images), seeded(), p=1.0, scale=(0.1, 0.2), ratio=(0.5, 2.0))
    erased = outputs == 0
    assert torch.equal(outputs[~erased], images[~erased])
    assert torch.equal(erased.all(1), erased.any(1))
    erased = erased[:, 0]
    tall, wide = erased.any(2).sum(1), erased.any(1).sum(1)
    assert torch.equal(erased.sum((1, 2)), tall * wide)  # all within its bounds: a rectangle
    # each side is within half a pixel of its own
    low, high = (tall - 0.5) * (wide - 0.5) / 1600, (tall + 0.5) * (wide + 0.5) / 1600
    assert bool((high >= 0.1).all()) and bool((low <= 0.2).all())
    assert bool(((tall + 0.5) / (wide - 0.5) >= 0.5).all()) and bool(((tall - 0.5) / (wide + 0.5) <= 2).all())
    assert float((tall > wide).float().mean()) == pytest.approx(0.5, abs=0.08)  # log-uniform: as often tall as wide
    assert float((tall * wide / 1600).mean()) == pytest.approx(0.15, abs=0.005)
    # every row and every column is met, the outermost too
    assert bool(erased.any(0).any(1).all()) and bool(erased.any(0).any(0).all())


def test_erase_spares_a_share_of_the_images() -> None:
    images = torch.ones(1000, 1, 8, 8)
    outputs, _ = erase(images, labels(images), seeded(), p=0.3, scale=(0.2, 0.2), ratio=(1.0, 1.0))
    assert float((outputs == 0).flatten(1).any(1).float().mean()) == pytest.approx(0.3, abs=0.04)


def test_a_rectangle_longer_than_the_image_is_cut_to_it() -> None:
    images = torch.ones(10, 1, 8, 8)
    outputs, _ = erase(images, labels(images), seeded(), p=1.0, scale=(0.5, 0.5), ratio=(4.0, 4.0))
    assert {int(count) for count in (outputs == 0).flatten(1).sum(1)} == {8 * 3}  # 11.3 x 2.8


def test_erase_refuses_a_range_of_one() -> None:
    images = torch.ones(1, 1, 8, 8)
    with pytest.raises(ConfigError) as caught:
        erase(images, labels(images), seeded(), p=1.0, scale=(0.5,), ratio=(1.0, 1.0))
    assert str(caught.value) == "augmentation.erase.scale: [0.5] is not a range; write [smallest, largest]"
