"""A loss that is not finite: the run stops, names the step and the layer, and keeps what was good."""

import json
import re
from pathlib import Path

import pytest
import torch

from dltips.main import main

OPTIONS = ["train", "device=cpu", "model.norm=none", "log.tensorboard=false", "log.pictures=none"]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_step_and_the_layer_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*OPTIONS, "init.scale=1e25", "epochs=3"]) == 4
    error = capsys.readouterr().err
    (folder,) = Path("outputs").iterdir()
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["status"] == "diverged"
    # 1e25 squared is out of a float's range, and the second layer is the first to multiply twice
    assert summary["diverged_at"] == {"epoch": 1, "step": 1, "where": "the output of layer hidden2.layer"}
    assert re.search(r"epoch 1, step 1: .*layer hidden2\.layer", error)
    assert "Traceback" not in error


def test_the_checkpoint_before_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    # a nearly linear net, in which no unit dies, at a rate that rises until it blows up
    linear = ["activation=leaky_relu", "activation.slope=0.99", "optimizer.momentum=0"]
    assert main([*OPTIONS, *linear, "optimizer.lr=3", "schedule.warmup=30", "epochs=30"]) == 4
    (folder,) = Path("outputs").iterdir()
    summary = json.loads((folder / "summary.json").read_text())
    kept = torch.load(folder / "last.pt", weights_only=True)
    assert kept["epoch"] == summary["diverged_at"]["epoch"] - 1 >= 1
    assert all(value.isfinite().all() for value in kept["model"].values())
    assert summary["last"]["epoch"] == kept["epoch"]
    assert re.search(rf"checkpoint of epoch {kept['epoch']} .*[Ll]ower optimizer\.lr", capsys.readouterr().err)
    assert (folder / "best.pt").exists()


def test_weights_that_the_last_update_broke_are_not_kept() -> None:
    # one batch per epoch: its loss is finite, its update is not
    options = ["batch_size=300", "data.subset=300", "epochs=1", "optimizer.lr=1e38", "init.scale=30"]
    assert main([*OPTIONS, *options]) == 4
    (folder,) = Path("outputs").iterdir()
    where = json.loads((folder / "summary.json").read_text())["diverged_at"]["where"]
    assert where.startswith("the update of ")
    assert not (folder / "last.pt").exists()
