"""Every option of every family trains two epochs on its kind of data: a newcomer too, without anyone asking.

A tip that needs more than digits and an mlp says so in its card's `try_with`.
"""

import csv
import math
import os
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dltips.catalog import registry
from dltips.catalog.cards import card_of
from dltips.catalog.registry import FAMILIES
from dltips.config.composition import compose
from dltips.config.validation import validate
from dltips.main import main
from dltips.train.build import build_run
from dltips.train.fit import fit

REGISTRIES = registry.load()
OPTIONS = [(family, name) for family in FAMILIES for name in REGISTRIES[family].tips]

BASE = {
    "data": "digits",
    "data.subset": "64",
    "model": "mlp",
    "model.widths": "[16]",
    "epochs": "2",
    "batch_size": "32",
    "device": "cpu",
    **{f"log.{part}": "false" for part in ("layers", "images", "tensorboard")},
    "log.pictures": "none",
}
# Under DLTIPS_TEST_DATA: what is there of the sets that others have to fetch
FETCHED = {
    "mnist": "MNIST",
    "fashion_mnist": "FashionMNIST",
    "cifar10": "cifar-10-batches-py",
    "cifar100": "cifar-100-python",
    "spoken_digits": "spoken_digits",
}


# The user's own files, forty samples of each kind


def pictures(folder: Path) -> dict[str, str]:
    generator = np.random.default_rng(0)
    for index in range(40):
        file = folder / f"class{index % 2}" / f"{index}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (12, 10 + index % 3, 3), np.uint8)).save(file)
    return {"data.root": str(folder), "data.image_size": "8"}


def recordings(folder: Path) -> dict[str, str]:
    generator = np.random.default_rng(0)
    for index in range(40):
        file = folder / f"class{index % 2}" / f"{index}.wav"
        file.parent.mkdir(exist_ok=True)
        with wave.open(str(file), "wb") as writer:
            writer.setparams((1, 2, 8000, 0, "NONE", ""))
            writer.writeframes(generator.integers(-9999, 9999, 800, np.int16).tobytes())
    return {"data.root": str(folder), "data.seconds": "0.1", "data.sample_rate": "8000"}


def archive(folder: Path) -> dict[str, str]:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (40, 8, 8, 3), np.uint8)
    np.savez(folder / "set.npz", images=images, labels=np.arange(40) % 2)
    return {"data.file": str(folder / "set.npz")}


def table(folder: Path) -> dict[str, str]:
    with (folder / "set.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["width", "colour", "kind"])
        writer.writerows([[index / 3, "red" if index % 3 else "blue", f"kind{index % 2}"] for index in range(40)])
    return {"data.file": str(folder / "set.csv"), "data.label": "kind"}


OWN_FILES: dict[str, Callable[[Path], dict[str, str]]] = {
    "image_folder": pictures,
    "audio_folder": recordings,
    "npz": archive,
    "csv": table,
}


def trained(folder: Path) -> str:
    """The run folder of a small net."""
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["train", *(f"{key}={value}" for key, value in BASE.items())]) == 0
        (run,) = Path("outputs").iterdir()
        return str(run.absolute())


def overrides(family: str, name: str, folder: Path) -> list[str]:
    """The base, over it the option, over it what its card wants, over it the files. Skips what is not here."""
    card = card_of(REGISTRIES[family].tips[name])
    chosen = dict(override.split("=", 1) for override in (card.try_with if card else ()))
    chosen = {family: name} | chosen
    data = chosen.get("data", BASE["data"])
    if data in FETCHED and not (Path(os.environ["DLTIPS_DATA"]) / FETCHED[data]).exists():
        pytest.skip(f"DLTIPS_TEST_DATA holds no {FETCHED[data]}")
    if data in OWN_FILES:
        chosen |= OWN_FILES[data](folder) | {"data.subset": "16", "batch_size": "8"}
    if family == "finetune" and name != "none":  # from a run of the same net
        chosen["finetune.source"] = trained(folder / "source")
    base = {key: value for key, value in BASE.items() if key != "model.widths" or chosen.get("model", "mlp") == "mlp"}
    return [f"{key}={value}" for key, value in (base | chosen).items()]


@pytest.fixture(autouse=True)
def _data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DLTIPS_DATA", os.environ.get("DLTIPS_TEST_DATA", str(tmp_path / "nothing")))


@pytest.mark.parametrize(("family", "name"), OPTIONS)
def test_two_epochs(family: str, name: str, tmp_path: Path) -> None:
    composed, _ = compose(overrides(family, name, tmp_path))
    config = validate(composed)
    assert name in [tip.name for tip in config.tips[family]]
    run = build_run(config)
    before = run.training.net.parameters.clone()
    result = fit(run)
    assert (result.status, len(result.records)) == ("finished", 2)
    for record in result.records:
        assert math.isfinite(record["train/loss"]) and math.isfinite(record["val/loss"])
    after = run.training.net.parameters
    assert torch.isfinite(after).all()
    assert before.numel() == 0 or not torch.equal(before, after), "nothing was learned"
