"""One trained run for all tests of use/."""

import contextlib
import io
import shutil
from pathlib import Path

import pytest

from dltips.main import main

QUICK = ["log.tensorboard=false", "log.pictures=none", "log.layers=false"]
CNN = ["model=cnn", "model.widths=[4,8]", "model.norm=batch", "epochs=2", "batch_size=32", "optimizer.lr=0.02"]


@pytest.fixture(scope="session")
def trained_digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two epochs on digits, with an augmentation and a norm layer, which are both off when the net is used."""
    base = tmp_path_factory.mktemp("use")
    augmentation = ["augmentation=crop", "augmentation.crop.padding=1"]
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(io.StringIO()):
        patch.chdir(base)
        with contextlib.redirect_stdout(io.StringIO()):
            assert main(["train", *QUICK, *CNN, *augmentation]) == 0
    (path,) = (base / "outputs").iterdir()
    return path


@pytest.fixture
def run(trained_digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A copy of the run, as outputs/run of the folder at hand."""
    shutil.copytree(trained_digits, tmp_path / "outputs" / "run")
    monkeypatch.chdir(tmp_path)
    return "outputs/run"
