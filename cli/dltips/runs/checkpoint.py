"""Writes checkpoints that survive a crash, a kill or a full disk, and reads them as data only."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from dltips.files import replacing, sync_folder, write_durably

LAST, PREVIOUS, BEST = "last.pt", "previous.pt", "best.pt"


class Damaged(Exception):
    """A checkpoint file that cannot be read completely."""


def write(folder: Path, payload: Mapping[str, Any], name: str = LAST) -> None:
    """Writes a temporary file, syncs, renames it, syncs the folder; keeps the last file as previous. Raises OSError."""
    # in memory first: with a file, torch.save turns a full disk into a RuntimeError about zip archives
    content = io.BytesIO()
    torch.save(dict(payload), content)
    with replacing(folder / name) as temporary:
        write_durably(temporary, content.getbuffer())
        if name == LAST and (folder / LAST).exists():
            os.replace(folder / LAST, folder / PREVIOUS)
    sync_folder(folder)


NET_KEYS = ("format", "epoch", "model", "preprocessing", "input_shape", "classes")
TRAINING_KEYS = (*NET_KEYS, "seconds", "optimizer", "schedule", "regularizations", "stopped", "best")


def read(path: Path, parts: Sequence[str] = NET_KEYS) -> dict[str, Any]:
    """Returns a checkpoint's payload, with all the requested parts. Raises Damaged."""
    try:
        # torch.load does not verify the checksums of the zip archive
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
        if broken is not None:
            raise Damaged(f"{path}: {broken} fails its checksum")
        payload = torch.load(path, map_location="cpu", weights_only=True)
    except Damaged:
        raise
    except Exception as error:  # zipfile and torch raise a dozen types
        raise Damaged(f"{path}: {' '.join(str(error).split())[:200] or type(error).__name__}") from error
    if not isinstance(payload, dict) or not set(parts) <= set(payload):
        raise Damaged(f"{path}: holds no complete checkpoint")
    return payload


def read_latest(folder: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """Returns the newest readable checkpoint, or None if none was written yet, and the errors of the others.

    Raises Damaged if there are some, but none can be read.
    """
    problems: list[str] = []
    for name in (LAST, PREVIOUS):
        if (folder / name).exists():
            try:
                return read(folder / name, TRAINING_KEYS), problems
            except Damaged as error:
                problems.append(str(error))
    if problems:
        raise Damaged("; ".join(problems))
    return None, problems
