"""Predictions of new files: their order, their probabilities, and what cannot be predicted."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from PIL import Image
from torch import Tensor

from dltips.errors import ConfigError
from dltips.use.predict import predict


def digits(count: int) -> Tensor:
    return torch.randint(256, (count, 1, 8, 8), dtype=torch.uint8)


def save_images(images: Tensor, into: Path) -> Path:
    into.mkdir(parents=True)
    for number, image in enumerate(images):
        Image.fromarray(image.squeeze(0).numpy()).save(into / f"{number:04}.png")
    return into


def test_several_paths_are_read_in_the_order_given(run: str) -> None:
    images = digits(3)
    save_images(images, Path("images"))
    numpy.savez("some.npz", images=images[:2].squeeze(1).numpy())
    found = predict(run, ["some.npz", "images/0002.png", "images"], None, "best", "cpu")["predictions"]
    names = ["some.npz[0]", "some.npz[1]", "images/0002.png", *(f"images/000{number}.png" for number in range(3))]
    assert [entry["name"] for entry in found] == names
    assert found[1]["top"] == found[4]["top"] and found[2]["top"] == found[5]["top"]


def test_a_distribution_falls_and_adds_up_to_one(run: str) -> None:
    save_images(digits(5), Path("images"))
    for entry in predict(run, ["images"], 10, "best", "cpu")["predictions"]:
        shares = [one["probability"] for one in entry["top"]]
        assert shares == sorted(shares, reverse=True) and sum(shares) == pytest.approx(1, abs=1e-12)
        assert sorted(one["class"] for one in entry["top"]) == [str(digit) for digit in range(10)]


def test_without_a_number_three_classes_are_given_and_no_more_than_there_are(run: str) -> None:
    save_images(digits(1), Path("images"))
    (entry,) = predict(run, ["images"], None, "best", "cpu")["predictions"]
    assert len(entry["top"]) == 3
    for top in (0, 11):
        with pytest.raises(ConfigError, match=rf"^--top: {top} .*1 to 10"):
            predict(run, ["images"], top, "best", "cpu")


def altered(run: str, change: Callable[[dict[str, Any]], Any]) -> None:
    payload = torch.load(Path(run) / "best.pt", weights_only=True)
    change(payload)
    torch.save(payload, Path(run) / "best.pt")


@pytest.mark.parametrize("reader", [None, "", "{", "[1]", '"image"', '{"kind": ["image"]}', 3])
def test_a_checkpoint_that_does_not_say_how_files_are_read_is_refused(reader: Any, run: str) -> None:
    save_images(torch.zeros(1, 1, 8, 8, dtype=torch.uint8), Path("images"))
    altered(run, lambda payload: payload.pop("reader") if reader is None else payload.update(reader=reader))
    with pytest.raises(ConfigError, match=r"^outputs/run: .*checkpoint .*; train again"):
        predict(run, ["images"], None, "best", "cpu")


def test_outputs_that_are_not_finite_are_no_prediction(run: str) -> None:
    save_images(torch.zeros(1, 1, 8, 8, dtype=torch.uint8), Path("images"))
    altered(run, lambda payload: [weight.fill_(math.nan) for weight in payload["model"].values() if weight.dim()])
    with pytest.raises(ConfigError, match=r"^predict: images/0000\.png: .*not finite"):
        predict(run, ["images"], None, "best", "cpu")
