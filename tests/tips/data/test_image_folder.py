"""Folders of pictures as users have them: nested, mixed, turned, transparent, broken."""

import os
import re
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from dltips.errors import ConfigError
from dltips.tips.data import Source
from dltips.tips.data.image_folder import image_folder
from dltips.tips.data.pictures import UnreadableError, read_header, read_pixels

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "pictures"


def load(root: Path, **knobs: Any) -> Source:
    return image_folder(**{"root": str(root), "on_error": "refuse", "image_size": None, **knobs})


def save(path: Path, image: Image.Image | None = None, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    (image or Image.new("RGB", (4, 4), RED)).save(path, **options)
    return path


def noise(height: int, width: int, channels: int = 3) -> Image.Image:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return Image.fromarray(numpy.random.default_rng(0).integers(0, 256, shape, dtype=numpy.uint8))


def two_classes(root: Path, image: Image.Image, name: str = "a.png", **options: Any) -> Tensor:
    """The image as class `one` has it, beside another of class `two`. (C, H, W)"""
    save(root / "one" / name, image, **options)
    save(root / "two/b.png", Image.new("L" if image.mode in ("1", "L", "LA", "I;16") else "RGB", image.size))
    return load(root).inputs[0]


def test_each_folder_is_a_class_and_nested_pictures_belong_to_it(root: Path) -> None:
    save(root / "cat/1.png", Image.new("RGB", (4, 4), RED))
    save(root / "cat/deep/er/2.jpg", Image.new("RGB", (4, 4), RED))
    save(root / "ant/3.BMP", Image.new("RGB", (4, 4), GREEN))
    save(root / "dog/4.webp", Image.new("RGB", (4, 4), BLUE), lossless=True)
    source = load(root)
    assert source.classes == ("ant", "cat", "dog")
    assert source.targets.tolist() == [0, 1, 1, 2]
    assert source.inputs.shape == (4, 3, 4, 4) and source.inputs.dtype == torch.uint8
    assert source.inputs[:, :, 0, 0].argmax(1).tolist() == [1, 0, 0, 2]  # green, red, red, blue
    assert source.val_inputs is None and source.test_inputs is None and source.notes == ()


def test_pixels_are_what_the_file_holds(root: Path) -> None:
    image = noise(5, 7)
    assert torch.equal(two_classes(root, image), torch.from_numpy(numpy.array(image)).permute(2, 0, 1))


def test_train_val_and_test_are_official_splits(root: Path) -> None:
    for part, count in (("train", 3), ("val", 2), ("test", 1)):
        for label in ("a", "b"):
            for number in range(count):
                save(root / part / label / f"{number}.png")
    source = load(root)
    assert source.val_targets is not None and source.test_targets is not None
    assert source.targets.tolist() == [0, 0, 0, 1, 1, 1]
    assert source.val_targets.tolist() == [0, 0, 1, 1] and source.test_targets.tolist() == [0, 1]
    assert source.val_inputs is not None and source.val_inputs.shape == (4, 3, 4, 4)


def test_only_some_parts_may_be_official_and_validation_may_be_spelled_out(root: Path) -> None:
    for part in ("train", "validation"):
        for label in ("a", "b"):
            save(root / part / label / "1.png")
    source = load(root)
    assert source.val_inputs is not None and source.test_inputs is None
    save(root / "valid/a/1.png")
    with pytest.raises(ConfigError, match="valid/ and validation/; keep one"):
        load(root)


def test_a_class_may_be_called_train(root: Path) -> None:
    for label in ("car", "train", "plane"):
        save(root / label / "1.png")
    assert load(root).classes == ("car", "plane", "train")


@pytest.mark.parametrize("size", [(20, 30), (30, 20), (8, 100), (16, 16), (5, 10), (1, 3)])
def test_the_short_side_is_resized_and_the_centre_kept(root: Path, size: tuple[int, int]) -> None:
    height, width = size
    image = noise(height, width)
    save(root / "one/a.png", image)
    save(root / "two/a.png", image)
    found = load(root, image_size=8).inputs[0].float()
    pixels = torch.from_numpy(numpy.array(image)).permute(2, 0, 1)[None].float()
    whole = (8 * height / min(size), 8 * width / min(size))
    resized = functional.interpolate(pixels, tuple(map(int, whole)), mode="bilinear", antialias=True)[0]
    top, left = (resized.shape[1] - 8) // 2, (resized.shape[2] - 8) // 2
    expected = resized[:, top : top + 8, left : left + 8]
    assert float((found - expected).abs().max()) <= 1  # both round


@pytest.mark.parametrize("side", [24, 48, 100, 512])
def test_a_jpeg_decoded_at_a_fraction_is_as_sharp(root: Path, side: int) -> None:
    edges = numpy.zeros((side, side), numpy.uint8)
    edges[:, side // 2 :] = 255
    edges[: side // 3] = 128
    save(root / "one/a.jpg", Image.fromarray(edges), quality=100)
    save(root / "two/a.png", Image.fromarray(edges))
    source = load(root, image_size=24)
    # Pillow's reduced decoding is an average over whole pixels, ours on top is over at least two of them
    assert float((source.inputs[0].float() - source.inputs[1].float()).abs().mean()) <= 1.5


def test_mixed_sizes_without_image_size_name_two_and_the_remedy(root: Path) -> None:
    save(root / "a/1.png", Image.new("RGB", (4, 6)))
    save(root / "b/2.png", Image.new("RGB", (8, 5)))
    sizes = r"\(a/1\.png has 4x6 pixels, b/2\.png has 8x5 pixels\)"
    with pytest.raises(ConfigError, match=rf"^data\.image_size: .*{sizes}; write data\.image_size=64$"):
        load(root)
    assert load(root, image_size=4).inputs.shape == (2, 3, 4, 4)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_as_exif_says(root: Path, orientation: int) -> None:
    upright = noise(6, 4)
    turned = {1: [], 2: [0], 3: [3], 4: [1], 5: [5], 6: [2], 7: [6], 8: [4]}[orientation]  # how a camera stores it
    stored = upright
    for operation in turned:
        stored = stored.transpose(Image.Transpose(operation))
    exif = Image.Exif()
    exif[0x0112] = orientation
    save(root / "one/a.png", stored, exif=exif)
    save(root / "two/a.png", upright)
    source = load(root)  # without image_size: the header's size is turned too
    assert torch.equal(source.inputs[0], source.inputs[1])


def test_gray_stays_gray_only_if_all_are(root: Path) -> None:
    save(root / "a/1.png", Image.new("L", (4, 4), 100))
    save(root / "b/2.png", Image.new("1", (4, 4), 1))
    gray = load(root)
    assert gray.inputs.shape == (2, 1, 4, 4)
    assert gray.inputs[:, 0, 0, 0].tolist() == [100, 255]
    save(root / "b/3.png")
    mixed = load(root)
    assert mixed.inputs.shape == (3, 3, 4, 4)
    assert mixed.inputs[0, :, 0, 0].tolist() == [100, 100, 100]


def test_what_is_transparent_is_white(root: Path) -> None:
    assert two_classes(root, Image.new("RGBA", (4, 4), (255, 0, 0, 0)))[:, 0, 0].tolist() == [255, 255, 255]
    half = two_classes(root, Image.new("RGBA", (4, 4), (255, 0, 0, 51)))[:, 0, 0].tolist()
    assert half == [255, 204, 204]  # a fifth of red on white


def test_gray_with_transparency_is_gray(root: Path) -> None:
    found = two_classes(root, Image.new("LA", (4, 4), (0, 255)))
    assert found.shape == (1, 4, 4) and int(found.max()) == 0


def test_a_palette_becomes_its_colours_and_its_transparent_one_white(root: Path) -> None:
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 0, 0, 255])
    assert two_classes(root, palette)[:, 0, 0].tolist() == [0, 0, 255]
    assert two_classes(root, palette, transparency=1)[:, 0, 0].tolist() == [255, 255, 255]


def test_16_bits_become_8(root: Path) -> None:
    levels = numpy.array([[0, 257, 65535, 200 * 257]] * 2, dtype=numpy.uint16)
    assert two_classes(root, Image.fromarray(levels))[0, 0].tolist() == [0, 1, 255, 200]


def test_cmyk_becomes_rgb(root: Path) -> None:
    found = two_classes(root, Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "a.jpg", quality=100)
    assert found[0].min() > 240 and found[1:].max() < 15


def test_of_an_animation_the_first_frame(root: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in (GREEN, RED)]
    found = two_classes(root, frames[0], "a.gif", save_all=True, append_images=frames[1:])
    assert found[:, 0, 0].tolist() == [0, 255, 0]


# What is broken, or not what it should be.


@pytest.fixture
def broken(root: Path) -> Path:
    """Two classes with two pictures each, and a picture that breaks off."""
    for label in ("a", "b"):
        for number in (1, 2):
            save(root / label / f"{number}.png", noise(16, 16))
    file = save(root / "b/3.jpg", noise(16, 16))
    file.write_bytes(file.read_bytes()[:-200])
    return file


def test_a_broken_picture_is_refused_by_name(root: Path, broken: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(root)
    assert str(caught.value).startswith(f"data.root: {broken} cannot be read (")
    assert str(caught.value).endswith("); fix or delete it, or write data.on_error=skip")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (b" \n", "it is empty"),
        (b"no picture at all", "not a picture"),
        (bytes(5000), "not a picture"),
        (b"\n<!DOCTYPE html>\n<html><body>404</body></html>", "a web page, not a picture"),
        (b"<HTML><body>Sign in</body></HTML>", "a web page, not a picture"),
        (b"\x89PNG\r\n\x1a\n", "not a picture"),
    ],
)
def test_a_file_that_is_no_picture_is_refused_by_name(root: Path, broken: Path, content: bytes, reason: str) -> None:
    broken.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"^data\.root: {broken} .*\({reason}\); .*data\.on_error=skip$"):
        load(root)


