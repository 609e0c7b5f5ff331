"""What the data are brought to: the size, the channels and the classes that the user or a pretrained net wants."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from dltips.catalog.registry import Tip
from dltips.errors import ConfigError
from dltips.feed.load import RequiredInputs, load
from dltips.feed.splits import split
from dltips.tips.data import DataKnobs, Source
from dltips.tips.data.image_folder import image_folder
from dltips.tips.data.pictures import Form, luminance, resize


def common(image_size: int | None = None, **knobs: Any) -> DataKnobs:
    usual = {
        "split_seed": 0,
        "val_fraction": 0.1,
        "test_fraction": 0.1,
        "shuffle": True,
        "subset": None,
        "per_class": None,
        "only_classes": None,
        "image_size": image_size,
        "label_noise": 0.0,
        "balance": "none",
        "expand": 0,
        "placement": "auto",
    }
    return DataKnobs(**{**usual, **knobs})


def images(count: int = 5, channels: int = 3, height: int = 12, width: int = 9) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, channels, height, width), dtype=torch.uint8, generator=generator)


def source(**parts: Any) -> Source:
    return Source(
        **{"inputs": images(), "targets": torch.zeros(5, dtype=torch.int64), "hash": "x", "classes": (), **parts}
    )


@pytest.mark.parametrize("size", [(4, 4), (6, 9), (12, 9), (20, 31), (1, 1), (128, 4)])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_resize_is_torchvision_s_bilinear_antialiased_one(size: tuple[int, int], channels: int) -> None:
    found = resize(images(channels=channels), size)
    # on floats, rounded once at the end, as exactly as can be
    expected = v2.functional.resize(
        images(channels=channels).double(), list(size), interpolation=v2.InterpolationMode.BILINEAR, antialias=True
    )
    assert found.dtype == torch.uint8 and found.is_contiguous()
    assert float((found.double() - expected).abs().max()) <= 0.5 + 1e-4


def test_it_is_pillow_s_within_a_level() -> None:
    whole = images(height=40, width=40)
    for image, found in zip(whole, resize(whole, (13, 13)), strict=True):
        picture = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((13, 13), Image.Resampling.BILINEAR)
        assert numpy.abs(numpy.array(picture).astype(int) - found.permute(1, 2, 0).numpy()).max() <= 1


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = resize(images(7), (5, 5))
    monkeypatch.setattr("dltips.tips.data.pictures.IMAGES_PER_CHUNK", 3)
    assert torch.equal(resize(images(7), (5, 5)), whole)


def test_a_flat_image_stays_flat() -> None:
    for level in (0, 77, 255):
        assert resize(torch.full((2, 3, 9, 9), level, dtype=torch.uint8), (4, 17)).unique().tolist() == [level]


def test_large_images_are_resized_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, counts = resize(images(7), (5, 5)), []
    interpolate = torch.nn.functional.interpolate

    def counted(part: Tensor, *arguments: Any, **knobs: Any) -> Tensor:
        counts.append(len(part))
        return interpolate(part, *arguments, **knobs)

    monkeypatch.setattr(torch.nn.functional, "interpolate", counted)
    monkeypatch.setattr("dltips.tips.data.pictures.VALUES_PER_CHUNK", 2 * 3 * 5 * 5)
    assert torch.equal(resize(images(7), (5, 5)), whole) and counts == [2, 2, 2, 1]
    monkeypatch.setattr("dltips.tips.data.pictures.VALUES_PER_CHUNK", 1)
    assert torch.equal(resize(images(7), (5, 5)), whole)


def test_every_part_has_the_size_and_the_hash_tells() -> None:
    parts = {name: images(3) for name in ("val_inputs", "test_inputs")}
    whole = source(**parts, val_targets=torch.zeros(3).long(), test_targets=torch.zeros(3).long())
    loaded = load(lambda: whole, common(6))
    splits = split(loaded, common(6))
    for name, part in (("inputs", splits.train), ("val_inputs", splits.val), ("test_inputs", splits.test)):
        order = split(whole, common()).train.indices if name == "inputs" else slice(None)
        assert torch.equal(part.taken().inputs, resize(getattr(whole, name), (6, 6))[order])
    assert loaded.hash == "x-6" and load(lambda: whole, common(7)).hash == "x-7"
    assert loaded.targets is whole.targets and loaded.notes == ()


def test_without_a_size_or_with_the_source_s_own_nothing_is_touched() -> None:
    square = source(inputs=images(height=8, width=8))
    assert load(lambda: square, common(None)) is square
    assert load(lambda: square, common(8)) is square


@pytest.mark.parametrize("inputs", [torch.zeros(5, 4), torch.zeros(5, 1, 100)])
def test_what_is_no_image_is_refused(inputs: Tensor) -> None:
    shape = tuple(inputs.shape[1:])
    with pytest.raises(ConfigError, match=rf"^data\.image_size: .*{re.escape(str(shape))}; leave it out$"):
        load(lambda: replace(source(), inputs=inputs), common(8))


# What a net with weights wants.


def test_luminance_is_pillow_s_to_the_bit() -> None:
    """All levels of each colour, and 100,000 mixtures: ITU-R 601-2, 0.299 R + 0.587 G + 0.114 B, rounded."""
    ramps = torch.zeros(3, 3, 256, dtype=torch.uint8)
    for channel in range(3):
        ramps[channel, channel] = torch.arange(256)
    generator = torch.Generator().manual_seed(0)
    mixed = torch.randint(0, 256, (3, 100_000), dtype=torch.uint8, generator=generator)
    whole = torch.cat([ramps.permute(1, 0, 2).reshape(3, -1), mixed], 1)[None, :, :, None]  # (1, 3, N, 1)
    found = luminance(whole)
    pillow = Image.fromarray(whole[0].permute(1, 2, 0).contiguous().numpy()).convert("L")
    assert numpy.array_equal(found[0, 0].numpy(), numpy.asarray(pillow))
    exact = (whole.double() * torch.tensor([0.299, 0.587, 0.114])[None, :, None, None]).sum(1, keepdim=True)
    assert float((found.double() - exact).abs().max()) < 0.51


GRAY = "data: gray pictures are repeated to 3 channels, as the pretrained net wants"
COLOUR = "data: RGB pictures become gray ones (ITU-R 601), as the pretrained net wants"
SIZE = "data: images of 9x12 are resized to 6x5, as the pretrained net wants"


@pytest.mark.parametrize(
    ("channels", "wanted", "form", "notes", "hash"),
    [
        (1, RequiredInputs(3, None, None), Form(3, (12, 9)), (GRAY,), "x-3c"),
        (3, RequiredInputs(1, None, None), Form(1, (12, 9)), (COLOUR,), "x-1c"),
        (3, RequiredInputs(None, (5, 6), None), Form(3, (5, 6)), (SIZE,), "x-6x5"),
        (1, RequiredInputs(3, (5, 6), None), Form(3, (5, 6)), (SIZE, GRAY), "x-6x5-3c"),
        (3, RequiredInputs(None, None, (1, 5, 6)), Form(1, (5, 6)), (SIZE, COLOUR), "x-6x5-1c"),
    ],
)
def test_images_are_brought_to_what_the_net_wants_and_it_is_said(
    channels: int, wanted: RequiredInputs, form: Form, notes: tuple[str, ...], hash: str
) -> None:
    whole = source(inputs=images(channels=channels))
    loaded = load(lambda: whole, common(), wanted)
    assert (loaded.form, loaded.notes, loaded.hash) == (form, notes, hash)
    assert loaded.inputs is whole.inputs  # not before a split asks for them
    own = images(channels=channels)
    gray = luminance(own) if form.channels < channels else own
    assert torch.equal(form(own), resize(gray, form.sides).expand(-1, form.channels, -1, -1))


@pytest.mark.parametrize(
    "wanted",
    [
        None,
        RequiredInputs(None, None, None),
        RequiredInputs(3, None, None),
        RequiredInputs(3, (12, 9), None),
        RequiredInputs(None, None, (3, 12, 9)),
    ],
)
def test_what_the_net_wants_already_is_not_touched(wanted: RequiredInputs | None) -> None:
    whole = source()
    assert load(lambda: whole, common(), wanted) is whole


def test_gray_repeated_takes_no_memory() -> None:
    repeated = Form(3, (24, 24))(images(channels=1))
    assert repeated.shape == (5, 3, 24, 24) and repeated.untyped_storage().nbytes() == 5 * 24 * 24


@pytest.mark.parametrize("wanted", [RequiredInputs(3, (12, 9), None), RequiredInputs(None, None, (3, 12, 9))])
def test_image_size_wins_over_the_sides_of_the_weights_and_it_is_said(wanted: RequiredInputs) -> None:
    loaded = load(lambda: source(), common(6), wanted)
    assert loaded.form == Form(3, (6, 6)) and loaded.hash == "x-6"
    assert loaded.notes == (
        "data: images are of 6x6, as data.image_size says, though the pretrained net was made for 9x12",
    )
    assert load(lambda: source(), common(6), RequiredInputs(3, (6, 6), None)).notes == ()


@pytest.mark.parametrize(
    ("inputs", "wanted", "takes"),
    [
        (torch.zeros(5, 4), RequiredInputs(None, None, (3,)), "(3,)"),
        (torch.zeros(5, 4), RequiredInputs(3, (8, 8), (3, 8, 8)), "(3, 8, 8)"),
        (torch.zeros(5, 1, 100), RequiredInputs(None, None, (1, 200)), "(1, 200)"),
        (torch.zeros(5, 1, 100), RequiredInputs(3, (8, 8), None), "images"),
        (images(), RequiredInputs(None, None, (64,)), "(64,)"),
        (images(channels=2), RequiredInputs(3, None, None), "images of 3 channels"),
        (images(channels=3), RequiredInputs(None, None, (2, 12, 9)), "images of 2 channels"),
    ],
)
def test_samples_that_cannot_become_what_the_net_takes_are_refused(
    inputs: Tensor, wanted: RequiredInputs, takes: str
) -> None:
    with pytest.raises(
        ConfigError,
        match=rf"^data: .*{re.escape(str(tuple(inputs.shape[1:])))}.* {re.escape(takes)}; .*finetune\.source$",
    ):
        load(lambda: source(inputs=inputs), common(), wanted)


def test_vectors_of_the_very_shape_are_taken() -> None:
    whole = source(inputs=torch.zeros(5, 4))
    assert load(lambda: whole, common(), RequiredInputs(None, None, (4,))) is whole


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tip:
    """Pictures of two sizes, which image_folder reads at one alone."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for label, (height, width) in (("a", (20, 30)), ("b", (40, 16))):
        (tmp_path / "pictures" / label).mkdir(parents=True)
        picture = images(1, height=height, width=width)[0].permute(1, 2, 0).numpy()
        Image.fromarray(picture).save(tmp_path / "pictures" / label / "1.png")
    knobs = {"root": str(tmp_path / "pictures"), "on_error": "refuse", "image_size": None}
    return Tip("data", "image_folder", image_folder, knobs)


