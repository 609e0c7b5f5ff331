"""Checkpoint files: rotated, checked, and never half written."""

import os
import stat
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
    with pytest.raises(checkpoint.Damaged, match="no complete checkpoint"):
        checkpoint.read(tmp_path / "last.pt", checkpoint.TRAINING_KEYS)


def test_a_folder_without_checkpoints_is_told_from_one_with_damaged_ones(tmp_path: Path) -> None:
    assert checkpoint.read_latest(tmp_path) == (None, [])
    (tmp_path / "last.pt").write_bytes(b"")
    with pytest.raises(checkpoint.Damaged):
        checkpoint.read_latest(tmp_path)


def test_a_disk_that_is_full_leaves_the_last_checkpoint_and_nothing_beside_it(tmp_path: Path) -> None:
    """A limit on the size of files fails a write as a full disk does."""
    resource = pytest.importorskip("resource")
    checkpoint.write(tmp_path, PAYLOAD)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            checkpoint.write(tmp_path, PAYLOAD | {"epoch": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]
    assert checkpoint.read(tmp_path / "last.pt")["epoch"] == 1


def test_the_best_weights_move_no_other_checkpoint(tmp_path: Path) -> None:
    for epoch in (1, 2):
        checkpoint.write(tmp_path, PAYLOAD | {"epoch": epoch}, checkpoint.BEST)
    assert [path.name for path in tmp_path.iterdir()] == ["best.pt"]
    assert checkpoint.read(tmp_path / "best.pt")["epoch"] == 2


def test_a_damaged_last_checkpoint_sends_to_the_one_before_and_says_so(tmp_path: Path) -> None:
    for epoch in (1, 2):
        checkpoint.write(tmp_path, PAYLOAD | {"epoch": epoch})
    (tmp_path / "last.pt").write_bytes(b"half")
    payload, problems = checkpoint.read_latest(tmp_path)
    assert payload is not None and payload["epoch"] == 1
    assert len(problems) == 1 and problems[0].startswith(f"{tmp_path / 'last.pt'}: ")


@pytest.mark.skipif(os.name != "posix", reason="folders are flushed on POSIX alone")
def test_the_file_is_flushed_before_it_is_renamed_and_the_folder_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut would else leave a name without its content, or the rename undone."""
    happened: list[str] = []
    fsync, replace = os.fsync, os.replace

    def flushed(handle: int) -> None:
        happened.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        fsync(handle)

    def renamed(source: Path, target: Path) -> None:
        happened.append(f"{Path(source).name} -> {Path(target).name}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(os, "replace", renamed)
    for _ in range(2):
        checkpoint.write(tmp_path, PAYLOAD)
    once = ["file", ".last.pt.tmp -> last.pt", "folder"]
    assert happened == [*once, "file", "last.pt -> previous.pt", *once[1:]]