def test_a_folder_with_a_picture_s_name_is_a_folder(root: Path, broken: Path) -> None:
    broken.unlink()
    broken.mkdir()
    assert load(root).targets.tolist() == [0, 0, 1, 1]
    save(broken / "3.png", noise(16, 16))
    assert load(root).targets.tolist() == [0, 0, 1, 1, 1]


@pytest.mark.parametrize("size", [(300, 225), (225, 300), (225, 225)])
def test_a_size_whose_quotient_rounds_up_is_read_too(root: Path, size: tuple[int, int]) -> None:
    assert 225 - 225 / 224 * 224 < 0  # the left of the box, as floats have it
    for label in ("a", "b"):
        save(root / label / "1.png", noise(*size))
    assert load(root, image_size=224).inputs.shape == (2, 3, 224, 224)


def test_a_broken_picture_is_skipped_and_said_in_every_run(root: Path, broken: Path) -> None:
    (root / "a/4.png").write_text("no picture")
    for _ in range(2):  # the second time from the cache
        source = load(root, on_error="skip")
        assert source.targets.tolist() == [0, 0, 1, 1]
        assert len(source.notes) == 1
        assert re.search(r"^data\.root: .*left out, 2: a/4\.png \(.*\), b/3\.jpg \(", source.notes[0])