def test_pictures_of_several_sizes_are_read_at_the_net_s(folder: Tip) -> None:
    loaded = load(folder, common(), RequiredInputs(3, (8, 8), None))
    at_once = image_folder(**{**folder.knobs, "image_size": 8})
    assert torch.equal(loaded.inputs, at_once.inputs) and loaded.form is None and loaded.hash == at_once.hash
    assert loaded.notes == ("data: pictures are read at 8x8, as the pretrained net wants",)
    evaluated = load(folder, common(), RequiredInputs(None, None, (3, 8, 8)))  # the shape as a checkpoint has it
    assert torch.equal(evaluated.inputs, at_once.inputs) and evaluated.form is None


def test_pictures_of_several_sizes_are_cut_to_no_other_form_than_a_square(folder: Tip) -> None:
    with pytest.raises(
        ConfigError, match=r"^data\.image_size: the pictures differ in size .*write data\.image_size=64$"
    ):
        load(folder, common(), RequiredInputs(3, (8, 12), None))
    sized = replace(folder, knobs={**folder.knobs, "image_size": 16})
    loaded = load(sized, common(16), RequiredInputs(3, (8, 8), None))
    assert loaded.inputs.shape[2:] == (16, 16) and loaded.form is None
    assert loaded.notes[0].startswith("data: images are of 16x16, as data.image_size says")


