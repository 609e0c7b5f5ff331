"""The rows of a picture of augmentations: originals, each augmentation alone, draws of all together."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor

from dltips.config.composition import compose
from dltips.errors import ConfigError
from dltips.feed.augmentations import Augmentations
from dltips.plots.sample_grid import SampleRow
from dltips.tips.augmentation import Batch
from dltips.train import seeds
from dltips.use import show


def brighter(inputs: Tensor, targets: Tensor, generator: Generator) -> Batch:
    return inputs + 0.75, targets


def mixed(inputs: Tensor, targets: Tensor, generator: Generator) -> Batch:
    share = torch.rand(len(inputs), generator=generator)
    shares = torch.zeros(len(inputs), 3)
    rows = torch.arange(len(inputs))
    shares[rows, targets] += share
    shares[rows, targets.roll(1)] += 1 - share
    weight = share[:, None, None, None]
    return weight * inputs + (1 - weight) * inputs.roll(1, 0), shares


def test_what_comes_after_the_preprocessing_is_shown_without_it_last_and_with_its_shares() -> None:
    batch = torch.rand(6, 1, 4, 4), torch.tensor([0, 1, 2, 0, 1, 2])
    chain = Augmentations(["brighter", "mixed"], [brighter], [mixed])

    def streams(name: str, draw: int) -> Generator:
        return seeds.generator(7, "augmentation", name, draw)

    found = list(show.augmented_rows(chain, {"brighter": ["by 0.75"], "mixed": []}, batch, streams, 2))
    assert [(label, list(notes)) for label, notes, _ in found] == [
        ("original", []),
        ("brighter", ["by 0.75"]),
        ("mixed", []),
        ("all", ["draw 1 of 2"]),
        ("all", ["draw 2 of 2"]),
    ]
    alone, together = found[2][2], found[3][2]
    assert torch.equal(alone[0], mixed(*batch, streams("mixed", 0))[0])
    # as the feed does it: clamped to black and white before it is mixed
    assert torch.equal(together[0], mixed((batch[0] + 0.75).clamp(0, 1), batch[1], streams("mixed", 0))[0])
    captions = show.captions("mixed", alone[1], ["ant", "bee", "cat"])
    share = float(alone[1][1].max())
    assert captions[1][0].endswith(f" {share:.0%}") and {line.split()[0] for line in captions[1]} == {"ant", "bee"}
    assert show.captions("original", batch[1], ["ant", "bee", "cat"])[:3] == [["ant"], ["bee"], ["cat"]]
    assert show.captions("brighter", batch[1], ["ant", "bee", "cat"]) == []


def test_a_chain_has_a_row_of_originals_one_for_each_and_one_for_each_draw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    drawn: list[Sequence[SampleRow]] = []
    monkeypatch.setattr(show, "draw_grid", lambda rows, file, title: drawn.append(rows))
    composed, _ = compose(["augmentation=[crop,flip]", "augmentation.crop.padding=3", "batch_size=16"])
    title, notes = show.show(composed, 5, 2, tmp_path / "a.png")
    (rows,) = drawn
    assert [row.label for row in rows] == ["original", "crop", "flip", "all", "all"] and notes == []
    assert all(row.samples.shape == (5, 1, 8, 8) for row in rows) and "crop → flip" in title
    with pytest.raises(ConfigError, match=r"^--count: 17 .* 16 .*batch_size$"):
        show.show(composed, 17, 2, tmp_path / "a.png")
