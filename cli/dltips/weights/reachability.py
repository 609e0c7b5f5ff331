"""Checks within a second, without importing torch or timm, whether weights can be downloaded."""

from __future__ import annotations

import glob
import importlib.util
import os
import socket
import threading
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from dltips.errors import ConfigError

TIMM = "timm:"
CONNECT_SECONDS = 0.8  # seconds after which a silent host counts as unreachable
PORTS = {"http": 80, "https": 443}


def refuse_early(source: object, file: object) -> None:
    """Checks the weights that a composed config names, before any slow import. Raises ConfigError."""
    if isinstance(source, str) and source.startswith(TIMM) and source != TIMM and file is None:
        check_downloadable(source.removeprefix(TIMM).strip())


def endpoint() -> str:
    from huggingface_hub import constants

    return constants.ENDPOINT


def check_downloadable(name: str) -> None:
    """Raises ConfigError if timm's weights of that name are neither cached nor downloadable, before timm is imported.

    Does nothing if a file in the cache may hold them, or if huggingface_hub is not installed.
    """
    if importlib.util.find_spec("huggingface_hub") is not None and not _may_be_cached(name.partition(".")[0]):
        here = f"finetune.source: timm:{name} is not in the cache"
        refuse_offline(endpoint(), here, "give its file (finetune.file=FILE)")


def _may_be_cached(architecture: str) -> bool:
    """Returns whether any file of this architecture is cached from the hub, or any file at all by torch.hub."""
    from huggingface_hub import constants

    cache = os.environ.get("TORCH_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "torch")
    kept = (
        Path(constants.HF_HUB_CACHE).glob(f"models--*{glob.escape(architecture)}*"),
        Path(cache, "hub", "checkpoints").expanduser().glob("*"),
    )
    return any(True for found in kept for _ in found)


def refuse_offline(url: str, here: str, remedy: str) -> None:
    """Raises ConfigError, within the time limit, if nothing can be downloaded from the url."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise ConfigError(f"{here}, and HF_HUB_OFFLINE forbids to download it; {remedy}")
    if not reachable(url):
        raise ConfigError(f"{here}, and {urlsplit(url).hostname} cannot be reached; {remedy}, or go online once")


def reachable(url: str, seconds: float = CONNECT_SECONDS) -> bool:
    """Returns whether the url's host, or its proxy, accepts a connection within so many seconds."""
    parts = urlsplit(url)
    proxies = urllib.request.getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if proxy and not urllib.request.proxy_bypass(parts.hostname or ""):
        parts = urlsplit(proxy if "//" in proxy else f"http://{proxy}")
    answer = threading.Event()

    def connect() -> None:
        try:
            address = (parts.hostname or "", parts.port or PORTS.get(parts.scheme, 443))
            socket.create_connection(address, timeout=seconds).close()
            answer.set()
        except OSError:
            pass

    # in a thread: a name lookup has no time limit
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(seconds)
    return answer.is_set()
