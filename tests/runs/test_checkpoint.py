"""Checkpoint files: rotated, checked, and never half written."""

from pathlib import Path

import pytest
import torch

from dltips.runs import checkpoint

PAYLOAD = {
    "format": 1, "epoch": 1, "model": {"weight": torch.arange(1000.0)}, "preprocessing": {}, "input_shape": [1],
    "classes": ["a"], "seconds": 0.0, "optimizer": {}, "schedule": {}, "regularizations": [], "stopped": False,
    "best": None,
}  # fmt: skip


def test_last_becomes_previous(tmp_path: Path) -> None:
    for epoch in (1, 2, 3):
        checkpoint.write(tmp_path, PAYLOAD | {"epoch": epoch})
    assert checkpoint.read(tmp_path / "last.pt")["epoch"] == 3
    assert checkpoint.read(tmp_path / "previous.pt")["epoch"] == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.pt", "previous.pt"]


def test_a_payload_that_cannot_be_written_leaves_what_was_there(tmp_path: Path) -> None:
    checkpoint.write(tmp_path, PAYLOAD)
    with pytest.raises(Exception, match="pickle"):
        checkpoint.write(tmp_path, PAYLOAD | {"model": lambda: None})
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]
    assert checkpoint.read(tmp_path / "last.pt")["epoch"] == 1


def test_any_flipped_bit_is_found(tmp_path: Path) -> None:
    checkpoint.write(tmp_path, PAYLOAD)
    content = (tmp_path / "last.pt").read_bytes()
    weights = content.index(torch.arange(1000.0).numpy().tobytes())
    for place in range(weights, weights + 4000, 397):
        damaged = bytearray(content)
        damaged[place] ^= 1
        (tmp_path / "last.pt").write_bytes(damaged)
        with pytest.raises(checkpoint.Damaged, match=r"last\.pt"):
            checkpoint.read(tmp_path / "last.pt")


@pytest.mark.parametrize("part", sorted(PAYLOAD))
def test_a_part_that_is_missing_is_found(part: str, tmp_path: Path) -> None:
    checkpoint.write(tmp_path, {name: value for name, value in PAYLOAD.items() if name != part})
    with pytest.raises(checkpoint.Damaged, match="no whole checkpoint"):
        checkpoint.read(tmp_path / "last.pt", checkpoint.TRAINING)


def test_a_folder_without_checkpoints_is_told_from_one_with_damaged_ones(tmp_path: Path) -> None:
    assert checkpoint.read_latest(tmp_path) == (None, [])
    (tmp_path / "last.pt").write_bytes(b"")
    with pytest.raises(checkpoint.Damaged):
        checkpoint.read_latest(tmp_path)
