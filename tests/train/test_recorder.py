"""What a run writes while it trains: lines that any JSON reader takes, checkpoints once an epoch, examples in range."""

import json
import math
from pathlib import Path

import pytest
import torch

from dltips.config.composition import compose
from dltips.config.validation import validate
from dltips.runs import checkpoint
from dltips.train.build import Run, build_run
from dltips.train.display import Display
from dltips.train.recorder import FolderRecorder, augmented_examples, without_nan
from dltips.train.snapshot import Snapshot


def prepared(*overrides: str) -> Run:
    config = ["device=cpu", "data.subset=100", "model.widths=[8]", "log.tensorboard=false", "log.layers=false"]
    return build_run(validate(compose([*config, *overrides])[0]))


def test_a_value_that_is_not_finite_is_null() -> None:
    record = {"epoch": 1, "val/loss": math.nan, "train/loss": math.inf, "lr": 0.1}
    assert without_nan(record) == {"epoch": 1, "val/loss": None, "train/loss": None, "lr": 0.1}
    assert record["train/loss"] == math.inf


@pytest.mark.parametrize(("interval", "written"), [("0", True), ("1000", False)])
def test_an_epoch_is_a_line_and_now_and_then_a_checkpoint(interval: str, written: bool, tmp_path: Path) -> None:
    run = prepared(f"checkpoint.interval={interval}")
    display = Display(tmp_path / "run.log", 1)
    recorder = FolderRecorder(tmp_path, run, display, "", (), pictures=False)
    record = {"epoch": 1, "lr": 0.1, "val/loss": math.nan, "val/accuracy": 0.5}
    recorder.epoch(record, Snapshot.take(run.training, run.regularizations, 1, 0.5, None))
    recorder.close()
    display.close()
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == record | {"val/loss": None}
    assert (tmp_path / checkpoint.LAST).exists() == written


def test_a_checkpoint_of_one_epoch_is_written_once(tmp_path: Path) -> None:
    run = prepared()
    display = Display(tmp_path / "run.log", 1)
    recorder = FolderRecorder(tmp_path, run, display, "", (), pictures=False)
    for epoch in (1, 1, 2):
        recorder.write_checkpoint(Snapshot.take(run.training, run.regularizations, epoch, 0.5, None))
    recorder.close()
    display.close()
    epochs = [checkpoint.read(tmp_path / name)["epoch"] for name in (checkpoint.LAST, checkpoint.PREVIOUS)]
    assert epochs == [2, 1]


def test_the_examples_are_the_first_images_as_the_first_epoch_augments_them() -> None:
    plain, cropped = prepared(), prepared("augmentation=crop")
    first, again, other = augmented_examples(plain, 5), augmented_examples(cropped, 5), augmented_examples(cropped, 5)
    assert first.shape == again.shape == (5, 1, *plain.input_shape[1:])
    assert torch.equal(again, other) and not torch.equal(first, again)
    assert again.min() >= 0 and again.max() <= 1
