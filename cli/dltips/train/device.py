"""Chooses the device, the precision (autocast), and the number of threads: by rules, never by timing."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from dltips.errors import ConfigError
from dltips.train.parallel.group import current_group

# Below this many multiply-adds per step a second thread costs more than it gains.
SINGLE_THREAD_FLOPS = 100_000_000


def choose(name: str) -> torch.device:
    """Returns the device of auto, cpu, cuda, cuda:N or mps. Raises ConfigError if this machine does not have it."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device: {name!r} is not a device; there is: auto, cpu, cuda, cuda:N, mps") from error
    available = {
        "cpu": device.index in (None, 0),
        "cuda": (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not available.get(device.type, False):
        raise ConfigError(f"device: {name!r} is not on this machine; write device=auto, and see dltips doctor")
    return device


def autocast(precision: str, device: torch.device) -> Callable[[], AbstractContextManager[None]]:
    """Returns the context of each forward pass. Raises ConfigError if the device lacks the precision.

    There is no float16, hence no loss scaling.
    """
    has_bfloat16 = device.type == "cpu" or (device.type == "cuda" and torch.cuda.is_bf16_supported())
    if precision == "bfloat16" and not has_bfloat16:
        raise ConfigError(f"precision: bfloat16 is not supported on {device}; write precision=float32")
    if precision == "bfloat16" or (precision == "auto" and device.type == "cuda" and has_bfloat16):
        return lambda: torch.autocast(device.type, torch.bfloat16)
    return contextlib.nullcontext


def threads(flops_per_step: float) -> int:
    """Returns 1 for tiny nets, else OMP_NUM_THREADS or all cores; several processes divide all cores."""
    processes = current_group()
    if flops_per_step / processes.size < SINGLE_THREAD_FLOPS:
        return 1
    if processes.size > 1:
        # torchrun sets OMP_NUM_THREADS to 1 if it is unset
        return max(1, (os.cpu_count() or 1) // int(os.environ["LOCAL_WORLD_SIZE"]))
    chosen = os.environ.get("OMP_NUM_THREADS", "")
    return int(chosen) if chosen.isdigit() and int(chosen) > 0 else (os.cpu_count() or 1)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Uses one thread during the block, so that sums have one order, whatever the number of cores."""
    previous = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(previous)


@dataclass(frozen=True)
class Threads:
    """Numbers of threads: in the training, and before it, where features are computed once."""

    training: int
    features: int


@contextlib.contextmanager
def conditions(device: torch.device, *, thread_count: int, deterministic: bool) -> Iterator[None]:
    """Sets threads, deterministic kernels and the global random state for the block; restores them afterwards."""
    previous = torch.get_num_threads()
    # called only if it changes something: use_deterministic_algorithms imports the compiler, a second and 200 MB
    switches = deterministic and not torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            torch.set_num_threads(thread_count)
            if switches:
                os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
                torch.use_deterministic_algorithms(True)
            yield
        finally:
            if switches:
                torch.use_deterministic_algorithms(False)
            torch.set_num_threads(previous)


def describe(device: torch.device) -> str:
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)


def keep_freed_memory() -> None:
    """Makes glibc keep freed memory for the next step, in the whole process; no effect elsewhere.

    By default it returns large blocks to the kernel, which maps and clears them anew: 20 to 30 ms of a step of the
    Fashion-MNIST cnn, which takes 80 ms without.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
        mallopt(-3, 2**30)  # M_MMAP_THRESHOLD
