"""Where a split lies: on the device if it fits, else streamed."""

from __future__ import annotations

import os

import torch

from dltips.feed.batches import Batches, Resident, Streaming
from dltips.feed.splits import Split


def place(split: Split, placement: str, device: torch.device) -> Batches:
    """Resident or streaming, as asked; `auto` takes the device if the split fills at most half of what is free."""
    if placement == "auto":
        bytes_needed = len(split) * split.inputs[:1].nbytes
        placement = "resident" if bytes_needed <= free_memory(device) / 2 else "stream"
    return Resident(split, device) if placement == "resident" else Streaming(split, device)


def free_memory(device: torch.device) -> int:
    """Bytes that the device, or this machine, has left."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if hasattr(os, "sysconf") and "SC_AVPHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return 8 * 2**30  # a machine that does not tell
