"""Each augmentation does to small inputs what its card states, sample by sample."""

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor
from torch.nn import functional
from torchvision.transforms.v2 import functional as theirs

from dltips.tips import augmentation
from dltips.tips.augmentation import Samples

COUNT, SIDE, CLASSES = 48, 9, 5
LABELS = torch.arange(COUNT) % CLASSES


def seeded(seed: int = 0) -> Generator:
    return torch.Generator().manual_seed(seed)


def images() -> Tensor:
    """Values within 0.3 .. 0.7, so that little is clamped and nothing is black."""
    return torch.rand(COUNT, 3, SIDE, SIDE, generator=seeded(1)) * 0.4 + 0.3


def samples() -> Samples:
    """A training split in which the channels are alike."""
    gray = torch.rand(200, 1, 8, 8, generator=seeded(2))
    mixed = 0.7 * gray + 0.3 * torch.rand(200, 3, 8, 8, generator=seeded(3))
    return Samples((mixed * 255).byte(), torch.arange(200) % CLASSES, CLASSES)


def augmented(function: Callable[..., tuple[Tensor, Tensor]], inputs: Tensor, **knobs: object) -> Tensor:
    return function(inputs, LABELS, seeded(), **knobs)[0]


def ratio_of(numbers: Tensor, to: Tensor) -> Tensor:
    """The one factor by which all of a sample's numbers are those of another: (N,)."""
    factors = (numbers / to).flatten(1)
    torch.testing.assert_close(factors, factors[:, :1].expand_as(factors), rtol=1e-3, atol=1e-3)
    return factors[:, 0]


