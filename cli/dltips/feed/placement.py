"""Places a split: on the device if it fits, else streamed."""

from __future__ import annotations

import torch

from dltips import free_memory
from dltips.feed.batches import Batches, Resident, Streaming
from dltips.feed.splits import Split


def place_split(split: Split, placement: str, device: torch.device) -> Batches:
    """Returns resident or streaming batches, as configured; `auto` is resident up to half of the free memory."""
    if placement == "auto":
        bytes_needed = len(split) * split.inputs[:1].nbytes
        placement = "resident" if bytes_needed <= free_bytes(device) / 2 else "stream"
    return Resident(split, device) if placement == "resident" else Streaming(split, device)


def free_bytes(device: torch.device) -> int:
    """Returns the free bytes of the device, or of this machine."""
    return int(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else free_memory.available()
