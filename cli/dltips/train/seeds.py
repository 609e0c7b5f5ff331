"""Derives separate random streams from (seed, stream, name, epoch), so that no stream affects another."""

from __future__ import annotations

import hashlib

import torch


def derive(seed: int, stream: str, name: str = "", epoch: int = 0) -> int:
    """Returns a 63-bit seed for one use."""
    digest = hashlib.blake2b(f"{seed}/{stream}/{name}/{epoch}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(seed: int, stream: str, name: str = "", epoch: int = 0, device: str = "cpu") -> torch.Generator:
    """Returns a generator on the device, seeded for one use."""
    return torch.Generator(device).manual_seed(derive(seed, stream, name, epoch))


def seed_global_stream(seed: int, epoch: int, device: torch.device) -> None:
    """Seeds torch's global stream, from which dropout and similar layers draw, on the CPU and on the device.

    torch.manual_seed does the same, but formats a traceback for each kind of device that is not in use: 0.5 ms.
    """
    value = derive(seed, "global", epoch=epoch)
    torch.default_generator.manual_seed(value)
    if device.type == "cuda":
        with torch.cuda.device(device):  # else the first GPU's stream would be seeded
            torch.cuda.manual_seed(value)
    elif device.type != "cpu":
        torch.get_device_module(device).manual_seed(value)


def shuffled(seed: int, epoch: int, count: int) -> torch.Tensor:
    """Returns the order of an epoch's samples, drawn on the CPU so that it is the same on any device."""
    return torch.randperm(count, generator=generator(seed, "order", epoch=epoch))
