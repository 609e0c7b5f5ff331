"""Reads picture files of any format, mode and orientation as arrays; crops, resizes, turns gray into RGB or back."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy
import torch
from torch import Tensor
from torch.nn import functional

from dltips.errors import ConfigError

IMAGES_PER_CHUNK = 1024  # images of a tensor resized at a time,
VALUES_PER_CHUNK = 2**23  # and fewer if they are large: 32 MB of floats
# ITU-R 601-2 in 16 bits, to the bit what Pillow's convert("L") computes
LUMINANCE = (19595, 38470, 7471)
JPEG = (".jfif", ".jpe", ".jpeg", ".jpg")
SUFFIXES = frozenset((*JPEG, ".bmp", ".gif", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp"))
# only formats that Pillow decodes itself: an EPS file, whatever its name, would start Ghostscript
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TGA", "TIFF", "WEBP")
MOST_PIXELS = 80_000_000  # pixels: 240 MB as RGB, and several are decoded at a time
GRAY = frozenset(("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N"))
ORIENTATION = 0x0112  # the EXIF tag; from 5 on, width and height are exchanged

Result = TypeVar("Result")


class UnreadableError(Exception):
    """A file that is not a readable picture; the message gives the reason."""


@dataclass(frozen=True)
class Header:
    """The facts in the first bytes."""

    height: int
    width: int
    gray: bool


def read_header(file: Path) -> Header:
    """Reads the header. Raises UnreadableError."""
    with _OpenPicture(file) as image:
        width, height = image.size
        if image.getexif().get(ORIENTATION, 1) >= 5:
            width, height = height, width
        return Header(height, width, image.mode in GRAY)


def read_pixels(file: Path, gray: bool, size: tuple[int, int] | None) -> numpy.ndarray:
    """Returns (1 or 3, H, W) uint8: of an animation the first frame, turned as EXIF says, transparency as white.

    With a size (H, W): the largest centred rectangle of that form, resized (bilinear, antialiased where it shrinks).
    Raises UnreadableError.
    """
    from PIL import ImageOps
    from PIL.Image import Resampling

    with _OpenPicture(file) as image:
        if size is not None:
            # a JPEG is decoded at 1/2, 1/4 or 1/8 if that leaves twice the required pixels: several times as fast
            image.draft(image.mode, (2 * max(size), 2 * max(size)))
        ImageOps.exif_transpose(image, in_place=True)
        image = _in_mode(image, "L" if gray else "RGB")
        if size is not None and (image.height, image.width) != size:
            image = image.resize(
                (size[1], size[0]), Resampling.BILINEAR, box=_centred_box(image.width, image.height, size)
            )
        array = numpy.asarray(image)
    return array[None] if gray else array.transpose(2, 0, 1)


def resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Returns the complete uint8 images at the size (H, W), bilinear, antialiased where they shrink."""
    if tuple(images.shape[2:]) == size:
        return images
    resized = torch.empty((*images.shape[:2], *size), dtype=images.dtype)
    step = max(1, min(IMAGES_PER_CHUNK, VALUES_PER_CHUNK // (images.shape[1] * size[0] * size[1])))
    for start in range(0, len(images), step):
        part = images[start : start + step].float()
        part = functional.interpolate(part, size, mode="bilinear", antialias=True)
        resized[start : start + step] = part.round_().clamp_(0, 255)
    return resized


def luminance(images: Tensor) -> Tensor:
    """Returns RGB images (N, 3, H, W) uint8 as gray (N, 1, H, W): 0.299 R + 0.587 G + 0.114 B, rounded as in Pillow."""
    gray = torch.empty((len(images), 1, *images.shape[2:]), dtype=torch.uint8)
    for start in range(0, len(images), IMAGES_PER_CHUNK):
        red, green, blue = images[start : start + IMAGES_PER_CHUNK].int().unbind(1)
        weighed = LUMINANCE[0] * red + LUMINANCE[1] * green + LUMINANCE[2] * blue
        gray[start : start + IMAGES_PER_CHUNK, 0] = (weighed + 2**15) >> 16
    return gray


@dataclass(frozen=True)
class Form:
    """The target channels and sides (H, W) of uint8 images; gray becomes RGB, and RGB gray."""

    channels: int
    sides: tuple[int, int]

    def __call__(self, images: Tensor) -> Tensor:
        """Returns (N, channels, *sides) of (N, C, H, W); gray images repeated to RGB are a view without memory."""
        channels_before = images.shape[1]
        if channels_before == 3 and self.channels == 1:
            images = luminance(images)
        images = resize(images, self.sides)
        if channels_before == 1 and self.channels == 3:
            images = images.expand(-1, 3, -1, -1)
        assert images.shape[1] == self.channels, f"{channels_before} channels do not become {self.channels}"
        return images

    def bytes_from(self, channels: int) -> int:
        """Returns the bytes of an image that had so many channels."""
        return min(channels, self.channels) * self.sides[0] * self.sides[1]


def map_in_threads(function: Callable[[Path], Result], files: Sequence[Path]) -> list[Result | UnreadableError]:
    """Returns the function's result for each file, or the error. Pillow decodes outside the GIL: threads help."""

    def attempt(file: Path) -> Result | UnreadableError:
        try:
            return function(file)
        except UnreadableError as error:
            return error

    with warnings.catch_warnings(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        warnings.simplefilter("ignore")  # of odd EXIF, and of pictures that are merely large
        return list(pool.map(attempt, files))


def list_pictures(folder: Path) -> tuple[list[Path], list[Path]]:
    """Returns the picture files in a folder and its sub-folders, sorted, and the other files; hidden ones excluded.

    Raises ConfigError for a folder that cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise ConfigError(f"{error.filename}: cannot be read ({error.strerror}); check its permissions") from error

    files: list[Path] = []
    for inner, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        files += [Path(inner, name) for name in names if not is_hidden(name)]
    files.sort()
    pictures = [file for file in files if file.suffix.lower() in SUFFIXES]
    return pictures, [file for file in files if file.suffix.lower() not in SUFFIXES]


def is_hidden(name: str) -> bool:
    """Returns whether a file or folder is hidden or made by the system."""
    return name.startswith(".") or name in ("__MACOSX", "Thumbs.db", "desktop.ini")


def _centred_box(width: int, height: int, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Returns (left, top, right, bottom) of the largest centred rectangle of the size's form."""
    scale = min(width / size[1], height / size[0])
    # rounding may leave a negative value, which Pillow refuses: 225 - 225 / 224 * 224 = -3e-14
    across, down = max(0.0, width - scale * size[1]) / 2, max(0.0, height - scale * size[0]) / 2
    return across, down, width - across, height - down


def _in_mode(image: Any, mode: str) -> Any:
    """Removes palette, transparency and more than 8 bits."""
    from PIL import Image

    if image.mode == "F":
        raise UnreadableError("its pixels are floats")
    if image.mode.startswith("I"):
        samples = numpy.asarray(image).astype(numpy.float32)
        image = Image.fromarray(numpy.rint(samples / 257).clip(0, 255).astype(numpy.uint8))  # 65,535 is white
    if "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == mode else image.convert(mode)


class _OpenPicture:
    """Opens the picture for the block; any error inside becomes an UnreadableError."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.image: Any = None

    def __enter__(self) -> Any:
        from PIL import Image

        try:
            self.image = Image.open(self.file, formats=FORMATS)
        except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, struct.error and more
            raise UnreadableError(_kind_of_non_picture(self.file) or _reason(error)) from error
        width, height = self.image.size
        if width * height > MOST_PIXELS:
            self.image.close()
            raise UnreadableError(f"its {width}x{height} pixels are more than {MOST_PIXELS:,}; make it smaller")
        return self.image

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        self.image.close()
        if isinstance(error, Exception) and not isinstance(error, UnreadableError):
            raise UnreadableError(_reason(error)) from error


def _kind_of_non_picture(file: Path) -> str | None:
    """Returns the type of a file that is often mistaken for a picture."""
    try:
        with file.open("rb") as stream:
            start = stream.read(512).lstrip().lower()
    except OSError:
        return None
    if not start:
        return "it is empty"
    return "a web page, not a picture" if start.startswith((b"<!doctype html", b"<html")) else None


def _reason(error: Exception) -> str:
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return "not a picture"  # Pillow's text repeats the path
    return (getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__).rstrip(".")
