"""Streams of randomness: separate, and derived from (seed, stream, name, epoch), so that one moves no other."""

from __future__ import annotations

import hashlib

import torch


def derive(seed: int, stream: str, name: str = "", epoch: int = 0) -> int:
    """A 63-bit seed of its own for each use."""
    digest = hashlib.blake2b(f"{seed}/{stream}/{name}/{epoch}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(seed: int, stream: str, name: str = "", epoch: int = 0, device: str = "cpu") -> torch.Generator:
    """A generator on the device, seeded for one use."""
    return torch.Generator(device).manual_seed(derive(seed, stream, name, epoch))


def seed_global_stream(seed: int, epoch: int, device: torch.device) -> None:
    """Torch's own stream, from which dropout and its like draw, on the CPU and on the device.

    torch.manual_seed does the same, but formats a traceback for each kind of device that is not in use: 0.5 ms.
    """
    value = derive(seed, "global", epoch=epoch)
    torch.default_generator.manual_seed(value)
    if device.type == "cuda":
        with torch.cuda.device(device):  # else it is the stream of the first GPU that is seeded
            torch.cuda.manual_seed(value)
    elif device.type != "cpu":
        torch.get_device_module(device).manual_seed(value)


def shuffled(seed: int, epoch: int, count: int) -> torch.Tensor:
    """The order of an epoch's samples, drawn on the CPU so that it is the same on any device."""
    return torch.randperm(count, generator=generator(seed, "order", epoch=epoch))
