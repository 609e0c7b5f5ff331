import pytest
import torch
from scipy import stats
from torch import Generator, Tensor

from dltips.tips.augmentation import Batch, Cutmix, Mixup, Samples, mixing

CLASSES = 6


def seeded(seed: int = 0) -> Generator:
    return torch.Generator().manual_seed(seed)


def telling(count: int = 64, side: int = 8) -> Batch:
    """Images that show their class: channel c of an image of class c is white, the others are black."""
    targets = torch.randint(CLASSES, (count,), generator=seeded(1))
    images = torch.zeros(count, CLASSES, side, side)
    images[torch.arange(count), targets] = 1
    return images, targets


def samples() -> Samples:
    return Samples(*telling(), CLASSES)


def mixup(alpha: float = 1.0) -> Mixup:
    return Mixup(samples(), alpha=alpha)


def cutmix(p: float = 1.0, alpha: float = 1.0) -> Cutmix:
    return Cutmix(samples(), p=p, alpha=alpha)


def always(monkeypatch: pytest.MonkeyPatch, own: float) -> None:
    """Every lambda is this one."""

    def the_same(inputs: Tensor, alpha: float, generator: Generator) -> Tensor:
        return inputs.new_full((len(inputs),), own)

    monkeypatch.setattr(mixing, "beta", the_same)


@pytest.mark.parametrize(
    "chain",
    [[mixup()], [mixup(0.2)], [cutmix()], [cutmix(0.5)], [mixup(), cutmix()], [cutmix(), mixup()], [mixup(), mixup()]],
    ids=["mixup", "mixup 0.2", "cutmix", "cutmix 0.5", "mixup, cutmix", "cutmix, mixup", "mixup, mixup"],
)
def test_the_shares_are_what_the_pixels_show(chain: list[Mixup | Cutmix]) -> None:
    inputs, targets = telling()
    for mix in chain:
        inputs, targets = mix(inputs, targets, seeded())
    assert targets.shape == (64, CLASSES)
    assert targets.dtype == torch.float32
    torch.testing.assert_close(targets, inputs.mean((2, 3)), rtol=0, atol=1e-6)
    torch.testing.assert_close(targets.sum(1), torch.ones(64), rtol=0, atol=1e-6)
    assert float(targets.amax(1).min()) < 0.9  # something was mixed


@pytest.mark.parametrize("mix", [mixup(), cutmix()], ids=["mixup", "cutmix"])
def test_lambda_1_is_the_identity(mix: Mixup | Cutmix, monkeypatch: pytest.MonkeyPatch) -> None:
    always(monkeypatch, 1.0)
    inputs = torch.randn(64, 3, 8, 8, generator=seeded())
    _, targets = telling()
    outputs, shares = mix(inputs, targets, seeded())
    assert torch.equal(outputs, inputs)
    assert torch.equal(shares, torch.nn.functional.one_hot(targets, CLASSES).float())


@pytest.mark.parametrize("mix", [mixup(), cutmix()], ids=["mixup", "cutmix"])
def test_lambda_0_is_the_partner_at_most(mix: Mixup | Cutmix, monkeypatch: pytest.MonkeyPatch) -> None:
    always(monkeypatch, 0.0)
    inputs, targets = telling()
    outputs, shares = mix(inputs, targets, seeded())
    partner = torch.randperm(64, generator=seeded())
    other = outputs == inputs[partner]
    if isinstance(mix, Mixup):
        assert bool(other.all())
        assert torch.equal(shares.argmax(1), targets[partner])
    else:  # the box is as large as the image, and cut where it sticks out
        quarters = [outputs[:, :, rows, columns] for rows in (0, -1) for columns in (0, -1)]
        theirs = [(corner == inputs[partner][:, :, 0, 0]).all(1) for corner in quarters]
        assert bool(torch.stack(theirs).any(0).all())


def test_cutmix_puts_one_box_in_of_the_area_that_lambda_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    always(monkeypatch, 0.75)
    inputs = torch.rand(400, 2, 32, 32, generator=seeded(1))
    outputs, shares = cutmix()(inputs, torch.arange(400) % CLASSES, seeded())
    partner = torch.randperm(400, generator=seeded())
    changed = (outputs != inputs).all(1)
    assert torch.equal(changed, (outputs != inputs).any(1))
    assert torch.equal(outputs.movedim(1, -1)[changed], inputs[partner].movedim(1, -1)[changed])
    moved = partner != torch.arange(400)
    tall, wide = changed.any(2).sum(1), changed.any(1).sum(1)
    assert torch.equal(changed.sum((1, 2)), tall * wide)  # a rectangle
    assert int(tall.max()) == int(wide.max()) == 16  # sqrt(1 - 0.75) of the side
    assert int(tall[moved].min()) >= 8  # its middle lies in the image
    inside = (tall == 16) & (wide == 16)
    assert float(inside[moved].float().mean()) == pytest.approx(0.25, abs=0.08)  # both middles off the border
    differ = moved & (partner % CLASSES != torch.arange(400) % CLASSES)
    torch.testing.assert_close(1 - shares.amax(1)[differ], (tall * wide / 1024)[differ], rtol=0, atol=1e-6)


def test_cutmix_spares_a_share_of_the_images() -> None:
    inputs, targets = torch.rand(1000, 1, 16, 16, generator=seeded()), torch.zeros(1000, dtype=torch.int64)
    outputs, _ = cutmix(p=0.3)(inputs, targets, seeded())
    # of the boxes 6 % are smaller than a pixel: 1 - lambda is uniform, and at 1 / 256 the side is one
    assert float((outputs != inputs).flatten(1).any(1).float().mean()) == pytest.approx(0.3, abs=0.04)
    assert torch.equal(cutmix(p=0.0)(inputs, targets, seeded())[0], inputs)


@pytest.mark.parametrize("shape", [(7,), (1, 50), (3, 4, 4)])
def test_mixup_takes_samples_of_any_shape(shape: tuple[int, ...]) -> None:
    inputs = torch.randn(32, *shape, generator=seeded())
    outputs, shares = mixup()(inputs, torch.arange(32) % CLASSES, seeded())
    assert outputs.shape == inputs.shape
    own = mixing.beta(inputs, 1.0, advanced())
    partner = torch.randperm(32, generator=seeded())
    for index in range(32):
        expected = own[index] * inputs[index] + (1 - own[index]) * inputs[partner[index]]
        torch.testing.assert_close(outputs[index], expected)
        assert float(shares[index, index % CLASSES]) >= float(own[index]) - 1e-6


def advanced() -> Generator:
    """The stream after the permutation was drawn."""
    generator = seeded()
    torch.randperm(32, generator=generator)
    return generator


@pytest.mark.parametrize("alpha", [0.2, 1.0, 5.0])
def test_lambda_is_beta_distributed(alpha: float) -> None:
    drawn = mixing.beta(torch.zeros(5000, 1, dtype=torch.float64), alpha, seeded())
    assert stats.kstest(drawn.numpy(), stats.beta(alpha, alpha).cdf).pvalue > 0.01


def test_a_tiny_alpha_keeps_one_of_the_two() -> None:
    drawn = mixing.beta(torch.zeros(5000, 1), 1e-3, seeded())
    assert bool(drawn.isfinite().all())
    assert float(drawn.mean()) == pytest.approx(0.5, abs=0.03)
    assert float(((drawn < 0.01) | (drawn > 0.99)).float().mean()) > 0.99
