import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn

from dltips.errors import ConfigError
from dltips.feed.batches import to_float
from dltips.feed.splits import split
from dltips.tips.data import DataKnobs, Source
from dltips.tips.preprocessing import (
    Fill,
    mean_and_covariance,
    mean_and_variance,
    min_max,
    minus_one_one,
    none,
    pca_whiten,
    preprocessing,
    restore,
    robust,
    save,
    standardize,
    zca_whiten,
)


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


FITTED: dict[str, Callable[[Tensor], nn.Module]] = {
    "none": none,
    "standardize": lambda inputs: standardize(inputs, epsilon=1e-5),
    "min_max": min_max,
    "minus_one_one": minus_one_one,
    "robust": lambda inputs: robust(inputs, low=5.0, high=95.0, epsilon=1e-5),
    "pca_whiten": lambda inputs: pca_whiten(inputs, epsilon=1e-5),
    "zca_whiten": lambda inputs: zca_whiten(inputs, epsilon=1e-5),
}


def test_there_is_a_case_for_every_preprocessing() -> None:
    assert set(FITTED) == set(preprocessing.tips)


def waves(count: int = 30) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, 1, 40, generator=generator).mul(0.2).clamp(-1, 1)


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
    common = DataKnobs(
        split_seed=0,
        val_fraction=0.2,
        test_fraction=0.2,
        shuffle=True,
        subset=None,
        per_class=None,
        only_classes=None,
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


@pytest.mark.parametrize("name", FITTED)
@pytest.mark.parametrize("make", [images, vectors, waves])
def test_each_keeps_shape_and_type_gives_no_nan_and_leaves_its_inputs_alone(
    name: str, make: Callable[[], Tensor]
) -> None:
    raw = make()
    fitted = FITTED[name](raw)
    inputs = to_float(raw)
    kept = inputs.clone()
    found = fitted(inputs)
    assert found.shape == raw.shape and found.dtype == torch.float32 and bool(found.isfinite().all())
    assert torch.equal(inputs, kept)
    assert list(fitted.parameters()) == []


@pytest.mark.parametrize("name", FITTED)
@pytest.mark.parametrize("make", [images, vectors, waves])
def test_what_is_saved_and_read_back_gives_the_same_bits(name: str, make: Callable[[], Tensor], tmp_path: Path) -> None:
    fitted = FITTED[name](make())
    torch.save(save(fitted), tmp_path / "steps.pt")
    again = restore(torch.load(tmp_path / "steps.pt", weights_only=True))
    inputs = to_float(make())
    assert torch.equal(again(inputs), fitted(inputs))
    assert torch.equal(copy.deepcopy(fitted)(inputs), fitted(inputs))


def test_missing_values_are_filled_before_any_of_them() -> None:
    raw = vectors()
    raw[3, 1] = torch.nan
    fill = Fill(value=raw.nanmean(0))
    for fit in FITTED.values():
        fitted = fit(fill(raw))
        steps = fitted if isinstance(fitted, nn.Sequential) else [fitted]
        whole = nn.Sequential(fill, *steps)
        assert bool(whole(raw).isfinite().all())
        assert torch.equal(restore(save(whole))(raw), whole(raw))


@pytest.mark.parametrize(("tip", "low", "high"), [(min_max, 0.0, 1.0), (minus_one_one, -1.0, 1.0)])
def test_the_training_splits_extremes_become_the_bounds(
    tip: Callable[[Tensor], nn.Module], low: float, high: float
) -> None:
    for raw, dims in ((images(), (0, 2, 3)), (vectors()[:, :4], (0,)), (waves(), (0, 2))):
        inputs = to_float(raw)
        found = tip(raw)(inputs)
        torch.testing.assert_close(found.amin(dims), torch.full(raw.shape[1:2], low), rtol=0, atol=1e-6)
        torch.testing.assert_close(found.amax(dims), torch.full(raw.shape[1:2], high), rtol=0, atol=1e-6)
        shape = (-1,) + (1,) * (raw.dim() - 2)
        least, most = inputs.amin(dims).reshape(shape), inputs.amax(dims).reshape(shape)
        torch.testing.assert_close(found, low + (high - low) * (inputs - least) / (most - least), rtol=0, atol=1e-6)


def test_min_max_is_exact_at_its_bounds() -> None:
    found = min_max(images())(to_float(images()))
    assert (float(found.min()), float(found.max())) == (0.0, 1.0)


@pytest.mark.parametrize("tip", [min_max, minus_one_one])
def test_a_feature_that_never_varies_becomes_0_and_what_is_new_may_leave_the_bounds(
    tip: Callable[[Tensor], nn.Module],
) -> None:
    fitted = tip(vectors())
    assert not fitted(vectors())[:, 4:].any()
    assert float(fitted(2 * vectors().amax(0, keepdim=True))[0, 0]) > 1


@pytest.mark.parametrize(("low", "high"), [(5.0, 95.0), (0.0, 100.0), (25.0, 50.0), (12.3, 99.9)])
def test_robust_clips_at_numpys_percentiles_and_standardizes_what_is_left(low: float, high: float) -> None:
    for raw, axes in ((images(51), (0, 2, 3)), (vectors()[:, :3], (0,)), (waves(), (0, 2))):
        values = raw.numpy() / 255 if raw.dtype == torch.uint8 else raw.numpy()
        least, most = numpy.percentile(values, [low, high], axis=axes, keepdims=True)
        clipped = values.clip(least, most).astype(numpy.float64)
        mean, std = clipped.mean(axes, keepdims=True), clipped.std(axes, keepdims=True)
        found = robust(raw, low=low, high=high, epsilon=1e-5)(to_float(raw))
        numpy.testing.assert_allclose(found.numpy(), ((clipped - mean) / (std + 1e-5)), rtol=0, atol=3e-4)


@pytest.mark.parametrize(("low", "high"), [(5.0, 95.0), (0.0, 40.0), (0.0, 100.0)])
def test_robust_is_numpys_where_channels_are_mostly_at_the_top_or_the_bottom_level(low: float, high: float) -> None:
    """A white or a black background: most of a channel's values are one level, 255 or 0."""
    raw = images(40)
    for channel, level in enumerate((255, 0, 255)):
        raw[:30, channel] = level
    values = raw.numpy() / 255
    least, most = numpy.percentile(values, [low, high], axis=(0, 2, 3), keepdims=True)
    clipped = values.clip(least, most)
    mean, std = clipped.mean((0, 2, 3), keepdims=True), clipped.std((0, 2, 3), keepdims=True)
    found = robust(raw, low=low, high=high, epsilon=1e-5)(to_float(raw))
    numpy.testing.assert_allclose(found.numpy(), (clipped - mean) / (std + 1e-5), rtol=0, atol=3e-4)


def test_robust_does_not_see_an_outlier() -> None:
    raw = vectors()[:, :3]
    spoiled = raw.clone()
    spoiled[7] = 1e9
    one, other = (robust(each, low=5.0, high=95.0, epsilon=1e-5)(raw) for each in (raw, spoiled))
    assert float((one - other).abs().max()) < 0.05
    assert float(standardize(spoiled, epsilon=1e-5)(raw).std(0).max()) < 1e-3


def test_robust_wants_its_percentiles_in_order() -> None:
    with pytest.raises(ConfigError) as caught:
        robust(vectors(), low=95.0, high=5.0, epsilon=1e-5)
    assert str(caught.value) == "preprocessing.low: 95 is not below preprocessing.high, 5; take less"


def correlated(count: int = 4000) -> Tensor:
    """Twelve features that share four causes and add a little of their own; the thirteenth never varies."""
    generator = torch.Generator().manual_seed(0)
    causes = torch.randn(count, 4, generator=generator) @ torch.randn(4, 12, generator=generator)
    own = 0.3 * torch.randn(count, 12, generator=generator)
    return torch.cat([causes + own + torch.arange(12.0), torch.full((count, 1), 3.0)], 1)


WHITENINGS = [pca_whiten, zca_whiten]


@pytest.mark.parametrize("tip", WHITENINGS)
def test_the_covariance_of_what_is_whitened_is_the_identity(tip: Callable[..., nn.Module]) -> None:
    found = tip(correlated(), epsilon=1e-5)(correlated()).double()
    covariance = found.T @ found / len(found)
    expected = torch.eye(13).double()
    expected[12, 12] = 0  # the direction in which nothing varies
    assert float(found.mean(0).abs().max()) < 1e-4
    torch.testing.assert_close(covariance, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("make", [correlated, images])
@pytest.mark.parametrize("epsilon", [1e-5, 0.1])
def test_pca_whiten_is_the_formula_by_numpys_svd_of_the_data(make: Callable[[], Tensor], epsilon: float) -> None:
    values = to_float(make()).flatten(1).double().numpy()
    centred = values - values.mean(0)
    _, singular, rows = numpy.linalg.svd(centred, full_matrices=False)
    variances = singular**2 / len(values)
    expected = centred @ rows.T / numpy.sqrt(variances + epsilon)
    found = pca_whiten(make(), epsilon=epsilon)(to_float(make())).flatten(1).double().numpy()
    kept = variances > 1e-9  # fewer images than pixels: the rest of the directions are any
    assert kept.sum() >= 12
    found, expected = found[:, : len(kept)][:, kept], expected[:, kept]
    signs = numpy.sign((found * expected).sum(0))
    numpy.testing.assert_allclose(found, signs * expected, rtol=0, atol=2e-3)


def test_the_signs_of_the_components_are_no_accident() -> None:
    matrix = pca_whiten(correlated(), epsilon=1e-5).matrix
    assert bool((matrix.gather(1, matrix.abs().argmax(1, keepdim=True)) > 0).all())


def test_zca_whiten_is_symmetric_and_changes_the_inputs_least() -> None:
    inputs = correlated()[:, :12]
    zca, pca = (tip(inputs, epsilon=1e-5) for tip in (zca_whiten, pca_whiten))
    torch.testing.assert_close(zca.matrix, zca.matrix.T, rtol=0, atol=1e-5)
    centred = inputs - inputs.mean(0)

    def distance(whitened: Tensor) -> float:
        return float((whitened - centred).square().sum())

    least = distance(zca(inputs))
    for seed in range(20):  # any other whitening is a rotation of it
        rotation = nn.init.orthogonal_(torch.empty(12, 12), generator=torch.Generator().manual_seed(seed))
        assert distance(zca(inputs) @ rotation.T) > least
    assert distance(pca(inputs)) > least


def test_what_is_already_white_zca_leaves_as_it_is() -> None:
    inputs = correlated()[:, :12]
    white = zca_whiten(inputs, epsilon=1e-6)(inputs)
    torch.testing.assert_close(zca_whiten(white, epsilon=1e-6)(white), white, rtol=0, atol=2e-3)


@pytest.mark.parametrize("chunk", [1, 17, 1024])
def test_the_covariance_is_numpys_and_of_images_exact(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dltips.tips.preprocessing.whitening.BLOCK", 50)  # 126 features: three blocks
    raw = images(300)
    mean, covariance = mean_and_covariance(raw, chunk)
    whole = raw.flatten(1).numpy().astype(numpy.int64)
    # n^2 cov = n sum x x^T - (sum x)(sum x)^T, in whole numbers
    total = whole.sum(0)
    exact = (len(whole) * (whole.T @ whole) - numpy.outer(total, total)) / len(whole) ** 2 / 255**2
    numpy.testing.assert_allclose(covariance.numpy(), exact, rtol=0, atol=1e-15)
    numpy.testing.assert_allclose(mean.numpy(), total / len(whole) / 255, rtol=1e-14)
    values = correlated().numpy().astype(numpy.float64)
    numpy.testing.assert_allclose(
        mean_and_covariance(correlated(), chunk)[1].numpy(), numpy.cov(values.T, bias=True), rtol=0, atol=1e-12
    )


def test_extreme_images_do_not_overflow_the_exact_sums() -> None:
    raw = torch.zeros(3000, 1, 1, 2, dtype=torch.uint8)
    raw[::2] = 255
    _, covariance = mean_and_covariance(raw)
    assert torch.equal(covariance, torch.full((2, 2), 0.25, dtype=torch.float64))


@pytest.mark.parametrize("name", ["pca_whiten", "zca_whiten"])
def test_whitening_refuses_what_would_not_fit(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        FITTED[name](torch.zeros(3, 1, 8000))
    assert str(caught.value) == (
        f"preprocessing: {name} takes at most 4096 features, but a sample has 8000, whose covariance would have"
        " 64,000,000 entries; write preprocessing=standardize, or make images smaller by data.image_size"
    )


@pytest.mark.skipif("DLTIPS_TEST_DATA" not in os.environ, reason="needs the real data named by DLTIPS_TEST_DATA")
def test_fashion_mnist_is_white() -> None:
    path = Path(os.environ["DLTIPS_TEST_DATA"], "FashionMNIST", "raw", "t10k-images-idx3-ubyte")
    if not path.is_file():
        pytest.skip("FashionMNIST/raw/t10k-images-idx3-ubyte is not there")
    raw = torch.from_numpy(numpy.fromfile(path, dtype=numpy.uint8)[16:].reshape(-1, 1, 28, 28))
    found = pca_whiten(raw, epsilon=1e-5)(to_float(raw)).flatten(1).double()
    covariance = found.T @ found / len(found)
    large = covariance.diagonal() > 0.99  # S well above epsilon
    assert int(large.sum()) > 300
    torch.testing.assert_close(covariance[large][:, large], torch.eye(int(large.sum())).double(), rtol=0, atol=0.01)


def test_a_feature_that_never_varies_in_training_is_not_divided() -> None:
    """A rare category that only validation has must not become 1 / epsilon."""
    train = torch.stack([torch.randn(1000), torch.full((1000,), 0.1), torch.zeros(1000)], 1)
    fitted = standardize(train, epsilon=1e-5)
    outputs = fitted(torch.tensor([[0.0, 1.1, 1.0]]))
    assert outputs[0, 1:].tolist() == pytest.approx([1.0, 1.0], abs=1e-6)
    assert torch.equal(fitted(train)[:, 2], torch.zeros(1000))


@pytest.mark.parametrize("saved", [[("Affine", {"shift": torch.zeros(1)})], [("Affine", {"shift": 1, "scale": 2})]])
def test_a_damaged_step_is_refused(saved: Any) -> None:
    with pytest.raises(ConfigError, match=r"^preprocessing: the checkpoint's step Affine lacks its statistics"):
        restore(saved)