def gray(inputs: Tensor) -> Tensor:
    return (inputs * torch.tensor([0.2989, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True)


def none() -> None:
    assert augmented(augmentation.none, images()) is not None
    assert torch.equal(augmented(augmentation.none, images()), images())


def flip() -> None:
    assert torch.equal(augmented(augmentation.flip, images(), p=1.0), images().flip(-1))
    assert torch.equal(augmented(augmentation.flip, images(), p=0.0), images())


def crop() -> None:
    """Each is one of the nine windows of its padded image, and all nine come."""
    padded = functional.pad(images(), (1, 1, 1, 1))
    windows = [padded[..., y : y + SIDE, x : x + SIDE] for y, x in itertools.product(range(3), range(3))]
    hits = torch.stack(
        [(augmented(augmentation.crop, images(), padding=1) == each).all(3).all(2).all(1) for each in windows]
    )
    assert (hits.sum(0) == 1).all() and hits.any(1).all()


def rotate() -> None:
    """By angles that are drawn first, as torchvision turns an image."""
    angles = torch.rand(COUNT, generator=seeded()) * 60 - 30
    turned = [
        theirs.rotate(image, float(angle), interpolation=theirs.InterpolationMode.BILINEAR)
        for image, angle in zip(images(), angles, strict=True)
    ]
    inside = (slice(None), slice(None), slice(3, 6), slice(3, 6))  # apart from the border, where both fade to black
    torch.testing.assert_close(
        augmented(augmentation.rotate, images(), degrees=30.0)[inside], torch.stack(turned)[inside], atol=1e-4, rtol=0
    )


def color_jitter() -> None:
    knobs = dict.fromkeys(("brightness", "contrast", "saturation", "hue"), 0.0)
    bright = ratio_of(augmented(augmentation.color_jitter, images(), **knobs | {"brightness": 0.3}), images())
    assert 0.7 <= float(bright.min()) < 0.8 and 1.2 < float(bright.max()) <= 1.3
    saturated = augmented(augmentation.color_jitter, images(), **knobs | {"saturation": 0.3})
    ratio_of(saturated - gray(images()), images() - gray(images()))
    turned = augmented(augmentation.color_jitter, images(), **knobs | {"hue": 0.2})
    for extreme in (torch.amax, torch.amin):  # hue leaves the largest and the smallest channel as they are
        torch.testing.assert_close(extreme(turned, 1), extreme(images(), 1), atol=1e-5, rtol=0)
    assert not torch.allclose(turned, images(), atol=0.05)


def contrast() -> None:
    middle = gray(images()).mean((2, 3), keepdim=True)
    factors = ratio_of(augmented(augmentation.contrast, images(), strength=0.3) - middle, images() - middle)
    assert 0.7 <= float(factors.min()) < 0.8 and 1.2 < float(factors.max()) <= 1.3


def noise() -> None:
    difference = augmented(augmentation.noise, images(), std=0.05) - images()
    assert float(difference.std()) == pytest.approx(0.05, rel=0.03)
    assert abs(float(difference.mean())) < 0.002


def blur() -> None:
    """A single pixel becomes the product of two bells that sum to 1."""
    point = torch.zeros(COUNT, 1, SIDE, SIDE)
    point[:, :, 4, 4] = 1
    bell = torch.exp(-(torch.arange(-2, 3) ** 2) / (2 * 0.8**2))
    bell /= bell.sum()
    blurred = augmented(augmentation.blur, point, kernel_size=5, sigma=(0.8, 0.8))
    torch.testing.assert_close(blurred[:, 0, 2:7, 2:7], torch.outer(bell, bell).expand(COUNT, 5, 5))
    assert float(blurred.sum()) == pytest.approx(COUNT, rel=1e-5)


def drop_pixels() -> None:
    dropped = augmented(augmentation.drop_pixels, images(), p=0.2)
    black = (dropped == 0).all(1)
    assert torch.equal(black, (dropped == 0).any(1))
    assert float(black.float().mean()) == pytest.approx(0.2, abs=0.02)
    kept = ~black[:, None].expand_as(dropped)
    assert torch.equal(dropped[kept], images()[kept])


def erase() -> None:
    """Three tenths of the area in a square: of its sqrt(24.3) rows and columns, 4.93, as many as that rounds to."""
    black = (augmented(augmentation.erase, images(), p=1.0, scale=(0.3, 0.3), ratio=(1.0, 1.0)) == 0).all(1)
    for image in black:
        rows, columns = image.any(1), image.any(0)
        assert torch.equal(image, rows[:, None] & columns) and (int(rows.sum()), int(columns.sum())) == (5, 5)
    assert len(torch.unique(black, dim=0)) > 10


def fancy_pca() -> None:
    """One shift for each image and channel: alpha_i lambda_i p_i, of pixels whose channels are nearly one."""
    shift = augmentation.FancyPca(samples(), std=0.1)(images(), LABELS, seeded())[0] - images()
    torch.testing.assert_close(shift, shift[:, :, :1, :1].expand_as(shift), atol=1e-5, rtol=0)
    pixels = samples().inputs.double().div(255).movedim(1, -1).reshape(-1, 3)
    values, vectors = torch.linalg.eigh(torch.cov(pixels.T, correction=0))
    amounts = shift[:, :, 0, 0].double() @ vectors / values
    torch.testing.assert_close(amounts.std(0), torch.full((3,), 0.1, dtype=torch.float64), atol=0.035, rtol=0)


def whiten() -> None:
    """It takes out what channels have in common, up to a share that each image draws."""
    split = samples()
    inputs = split.inputs.float() / 255
    tip = augmentation.Whiten(split, strength=1.0, kernel_size=3, epsilon=0.01)

    def likeness(pictures: Tensor) -> float:
        return float(torch.corrcoef(pictures.movedim(1, 0).reshape(3, -1))[0, 1])

    targets = torch.zeros(len(inputs), dtype=torch.int64)
    drawn = torch.stack([tip(inputs, targets, seeded(seed))[0] for seed in range(8)])
    assert likeness(drawn.flatten(0, 1)) < likeness(inputs) - 0.1
    none_of_it = augmentation.Whiten(split, strength=0.0, kernel_size=3, epsilon=0.01)
    torch.testing.assert_close(none_of_it(inputs, targets, seeded())[0], inputs)


def mixup() -> None:
    """The same share of pixels and of labels, of a partner that is one of the batch."""
    mixed, shares = augmentation.Mixup(samples(), alpha=1.0)(images(), LABELS, seeded())
    labels = functional.one_hot(LABELS, CLASSES).float()
    for image, share, own, label in zip(mixed, shares, images(), labels, strict=True):
        fits = []
        for other, its in zip(images(), labels, strict=True):
            gap = (own - other).flatten()
            part = float((image - other).flatten() @ gap / gap.square().sum().clamp(min=1e-12))
            pixels = torch.allclose(image, part * own + (1 - part) * other, atol=1e-5)
            fits.append(pixels and torch.allclose(share, part * label + (1 - part) * its, atol=1e-4))
        assert any(fits)
    torch.testing.assert_close(shares.sum(1), torch.ones(COUNT))


def cutmix() -> None:
    """The labels' shares are the shares of the pixels that are an image's own."""
    numbered = torch.arange(1.0, COUNT + 1).view(-1, 1, 1, 1).expand(COUNT, 1, SIDE, SIDE).clone()
    mixed, shares = augmentation.Cutmix(samples(), p=1.0, alpha=1.0)(numbered, LABELS, seeded())
    for image, share in zip(mixed, shares, strict=True):
        expected = torch.bincount(LABELS[image.long().flatten() - 1], minlength=CLASSES) / SIDE**2
        torch.testing.assert_close(share, expected)
    assert (mixed != numbered).any()


def time_shift() -> None:
    waves = torch.rand(COUNT, 1, 20, generator=seeded(4)) + 0.1
    moved = augmented(augmentation.time_shift, waves, shift=0.1, circular=True)
    rolled = torch.stack([(moved == waves.roll(by, -1)).all(2).all(1) for by in range(-2, 3)])
    assert (rolled.sum(0) == 1).all() and rolled.any(1).all()
    silent = augmented(augmentation.time_shift, waves, shift=0.1, circular=False)
    assert torch.equal(silent[silent != 0], moved[silent != 0])


def distort() -> None:
    waves = torch.rand(COUNT, 1, 50, generator=seeded(4)) * 0.2 + 0.05
    knobs = dict.fromkeys(("gain", "noise", "clip", "speed"), 0.0)
    louder = ratio_of(augmented(augmentation.distort, waves, **knobs | {"gain": 6.0}), waves)
    decibels = 20 * torch.log10(louder)
    assert -6 <= float(decibels.min()) < -4 and 4 < float(decibels.max()) <= 6
    clipped = augmented(augmentation.distort, waves, **knobs | {"clip": 0.5})
    peaks = clipped.amax(-1, keepdim=True)
    assert torch.equal(clipped, waves.minimum(peaks)) and float((peaks / waves.amax(-1, keepdim=True)).min()) >= 0.5


def spec_augment() -> None:
    """One stretch of bands and one of frames of each clip become its mean."""
    clips = torch.rand(COUNT, 1, 12, 16, generator=seeded(5))
    knobs = {"frequency": 0.5, "frequency_masks": 1, "time": 0.5, "time_masks": 1}
    masked = augmented(augmentation.spec_augment, clips, **knobs)
    widest = 0
    for before, after in zip(clips[:, 0], masked[:, 0], strict=True):
        changed = before != after
        bands, frames = changed.all(1), changed.all(0)
        assert torch.equal(changed, bands[:, None] | frames)
        torch.testing.assert_close(after[changed], before.mean().expand(int(changed.sum())))
        for places in (bands, frames):
            found = places.nonzero().flatten()
            assert len(found) == 0 or int(found[-1] - found[0]) + 1 == len(found)
        assert int(bands.sum()) <= 6 and int(frames.sum()) <= 8
        widest = max(widest, int(bands.sum()))
    assert widest == 6


CASES: dict[str, Callable[[], None]] = {
    "none": none,
    "flip": flip,
    "crop": crop,
    "rotate": rotate,
    "color_jitter": color_jitter,
    "contrast": contrast,
    "noise": noise,
    "blur": blur,
    "drop_pixels": drop_pixels,
    "erase": erase,
    "fancy_pca": fancy_pca,
    "whiten": whiten,
    "mixup": mixup,
    "cutmix": cutmix,
    "time_shift": time_shift,
    "distort": distort,
    "spec_augment": spec_augment,
}


@pytest.mark.parametrize("name", augmentation.augmentation.tips)
def test_what_its_card_states(name: str) -> None:
    assert name in CASES, (
        f"augmentation={name} has no case: write a function here that asserts its card's formula sample by sample, and"
        f" add it to CASES as {name!r}"
    )
    CASES[name]()
