"""Checks how much memory is free."""

from __future__ import annotations

import os
from pathlib import Path

from dltips.errors import ConfigError


def available() -> int:
    """Returns the bytes available without swapping; the file cache counts as free."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    if hasattr(os, "sysconf") and "SC_AVPHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return 8 * 2**30  # the platform does not report it


def require_memory(key: str, needed: int) -> None:
    """Raises ConfigError, naming the key, if so many bytes are not free: the allocation itself would succeed."""
    free = available()
    if needed > free:
        raise ConfigError(f"{key}: takes {needed / 1e9:,.1f} GB, but {free / 1e9:,.1f} GB are free; lower it")
