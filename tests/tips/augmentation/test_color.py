import numpy as np
import pytest
import torch
from torch import Generator, Tensor
from torch.nn import functional
from torchvision.transforms.v2 import functional as torchvision

from dltips.errors import ConfigError
from dltips.tips.augmentation import FancyPca, Samples, Whiten, color, color_jitter, contrast


def seeded(seed: int = 0) -> Generator:
    return torch.Generator().manual_seed(seed)


def labels(images: Tensor) -> Tensor:
    return torch.zeros(len(images), dtype=torch.int64)


def telling_images(channels: int = 3) -> Tensor:
    """Random ones, and all that is special in HSV: gray, black, white, pure colours, two equal channels."""
    images = torch.rand(9, 3, 6, 5, generator=seeded())
    special = torch.tensor(
        [[0, 0, 0], [1, 1, 1], [0.5, 0.5, 0.5], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0.3, 0.7, 0.7], [0, 1, 1]]
    )
    images[:, :, 0, 0] = special
    images[0, :, 1:3] = images[0, :1, 1:3]  # gray
    return images[:, :channels].contiguous()


FACTORS = torch.tensor([0.0, 0.3, 0.6, 0.9, 1.0, 1.1, 1.4, 2.0, 0.5])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["brightened", "contrasted"])
def test_light_is_torchvisions_of_each_image(name: str, channels: int) -> None:
    adjust = {"brightened": torchvision.adjust_brightness, "contrasted": torchvision.adjust_contrast}[name]
    images = telling_images(channels)
    expected = [adjust(image, float(factor)) for image, factor in zip(images, FACTORS, strict=True)]
    torch.testing.assert_close(getattr(color, name)(images, FACTORS), torch.stack(expected), rtol=0, atol=1e-6)


def test_saturated_is_torchvisions_of_each_image() -> None:
    images = telling_images()
    expected = [torchvision.adjust_saturation(image, float(own)) for image, own in zip(images, FACTORS, strict=True)]
    torch.testing.assert_close(color.saturated(images, FACTORS), torch.stack(expected), rtol=0, atol=1e-6)


def test_hue_turned_is_torchvisions_of_each_image() -> None:
    images, turns = telling_images(), torch.linspace(-0.5, 0.5, 9)
    expected = [torchvision.adjust_hue(image, float(own)) for image, own in zip(images, turns, strict=True)]
    torch.testing.assert_close(color.hue_turned(images, turns), torch.stack(expected), rtol=0, atol=1e-5)


def test_a_third_of_the_circle_moves_red_to_green() -> None:
    red = torch.tensor([1.0, 0, 0]).reshape(1, 3, 1, 1)
    green = color.hue_turned(red, torch.tensor([1 / 3]))
    torch.testing.assert_close(green.flatten(), torch.tensor([0.0, 1, 0]), rtol=0, atol=1e-6)


def test_color_jitter_does_the_four_in_order() -> None:
    images = telling_images()
    outputs, _ = color_jitter(images, labels(images), seeded(), brightness=0.4, contrast=0.3, saturation=0.2, hue=0.1)
    drawn = [torch.rand(9, generator=generator) for generator in [seeded()] for _ in range(4)]
    factors = [1 + strength * (2 * own - 1) for own, strength in zip(drawn, (0.4, 0.3, 0.2), strict=False)]
    expected = color.saturated(color.contrasted(color.brightened(images, factors[0]), factors[1]), factors[2])
    expected = color.hue_turned(expected, 0.1 * (2 * drawn[3] - 1))
    torch.testing.assert_close(outputs, expected, rtol=0, atol=1e-5)


def test_color_jitter_without_strength_is_the_identity() -> None:
    images = telling_images()
    outputs, _ = color_jitter(images, labels(images), seeded(), brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0)
    assert torch.equal(outputs, images)


def test_one_channel_has_no_colour_to_jitter() -> None:
    images = telling_images(channels=1)
    outputs, _ = color_jitter(images, labels(images), seeded(), brightness=0.0, contrast=0.0, saturation=0.9, hue=0.5)
    assert torch.equal(outputs, images)


def test_color_jitter_refuses_two_channels() -> None:
    images = torch.rand(4, 2, 8, 8)
    with pytest.raises(ConfigError) as caught:
        color_jitter(images, labels(images), seeded(), brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)
    assert str(caught.value) == (
        "augmentation: color_jitter takes images of 1 or 3 channels, not of 2; take contrast, which takes any"
    )


def test_contrast_scales_the_distance_from_the_mean_gray_by_a_factor_in_its_range() -> None:
    images = torch.rand(300, 2, 8, 8, generator=seeded()) * 0.2 + 0.4  # nothing is clamped
    outputs, _ = contrast(images, labels(images), seeded(), strength=0.4)
    middle = images.mean((1, 2, 3), keepdim=True)
    factors = ((outputs - middle) / (images - middle)).flatten(1).median(1).values
    torch.testing.assert_close(outputs, middle + (images - middle) * factors[:, None, None, None])
    assert 0.6 - 1e-4 <= float(factors.min()) < 0.61
    assert 1.39 < float(factors.max()) <= 1.4 + 1e-4


def training_split(channels: int = 3, count: int = 200) -> Tensor:
    """uint8 images whose channels are alike and whose neighbours too."""
    light = torch.randn(count, 1, 14, 14, generator=seeded(1))
    colour = torch.randn(count, channels, 14, 14, generator=seeded(2))
    return (110 + 100 * functional.avg_pool2d(light + 0.4 * colour, 3, 1)).clamp(0, 255).byte()