def test_a_class_without_one_readable_picture_is_refused(root: Path, broken: Path) -> None:
    (root / "c").mkdir()
    (root / "c/1.png").write_text("no picture")
    with pytest.raises(ConfigError, match=rf"^data\.root: .*{root / 'c'} .*delete them"):
        load(root, on_error="skip")


def test_a_link_to_nothing_is_a_picture_that_cannot_be_read(root: Path, broken: Path) -> None:
    broken.unlink()
    broken.symlink_to("nowhere.jpg")
    with pytest.raises(ConfigError, match=r"b/3\.jpg cannot be read \(No such file or directory\)"):
        load(root)


def test_a_picture_too_large_to_be_one_is_named(root: Path, broken: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken.unlink()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow refuses twice as many, 256 > 200
    with pytest.raises(ConfigError, match=r"cannot be read .*decompression bomb"):
        load(root)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)  # and warns of fewer, which is not one of ours
    assert len(load(root).targets) == 4


def test_other_files_are_left_out_and_said_and_hidden_ones_are_not_even_said(root: Path) -> None:
    for label in ("a", "b"):
        save(root / label / "1.png")
    assert load(root).notes == ()
    for hidden in (".DS_Store", "a/.thumb.png", "b/Thumbs.db", ".git/c.png", "a/.hidden/c.png"):
        (root / hidden).parent.mkdir(exist_ok=True)
        (root / hidden).write_text("x")
    assert load(root).notes == ()
    for other in ("README.txt", "a/labels.csv"):
        (root / other).write_text("x")
    (root / "empty").mkdir()
    for _ in range(2):
        source = load(root)
        empty, others = source.notes
        assert re.search(rf"^data\.root: {root / 'empty'} .*left out$", empty)
        assert re.search(rf"^data\.root: {root} .*left out: a/labels\.csv, README\.txt$", others)
        assert len(source.targets) == 2


