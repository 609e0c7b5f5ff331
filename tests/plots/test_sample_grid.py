from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image

from dltips.plots.sample_grid import SMALL, SampleRow, draw_grid, envelope


def pixels(path: Path) -> numpy.ndarray:
    with Image.open(path) as image:
        return numpy.asarray(image.convert("RGB"))


def places(picture: numpy.ndarray, block: numpy.ndarray) -> list[tuple[int, int]]:
    """(top, left) of wherever the picture holds the block."""
    height, width, _ = block.shape
    corners = numpy.argwhere((picture == block[0, 0]).all(-1))
    return [(int(y), int(x)) for y, x in corners if numpy.array_equal(picture[y : y + height, x : x + width], block)]


@pytest.mark.parametrize(("channels", "side"), [(1, 8), (3, 8), (1, 28), (1, 63), (3, 32), (3, 160)])
def test_each_pixel_is_a_square_of_its_own_level(channels: int, side: int, tmp_path: Path) -> None:
    images = torch.randint(256, (2, 3, channels, side, side), dtype=torch.uint8)
    names = ("original", "all")
    draw_grid(
        [SampleRow(name, row / 255) for name, row in zip(names, images, strict=True)], tmp_path / "a.png", "title"
    )
    picture = pixels(tmp_path / "a.png")
    factor = max(1, round(SMALL / side))
    found = []
    for image in images.flatten(0, 1):
        colors = image.expand(3, -1, -1).permute(1, 2, 0).numpy()
        (place,) = places(picture, colors.repeat(factor, 0).repeat(factor, 1))
        found.append(place)
    (first, second), lefts = {y for y, _ in found}, [x for _, x in found]
    assert {y for y, _ in found[:3]} == {min(first, second)} and lefts[:3] == lefts[3:] == sorted(lefts[:3])
    assert lefts[1] - lefts[0] == lefts[2] - lefts[1] > side * factor  # a gap between them


def test_levels_beyond_black_and_white_are_drawn_as_these(tmp_path: Path) -> None:
    draw_grid(
        [SampleRow("original", torch.tensor([-0.5, 1.5]).repeat_interleave(64).reshape(1, 1, 16, 8))],
        tmp_path / "a.png",
        "",
    )
    dark, bright = numpy.zeros((48, 48, 3)), numpy.full((48, 48, 3), 255)
    assert places(pixels(tmp_path / "a.png"), numpy.concatenate([dark, bright]))


def test_a_large_image_is_shrunk_and_keeps_its_form(tmp_path: Path) -> None:
    draw_grid([SampleRow("original", torch.zeros(1, 3, 400, 200))], tmp_path / "a.png", "")
    dark = (pixels(tmp_path / "a.png") == 0).all(-1)
    assert places(pixels(tmp_path / "a.png"), numpy.zeros((160, 80, 3)))
    assert dark.sum() < 160 * 80 * 1.1


def test_labels_notes_and_captions_make_room_for_themselves(tmp_path: Path) -> None:
    images = torch.rand(4, 1, 8, 8)
    sizes = []
    for label, notes, captions in (
        ("a", (), ()),
        ("a much longer label", (), ()),
        ("a", [f"knob {n}" for n in range(9)], ()),
        ("a", (), [["cat 70 %", "dog 30 %"]] * 4),
    ):
        draw_grid(
            [SampleRow("original", images), SampleRow(label, images, notes, captions)], tmp_path / "a.png", "title"
        )
        height, width, _ = pixels(tmp_path / "a.png").shape
        sizes.append((width, height))
    plain, wide, *tall = sizes
    assert wide[0] > plain[0] and wide[1] == plain[1]
    assert all(size[1] > plain[1] for size in tall)


def test_waveforms_are_curves_on_one_scale(tmp_path: Path) -> None:
    time = torch.arange(4000) / 4000
    loud = torch.sin(40 * torch.pi * time)
    silent = torch.zeros(4000)
    draw_grid(
        [SampleRow(name, torch.stack([loud, 0.5 * loud, silent])[:, None]) for name in "ab"], tmp_path / "a.png", ""
    )
    picture = pixels(tmp_path / "a.png").astype(int)
    for channel in (0, 2):  # red curves below blue ones: the originals
        other = 2 - channel
        mask = picture[..., channel] - picture[..., other] > 100
        columns = numpy.flatnonzero(mask.any(0))
        edges = numpy.flatnonzero(numpy.diff(columns) > 1)
        heights = [numpy.ptp(numpy.flatnonzero(mask[:, part].any(1))) for part in numpy.split(columns, edges + 1)]
        assert len(heights) == 3
        assert heights[0] == pytest.approx(2 * heights[1], abs=3) and heights[0] > 50 and heights[2] <= 2
    rows = [numpy.flatnonzero((picture[..., c] - picture[..., 2 - c] > 100).any(1)).mean() for c in (2, 0)]
    assert rows[0] < rows[1]


def test_a_long_wave_keeps_its_peaks() -> None:
    wave = torch.zeros(100_000)
    wave[12_345], wave[77_777] = 1, -1
    drawn = envelope(wave, 150)
    assert len(drawn) == 300 and (drawn.max(), drawn.min()) == (1, -1) and drawn.count_nonzero() == 2
    assert envelope(wave[:600], 150) is not None and torch.equal(envelope(wave[:600], 150), wave[:600])


def test_a_name_with_signs_that_the_font_lacks_is_no_error(tmp_path: Path) -> None:
    row = SampleRow("猫 $x$", torch.rand(1, 1, 8, 8), ["$\\frac"], [["猫" * 50]])
    draw_grid([row], tmp_path / "a.png", "$^{")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