def pixels_of(images: Tensor) -> np.ndarray:
    return images.double().div(255).movedim(1, -1).flatten(0, 2).numpy()


@pytest.mark.parametrize("chunk", [7, 128])
def test_the_moments_of_the_pixels_are_numpys(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(color, "CHUNK", chunk)
    images = training_split()
    mean, covariance = color.pixel_moments(images)
    pixels = pixels_of(images)
    np.testing.assert_allclose(mean.numpy(), pixels.mean(0), rtol=1e-6)
    np.testing.assert_allclose(covariance.numpy(), np.cov(pixels.T, bias=True), rtol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_fancy_pca_shifts_along_the_components_by_their_eigenvalues(channels: int) -> None:
    images = training_split(channels)
    augment = FancyPca(Samples(images, labels(images), 10), std=0.1)
    inputs = torch.full((40_000, channels, 1, 2), 0.5)
    shifts = (augment(inputs, labels(inputs), seeded())[0] - 0.5).double()
    assert torch.equal(shifts[..., 0], shifts[..., 1])  # one shift for an image
    # sum_i (std lambda_i)^2 p_i p_i^T is the square of std times the covariance
    covariance = np.atleast_2d(np.cov(pixels_of(images).T, bias=True))
    expected = 0.1**2 * covariance @ covariance
    measured = np.atleast_2d(np.cov(shifts[:, :, 0, 0].T.numpy()))
    np.testing.assert_allclose(measured, expected, rtol=0.04, atol=0.02 * expected.max())


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_the_whitening_filter_is_the_middle_of_numpys_zca(kernel_size: int) -> None:
    images = training_split()
    weight, bias = color.whitening_filter(images, kernel_size, 0.01)
    windows = torch.nn.functional.unfold(images.float() / 255, kernel_size).transpose(1, 2).flatten(0, 1).double()
    covariance = np.cov(windows.numpy().T, bias=True)
    values, vectors = np.linalg.eigh(
        covariance + 0.01 * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    )
    rows = (vectors / np.sqrt(values) @ vectors.T)[kernel_size**2 // 2 :: kernel_size**2]
    spread = np.sqrt(np.diag(covariance)[kernel_size**2 // 2 :: kernel_size**2])
    rows *= (spread / np.sqrt(np.einsum("ci,ij,cj->c", rows, covariance, rows)))[:, None]
    np.testing.assert_allclose(weight.flatten(1).numpy(), rows, rtol=1e-3, atol=1e-3)
    whitened = windows.numpy() @ rows.T + bias.double().numpy()
    # each channel keeps its mean and its spread
    np.testing.assert_allclose(whitened.mean(0), pixels_of(images).mean(0), atol=0.01)


def test_whitening_undoes_what_channels_and_neighbours_have_in_common() -> None:
    images = training_split()
    inputs = images.float() / 255
    weight, bias = color.whitening_filter(images, 5, 1e-3)
    whitened = functional.conv2d(inputs, weight, bias)

    def common(values: Tensor) -> tuple[float, float]:
        """Correlation of two channels, and of neighbours."""
        channels = torch.corrcoef(values.movedim(1, 0).flatten(1))[0, 1]
        neighbours = torch.corrcoef(torch.stack([values[..., 1:].flatten(), values[..., :-1].flatten()]))[0, 1]
        return abs(float(channels)), abs(float(neighbours))

    assert min(common(inputs)) > 0.6
    assert max(common(whitened)) < 0.15


def test_whiten_blends_from_none_of_it_up_to_its_strength() -> None:
    images = training_split()
    augment = Whiten(Samples(images, labels(images), 10), strength=0.3, kernel_size=3, epsilon=0.01)
    inputs = torch.rand(1, 3, 12, 12, generator=seeded()).mul(0.2).add(0.4).repeat(300, 1, 1, 1)
    weight, bias = color.whitening_filter(images, 3, 0.01)
    whitened = functional.conv2d(functional.pad(inputs[:1], (1,) * 4, mode="reflect"), weight, bias)
    outputs, _ = augment(inputs, labels(inputs), seeded())
    difference = (whitened - inputs[:1]).flatten()
    shares = (outputs - inputs).flatten(1) @ difference / difference.square().sum()
    assert 0 <= float(shares.min()) < 0.01
    assert 0.28 < float(shares.max()) <= 0.3 + 1e-5


def test_whiten_takes_a_training_split_without_any_variance() -> None:
    images = torch.full((3, 1, 8, 8), 100, dtype=torch.uint8)
    augment = Whiten(Samples(images, labels(images), 10), strength=1.0, kernel_size=3, epsilon=0.01)
    outputs, _ = augment(images.float() / 255, labels(images), seeded())
    torch.testing.assert_close(outputs, images.float() / 255)


def test_whiten_refuses_a_kernel_wider_than_the_images() -> None:
    images = torch.zeros(3, 1, 4, 8, dtype=torch.uint8)
    with pytest.raises(ConfigError) as caught:
        Whiten(Samples(images, labels(images), 10), strength=1.0, kernel_size=9, epsilon=0.01)
    assert str(caught.value) == "augmentation.whiten.kernel_size: 9 is too wide for 4x8; take 7 or less"