def test_a_changed_added_or_renamed_picture_is_read_again(root: Path) -> None:
    for label in ("a", "b"):
        save(root / label / "1.bmp")
    hashes = [load(root).hash, load(root).hash]
    save(root / "a/1.bmp", Image.new("RGB", (4, 4), BLUE))  # of the same size in bytes
    hashes.append(load(root).hash)
    save(root / "a/2.png")
    hashes.append(load(root).hash)
    (root / "a/2.png").rename(root / "b/2.png")
    hashes.append(load(root).hash)
    assert hashes[0] == hashes[1] and len(set(hashes)) == 4


def test_a_root_that_is_none_is_refused_in_one_line(root: Path, tmp_path: Path) -> None:
    remedy = "give the folder that holds a folder of pictures per class, data.root=PATH"
    with pytest.raises(ConfigError) as caught:
        image_folder(root=None, on_error="refuse", image_size=None)
    assert str(caught.value) == f"data.root: is missing; {remedy}"
    with pytest.raises(ConfigError) as caught:
        load(root)
    assert str(caught.value) == f"data.root: {root} does not exist; {remedy}"
    root.write_text("")
    with pytest.raises(ConfigError) as caught:
        load(root)
    assert str(caught.value) == f"data.root: {root} is a file; {remedy}"


def test_folders_that_are_no_classes_are_refused_in_one_line(root: Path) -> None:
    root.mkdir()
    remedy = "put the pictures of each class into a folder of its name"
    with pytest.raises(ConfigError) as caught:
        load(root)
    assert str(caught.value) == f"data.root: {root} holds no folders with pictures; {remedy}"
    save(root / "1.png")
    with pytest.raises(ConfigError) as caught:
        load(root)
    assert str(caught.value) == f"data.root: {root} has files, but no folders with pictures; {remedy}"
    save(root / "cat/1.png")
    with pytest.raises(ConfigError) as caught:
        load(root)
    assert str(caught.value) == f"data.root: {root} holds one class only (cat); there must be two"


def test_a_folder_that_cannot_be_read_is_not_passed_over(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for label in ("a", "b"):
        save(root / label / "1.png")
    scandir = os.scandir

    def denied(folder: Any) -> Any:  # as root, permissions would stop nobody
        if Path(folder).name == "b":
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(ConfigError) as caught:
        load(root)
    assert str(caught.value) == f"{root / 'b'}: cannot be read (Permission denied); check its permissions"


def test_a_class_that_only_val_has_is_refused(root: Path) -> None:
    for folder in ("train/a", "train/b", "val/a", "val/c"):
        save(root / folder / "1.png")
    with pytest.raises(ConfigError, match=rf"^data\.root: {root}/val/c .*{root}/train .*: a, b$"):
        load(root)


@pytest.mark.parametrize(
    "content", [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"\xc5\xd0\xd3\xc6" + bytes(60)]
)
def test_a_file_that_would_start_another_program_is_no_picture(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(content)
    with pytest.raises(UnreadableError, match=r"^not a picture$"):
        read_pixels(file, False, None)


def test_a_picture_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    Image.new("1", (9_000, 9_000)).save(file)
    with pytest.raises(UnreadableError, match=r"9000x9000 .*80,000,000; .*smaller$"):
        read_header(file)
