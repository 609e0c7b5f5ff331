"""dltips show: the picture holds what the net gets, and mistakes are those of dltips train."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image
from torch import Generator, Tensor

from dltips.config.composition import compose
from dltips.config.validation import validate
from dltips.feed.augmentations import Augmentations
from dltips.main import main
from dltips.plots.sample_grid import GAP, SampleRow
from dltips.tips.augmentation import Batch
from dltips.train.build import build_run
from dltips.train.loop import batches
from dltips.use import show

Output = pytest.CaptureFixture[str]
CROP_FLIP = ["augmentation=[crop,flip]", "augmentation.crop.padding=3"]
FACTOR = 12  # digits have 8 pixels a side, and a row of the picture 96


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def rows_with(images: Tensor, file: str = "outputs/show.png") -> list[int]:
    """Where the picture has these digits beside each other, (N, 1, 8, 8) in [0, 1]: the top of each such row."""
    with Image.open(file) as image:
        picture = numpy.asarray(image.convert("L"))
    starts = []
    for column, digit in enumerate(images.mul(255).round().to(torch.uint8).squeeze(1).numpy()):
        block = digit.repeat(FACTOR, 0).repeat(FACTOR, 1)
        height, width = block.shape
        corners = numpy.argwhere(picture[:-height, :-width] == block[0, 0])
        for line in (6, 18, 30, 42, 54, 66, 78, 90):  # a few pixels first: nearly all places differ in one of them
            corners = corners[picture[corners[:, 0] + line, corners[:, 1] + 50] == block[line, 50]]
        fits = [(y, x) for y, x in corners if numpy.array_equal(picture[y : y + height, x : x + width], block)]
        starts.append({(int(y), int(x) - column * (width + GAP)) for y, x in fits})
    return sorted({y for y, _ in set.intersection(*starts)})


def first_batch(*overrides: str) -> tuple[Tensor, Tensor]:
    """The first batch of training, augmented, before the preprocessing; and the same samples as they are."""
    composed, _ = compose(["preprocessing=none", *overrides])
    run = build_run(validate(composed))
    inputs, targets = next(batches(run.training, 0))
    chosen = run.training.inputs.order(0)[: len(targets)]
    return inputs / 255, run.splits.train.taken().inputs[chosen] / 255


def test_the_rows_are_the_first_batch_of_training_before_and_after(capsys: Output) -> None:
    overrides = [*CROP_FLIP, "seed=3", "batch_size=32"]
    assert main(["show", *overrides]) == 0
    out, err = capsys.readouterr()
    assert (out, err) == (
        "outputs/show.png: digits, seed 3: 8 training samples before and after crop → flip\n",
        "",
    )
    augmented, originals = first_batch(*overrides)
    cropped, _ = first_batch("augmentation=crop", *overrides[1:])
    flipped, _ = first_batch("augmentation=flip", *overrides[2:])
    tops = [rows_with(images[:8]) for images in (originals, cropped, flipped, augmented)]
    assert [len(found) for found in tops] == [1, 1, 1, 1] and tops == sorted(tops)


def test_further_draws_are_others_and_the_first_is_the_same(capsys: Output) -> None:
    heights = []
    for draws in ("1", "3"):
        assert main(["show", *CROP_FLIP, "--draws", draws, "--out", f"{draws}.png"]) == 0
        with Image.open(f"{draws}.png") as image:
            heights.append(image.height)
    augmented, _ = first_batch(*CROP_FLIP)
    assert len(rows_with(augmented[:8], "1.png")) == len(rows_with(augmented[:8], "3.png")) == 1
    assert heights[1] == heights[0] + 2 * (8 * FACTOR + GAP)


def test_one_augmentation_needs_no_row_for_all_together(capsys: Output) -> None:
    assert main(["show", "augmentation=crop", "augmentation.crop.padding=3", "--draws", "1", "--count", "5"]) == 0
    augmented, originals = first_batch("augmentation=crop", "augmentation.crop.padding=3")
    tops = [rows_with(images[:5]) for images in (originals, augmented)]
    assert [len(found) for found in tops] == [1, 1]
    assert not rows_with(originals[:6])  # five columns, not six


def test_the_config_decides_to_the_byte(capsys: Output) -> None:
    for name, overrides in {"a": [], "b": ["seed=0"], "c": ["seed=1"], "d": ["data.shuffle=false"]}.items():
        assert main(["show", *CROP_FLIP, *overrides, "--count", "2", "--draws", "1", "--out", f"{name}.png"]) == 0
    a, b, c, d = (Path(f"{name}.png").read_bytes() for name in "abcd")
    assert a == b and len({a, c, d}) == 3


def test_frozen_copies_are_those_of_training(capsys: Output) -> None:
    overrides = [*CROP_FLIP, "data.expand=2", "data.subset=100", "data.shuffle=false"]
    assert main(["show", *overrides]) == 0
    frozen, _ = first_batch(*overrides)
    assert len(rows_with(frozen[:8])) == 1


def test_a_recipe_is_shown_as_it_would_be_trained(capsys: Output) -> None:
    Path("recipes").mkdir()
    Path("recipes/mine.yaml").write_text(
        "defaults:\n  - augmentation: [crop]\naugmentation:\n  crop:\n    padding: 3\n"
    )
    typed = ["augmentation=crop", "augmentation.crop.padding=3"]
    for name, overrides in {"a": ["+recipe=mine"], "b": ["recipe=mine"], "c": typed}.items():
        assert main(["show", *overrides, "--count", "2", "--draws", "1", "--out", f"{name}.png"]) == 0
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes() == Path("c.png").read_bytes()


def brighter(inputs: Tensor, targets: Tensor, generator: Generator) -> Batch:
    return inputs + 0.75, targets


def test_an_existing_picture_is_replaced_and_that_is_said(capsys: Output) -> None:
    assert main(["show", *CROP_FLIP, "--out", "new/a.png"]) == 0
    assert capsys.readouterr().out.startswith("new/a.png: digits")
    assert main(["show", *CROP_FLIP, "--out", "new/a.png", "seed=1"]) == 0
    assert capsys.readouterr().out.startswith("new/a.png (replaced): digits")
    assert [path.name for path in Path("new").iterdir()] == ["a.png"]


def test_flags_may_stand_anywhere_and_waveforms_are_drawn(capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Sequence[SampleRow]] = []
    monkeypatch.setattr(show, "draw_grid", lambda rows, file, title: drawn.append(rows))
    monkeypatch.setattr(Augmentations, "build", lambda tips, samples: Augmentations(["crop"], [brighter], []))
    wave = ["data=synthetic", "data.kind=waveform", "augmentation=crop"]
    assert main(["show", "--count", "3", *wave, "--draws", "2", "batch_size=16"]) == 0
    ((original, *others),) = drawn
    assert len(others) == 2 and original.samples.shape[:2] == (3, 1)
    # floats are not clamped
    assert torch.equal(others[0].samples, original.samples + 0.75) and float(others[0].samples.max()) > 1


MISTAKES: list[tuple[str, str]] = [
    ("", r"augmentation: .*'augmentation=\[flip,crop\]'$"),
    ("data=synthetic augmentation=flip", "data=synthetic: .*16 features.*waveforms$"),
    ("augmentation=crop augmentation.crop.padding=8", r"augmentation\.crop\.padding: 8 .*8x8.*less than 8$"),
    ("augmentation=crop resume=last", "resume: .*leave it out$"),
    ("augmentation=crop --count 0", "--count: 0 .*at least 1$"),
    ("augmentation=crop --draws -1", "--draws: -1 .*at least 1$"),
    ("augmentation=crop --count 65", "--count: 65 .*64 samples.*batch_size$"),
    ("augmentation=crop --out a.jpg", r"--out: a\.jpg .*\.png"),
    ("augmentation=crop --out text.png", r"--out: text\.png .*; choose another name$"),
    ("augmentation=crop --out folder.png", r"--out: folder\.png .*\(Is a directory\)$"),
    ("augmentation=crop --out text.png/a.png", r"--out: text\.png/a\.png .*\(Not a directory\)$"),
    ("-m augmentation=crop", "dltips show: .*-m; see dltips show --help$"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES, ids=[arguments for arguments, _ in MISTAKES])
def test_mistakes_are_one_line_and_leave_nothing(arguments: str, message: str, capsys: Output) -> None:
    Path("text.png").write_text("precious")
    Path("folder.png").mkdir()
    assert main(["show", *arguments.split()]) == 2
    out, err = capsys.readouterr()
    assert out == "" and re.search(f"^dltips: {message}", err) and err.count("\n") == 1
    assert sorted(path.name for path in Path().iterdir()) == ["folder.png", "text.png"]
    assert Path("text.png").read_text() == "precious"


@pytest.mark.parametrize(
    "arguments",
    [
        "augmentation=crop data.balance=sampling data.shuffle=false",
        "init=hee",
        "+recipe=typo",
        "regularization.dropout.p=0.3",
        "epochs=",
        "seed=x",
        "init=he,xavier",
        "a b",
        "x=${y}",
    ],
)
def test_a_config_that_cannot_be_trained_is_refused_in_the_same_words(arguments: str, capsys: Output) -> None:
    assert main(["train", *arguments.split()]) == 2
    said = capsys.readouterr()
    assert main(["show", *arguments.split()]) == 2
    assert capsys.readouterr() == said and said.err.count("\n") == 1
    assert not any(Path().iterdir())


def test_a_recipe_that_names_code_runs_none(capsys: Output) -> None:
    Path("recipes").mkdir()
    for text in (
        "hydra:\n  callbacks:\n    x:\n      _target_: pathlib.Path.touch\n      self: pwned\n",
        "name: ${oc.decode:3}\n",
        "data:\n  _target_: pathlib.Path.touch\n  self: pwned\n",
    ):
        Path("recipes/bad.yaml").write_text(text)
        assert main(["show", "+recipe=bad", "augmentation=crop"]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert not Path("pwned").exists()