# Some of the classes.


def clothes(**parts: Any) -> Source:
    """Each sample is its own number, its class the last digit's half."""
    numbers = torch.arange(50)
    return Source(
        **{"inputs": numbers[:, None].float(), "targets": numbers % 5, "hash": "x", **parts},
        classes=("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    )


@pytest.mark.parametrize("chosen", [("Dress", "Trouser"), (3, 1), ("Dress", 1)])
def test_only_these_classes_are_left_and_renumbered_as_given(chosen: tuple[int | str, ...]) -> None:
    numbers = torch.arange(-7, 0)
    official = {"test_inputs": numbers[:, None].float(), "test_targets": numbers % 5}
    whole = clothes(**official, notes=("one",))
    loaded = load(lambda: whole, common(only_classes=chosen))
    assert loaded.classes == ("Dress", "Trouser") and loaded.notes == ("one",)
    assert loaded.test_inputs is not None and loaded.test_targets is not None and loaded.val_inputs is None
    for inputs, targets, expected in (
        (loaded.inputs, loaded.targets, [number for number in range(50) if number % 5 in (3, 1)]),
        (loaded.test_inputs, loaded.test_targets, [number for number in range(-7, 0) if number % 5 in (3, 1)]),
    ):
        assert inputs.flatten().tolist() == expected
        assert targets.tolist() == [{3: 0, 1: 1}[number % 5] for number in expected]
    assert whole.targets.tolist() == [number % 5 for number in range(50)]


def test_the_hash_tells_which_classes_in_which_order() -> None:
    choices = [None, (0, 1), (1, 0), (0, 2), (0, 1, 2)]
    hashes = [load(clothes, common(only_classes=chosen)).hash for chosen in choices]
    assert len(set(hashes)) == 5
    assert load(clothes, common(only_classes=("T-shirt/top", "Trouser"))).hash == hashes[1]


def test_all_classes_in_their_order_are_the_source_itself() -> None:
    whole = clothes()
    assert load(lambda: whole, common(only_classes=(0, 1, 2, 3, 4))) is whole


def test_a_number_is_a_position_unless_a_class_has_that_name() -> None:
    years = replace(clothes(), classes=("2019", "2020", "1", "x", "y"))
    assert load(lambda: years, common(only_classes=(2020, 3))).classes == ("2020", "x")
    assert load(lambda: years, common(only_classes=(1, 0))).classes == ("1", "2019")


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (("Trouser", "Dres"), "'Dres' .*did you mean Dress\\?$"),
        (
            ("Trouser", "boat anchor"),
            "'boat anchor' .*: Coat, Dress, Pullover, T-shirt/top, Trouser$",
        ),
        (
            (1, 5),
            "5 .*position from 0 to 4; .*: Coat, Dress, Pullover, T-shirt/top, Trouser$",
        ),
        (
            (-1, 1),
            "-1 .*position from 0 to 4; .*: Coat, Dress, Pullover, T-shirt/top, Trouser$",
        ),
        (("Trouser",), ".*two or more, or null for all$"),
        ((), ".*two or more, or null for all$"),
        (("Trouser", 3, 1), "Trouser .*twice; give each class once$"),
    ],
)
def test_classes_that_cannot_be_are_refused(chosen: tuple[int | str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=rf"^data\.only_classes: {message}"):
        load(clothes, common(only_classes=chosen))


def test_samples_of_some_classes_are_copied_once(monkeypatch: pytest.MonkeyPatch) -> None:
    copied: list[int] = []
    select = torch.Tensor.index_select

    def counted(self: Tensor, *arguments: Any) -> Tensor:
        result = select(self, *arguments)
        copied.append(result.numel())
        return result

    monkeypatch.setattr(torch.Tensor, "index_select", counted)
    loaded = load(lambda: source(targets=torch.arange(5) % 3, classes=("a", "b", "c")), common(only_classes=(0, 2)))
    assert copied == [loaded.inputs.numel()] and len(loaded.inputs) == 3
    assert loaded.inputs.untyped_storage().nbytes() == loaded.inputs.numel()
