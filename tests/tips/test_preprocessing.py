import numpy
import pytest
import torch
from torch import Tensor

from dltips.feed.batches import to_float
from dltips.feed.splits import split
from dltips.tips.data import Common, Source
from dltips.tips.preprocessing import mean_and_variance, none, standardize


def images(count: int = 50, channels: int = 3, seed: int = 0) -> Tensor:
    """uint8 images whose channels differ in mean and spread."""
    generator = numpy.random.default_rng(seed)
    levels = [generator.integers(10 * c, 255 - 60 * c, (count, 1, 6, 7)) for c in range(channels)]
    return torch.from_numpy(numpy.concatenate(levels, 1).astype(numpy.uint8))


def vectors(count: int = 500) -> Tensor:
    """Features of very different means and spreads; the last three never vary."""
    generator = numpy.random.default_rng(0)
    values = generator.normal([0, 1000, -3, 1e-3], [1, 0.5, 40, 1e-4], (count, 4))
    return torch.from_numpy(numpy.hstack([values, numpy.tile([0.0, 0.1, 1e6], (count, 1))]).astype(numpy.float32))


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_standardized_per_channel(channels: int) -> None:
    raw = images(channels=channels)
    scaled = raw.numpy().astype(numpy.float64) / 255
    mean, std = scaled.mean((0, 2, 3), keepdims=True), scaled.std((0, 2, 3), keepdims=True)
    found = standardize(raw, epsilon=1e-5)(to_float(raw))
    assert found.dtype == torch.float32
    numpy.testing.assert_allclose(found.numpy(), (scaled - mean) / (std + 1e-5), rtol=0, atol=2e-6)
    assert found.mean((0, 2, 3)).abs().max() < 1e-5
    torch.testing.assert_close(found.std((0, 2, 3), correction=0), torch.ones(channels), rtol=0, atol=1e-3)


def test_vectors_are_standardized_per_feature_and_constant_ones_become_0() -> None:
    raw = vectors()
    values = raw.numpy().astype(numpy.float64)
    found = standardize(raw, epsilon=1e-7)(raw)
    expected = (values - values.mean(0)) / (values.std(0) + 1e-7)
    # the float32 mean of a feature around 1000 is off by up to 3e-5, of a spread of 0.5
    numpy.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-4)
    assert not found[:, 4:].any()


@pytest.mark.parametrize("chunk", [1, 7, 50, 4096])
def test_statistics_are_numpys_in_double_precision_in_chunks_of_any_size(chunk: int) -> None:
    for raw, scale in ((images(), 255), (vectors(60), 1)):
        values = raw.numpy().astype(numpy.float64) / scale
        axes = (0, 2, 3) if raw.dim() == 4 else (0,)
        mean, variance = mean_and_variance(raw, chunk)
        assert mean.dtype == variance.dtype == torch.float64
        assert mean.shape == variance.shape == raw.shape[1:2] + (1,) * (raw.dim() - 2)
        numpy.testing.assert_allclose(mean.flatten().numpy(), values.mean(axes), rtol=1e-12)
        numpy.testing.assert_allclose(variance.flatten().numpy(), values.var(axes), rtol=1e-9, atol=1e-15)


def test_images_of_one_gray_level_do_not_divide_by_zero() -> None:
    raw = torch.full((5, 2, 3, 3), 37, dtype=torch.uint8)
    found = standardize(raw, epsilon=1e-5)(to_float(raw))
    assert found.abs().max() < 1e-2
    assert (mean_and_variance(raw)[1] >= 0).all()


def test_none_gives_the_raw_values_back() -> None:
    raw = torch.arange(256, dtype=torch.uint8).reshape(4, 1, 8, 8)
    torch.testing.assert_close(none(raw)(to_float(raw)), raw.float())
    assert torch.equal(none(vectors())(vectors()), vectors())


def test_the_statistics_are_the_training_splits_alone() -> None:
    raw, targets = images(100), torch.arange(100) % 10
    common = Common(
        split_seed=0,
        val_fraction=0.2,
        test_fraction=0.2,
        shuffle=True,
        subset=None,
        image_size=None,
        label_noise=0.0,
        balance="none",
        expand=0,
        placement="auto",
    )
    source = Source(raw, targets, tuple("0123456789"), None, None, "")
    splits = split(source, common)
    spoiled = raw.clone()
    for part in (splits.val, splits.test):
        spoiled[part.indices] = 255
    source = Source(spoiled, targets, source.classes, None, None, "")
    one, other = (standardize(each.train.taken().inputs, epsilon=1e-5) for each in (splits, split(source, common)))
    assert torch.equal(one.shift, other.shift)
    assert torch.equal(one.scale, other.scale)
    assert not torch.equal(one.shift, standardize(spoiled, epsilon=1e-5).shift)


def test_the_statistics_are_saved_but_not_trained() -> None:
    fitted = standardize(images(), epsilon=1e-5)
    assert set(fitted.state_dict()) == {"shift", "scale"}
    assert list(fitted.parameters()) == []
