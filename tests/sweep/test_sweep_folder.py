"""A sweep's folder: one command at a time."""

from pathlib import Path

import pytest

from dltips.main import main
from dltips.sweep import sweep_folder as places

QUICK = ["epochs=2", "data.subset=150", "log.tensorboard=false", "log.layers=false", "device=cpu"]


Output = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def grid(*arguments: str, code: int = 0) -> Path:
    """The sweep's folder."""
    assert main(["train", "-m", *QUICK, *arguments]) == code
    return max(file.parent for file in Path("outputs").glob("*/sweep.json"))


def test_one_process_at_a_time(capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    place = grid("seed=1,2")
    monkeypatch.setattr(places, "LOCK_WAIT", 0.0)
    with places.alone(place):
        assert main(["train", "-m", *QUICK, "seed=1,2"]) == 2
    assert "is being run by another process" in capsys.readouterr().err
