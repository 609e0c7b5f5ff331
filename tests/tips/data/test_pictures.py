"""Pictures: Pillow's own resizing and gray are the reference."""

from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image, UnidentifiedImageError

from dltips.tips.data import pictures
from dltips.tips.data.pictures import (
    Form,
    UnreadableError,
    list_pictures,
    luminance,
    map_in_threads,
    read_header,
    read_pixels,
    resize,
)

RANDOM = numpy.random.default_rng(0)


def picture(height: int = 12, width: int = 18) -> numpy.ndarray:
    return RANDOM.integers(0, 256, (height, width, 3), numpy.uint8)


def test_a_picture_as_it_is_and_its_header(tmp_path: Path) -> None:
    array = picture()
    Image.fromarray(array).save(tmp_path / "a.png")
    assert numpy.array_equal(read_pixels(tmp_path / "a.png", False, None), array.transpose(2, 0, 1))
    gray = numpy.asarray(Image.fromarray(array).convert("L"))
    assert numpy.array_equal(read_pixels(tmp_path / "a.png", True, None), gray[None])
    found = read_header(tmp_path / "a.png")
    assert (found.height, found.width) == (12, 18) and not found.gray


@pytest.mark.parametrize(
    ("size", "box"), [((6, 6), (3, 0, 15, 12)), ((4, 12), (0, 3, 18, 9)), ((12, 18), (0, 0, 18, 12))]
)
def test_the_largest_centred_rectangle_is_resized(
    tmp_path: Path, size: tuple[int, int], box: tuple[int, int, int, int]
) -> None:
    array = picture()
    Image.fromarray(array).save(tmp_path / "a.png")
    expected = Image.fromarray(array).resize(size[::-1], Image.Resampling.BILINEAR, box=box)
    assert numpy.array_equal(read_pixels(tmp_path / "a.png", False, size), numpy.asarray(expected).transpose(2, 0, 1))


@pytest.mark.parametrize("size", [(5, 7), (30, 20), (12, 18)])
def test_resized_images_are_pillow_s_to_a_level(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "IMAGES_PER_CHUNK", 2)  # so that there are several
    images = torch.from_numpy(numpy.stack([picture() for _ in range(5)])).permute(0, 3, 1, 2).contiguous()
    resized = resize(images, size)
    for ours, image in zip(resized, images, strict=True):
        theirs = Image.fromarray(image.permute(1, 2, 0).numpy()).resize(size[::-1], Image.Resampling.BILINEAR)
        gap = ours.permute(1, 2, 0).int() - torch.from_numpy(numpy.array(theirs)).int()
        assert int(gap.abs().max()) <= 1
    assert (resized is images) == (size == (12, 18))


def test_luminance_is_pillow_s_gray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "IMAGES_PER_CHUNK", 2)
    images = torch.from_numpy(numpy.stack([picture(40, 50) for _ in range(5)])).permute(0, 3, 1, 2).contiguous()
    expected = [numpy.asarray(Image.fromarray(image.permute(1, 2, 0).numpy()).convert("L")) for image in images]
    assert numpy.array_equal(luminance(images)[:, 0].numpy(), numpy.stack(expected))


def test_a_form_changes_channels_and_sides() -> None:
    images = torch.from_numpy(picture()).permute(2, 0, 1)[None].contiguous()
    gray = Form(1, (12, 18))(images)
    assert torch.equal(gray, luminance(images))
    colour = Form(3, (12, 18))(gray)
    assert torch.equal(colour, gray.expand(1, 3, 12, 18))
    assert torch.equal(Form(1, (6, 9))(images), resize(luminance(images), (6, 9)))
    assert torch.equal(Form(3, (12, 18))(images), images)


def test_files_are_read_in_their_order_and_what_cannot_be_is_its_error() -> None:
    def read(file: Path) -> str:
        if file.name == "b":
            raise UnreadableError("broken")
        return file.name

    first, second, third = map_in_threads(read, [Path("a"), Path("b"), Path("c")])
    assert (first, third) == ("a", "c")
    assert isinstance(second, UnreadableError) and str(second) == "broken"


def test_a_folder_s_pictures_and_what_else_lies_there(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / ".hidden").mkdir()
    for name in ("b.PNG", "a.jpg", "deep/c.png", ".hidden/d.png", "._e.png", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    found, others = list_pictures(tmp_path)
    assert [str(file.relative_to(tmp_path)) for file in found] == ["a.jpg", "b.PNG", "deep/c.png"]
    assert [file.name for file in others] == ["notes.txt"]


@pytest.mark.parametrize("suffix", sorted(pictures.SUFFIXES))
@pytest.mark.parametrize("content", [b"no picture", b"\x89PNG\r\n\x1a\n", b"II*\0", b"GIF89a", b"RIFF\0\0\0\0WEBP"])
def test_a_file_that_pillow_does_not_know_is_unreadable_and_no_other_error(
    tmp_path: Path, suffix: str, content: bytes
) -> None:
    file = tmp_path / f"a{suffix}"
    file.write_bytes(content)
    for read in (read_header, lambda path: read_pixels(path, False, (8, 8))):
        with pytest.raises(UnreadableError) as caught:
            read(file)
        assert str(file) not in str(caught.value)  # whoever reports it names the file
    if content == b"no picture":
        assert isinstance(caught.value.__cause__, UnidentifiedImageError)
