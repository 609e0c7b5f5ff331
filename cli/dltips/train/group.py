"""The processes that share one run: one by itself, or several, each with a device, a rank and a share of each batch."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, distributed

from dltips.config import Config
from dltips.registry import ConfigError


class Lost(Exception):
    """Another process of the run is gone, or cannot be reached."""


class Group:
    """One process by itself: nothing to add up, nobody to agree with."""

    rank = 0
    size = 1

    def total(self, *values: float) -> Sequence[float]:
        """Each value's sum over the processes, the same bits in all of them."""
        return values

    def add_up(self, tensor: Tensor) -> None:
        """The tensor becomes its sum over the processes."""

    def take_first(self, tensors: Sequence[Tensor]) -> None:
        """The tensors become those of the first process."""

    def gather(self, value: Any) -> list[Any]:
        """Everyone's value, by rank: numbers, texts, lists of them."""
        return [value]

    def first(self, value: Any) -> Any:
        """The first process's value."""
        return value

    def highest(self, *values: float) -> Sequence[float]:
        """Each value's maximum over the processes; costs no more than a message."""
        return values

    def piece(self, order: Tensor) -> Tensor:
        """This process's share of samples that are all to be looked at once."""
        return order

    def meet(self) -> None:
        """Wait until everyone is here."""

    def part(self) -> None:
        """The run is over: wait for the others, and let them go."""

    @contextlib.contextmanager
    def in_turn(self) -> Iterator[None]:
        """Within, one process of each machine is ahead of the others."""
        yield


ALONE = Group()


class Several(Group):
    """One of several processes that torch.distributed connects; all of them make the same calls in the same order.

    What lies on the CPU goes through gloo, what lies on a GPU through nccl. Errors, of every call: Lost.
    """

    def __init__(self) -> None:
        self.rank, self.size = distributed.get_rank(), distributed.get_world_size()

    def total(self, *values: float) -> Sequence[float]:
        # added up in the order of ranks by each process itself: a reduction need not give all of them the same bits
        return [sum(column) for column in zip(*self.gather(values), strict=True)]

    def add_up(self, tensor: Tensor) -> None:
        if tensor.numel():
            with _in_touch():
                distributed.all_reduce(tensor)

    def take_first(self, tensors: Sequence[Tensor]) -> None:
        with _in_touch():
            for tensor in tensors:
                if tensor.is_contiguous():
                    distributed.broadcast(tensor, 0)
                else:
                    copied = tensor.contiguous()
                    distributed.broadcast(copied, 0)
                    tensor.copy_(copied)

    def gather(self, value: Any) -> list[Any]:
        own = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        with _in_touch():
            distributed.all_gather(lengths, torch.tensor([len(own)]))
            longest = max(int(length) for length in lengths)
            texts = [torch.zeros(longest, dtype=torch.uint8) for _ in range(self.size)]
            distributed.all_gather(texts, torch.nn.functional.pad(own, (0, longest - len(own))))
        return [json.loads(bytes(text[: int(length)].tolist())) for text, length in zip(texts, lengths, strict=True)]

    def first(self, value: Any) -> Any:
        return self.gather(value)[0]

    def highest(self, *values: float) -> Sequence[float]:
        found = torch.tensor(values, dtype=torch.float64)
        with _in_touch():
            distributed.all_reduce(found, distributed.ReduceOp.MAX)
        return found.tolist()

    def piece(self, order: Tensor) -> Tensor:
        return order.tensor_split(self.size)[self.rank]

    def meet(self) -> None:
        self.gather(None)

    def part(self) -> None:
        self.meet()
        OVER.set()

    @contextlib.contextmanager
    def in_turn(self) -> Iterator[None]:
        ahead = os.environ["LOCAL_RANK"] == "0"
        if not ahead:
            self.meet()
        yield
        if ahead:
            self.meet()


OVER = threading.Event()  # the run is over here: whoever goes first is not missed


def group() -> Group:
    """The processes that this one was connected with, if it was."""
    return Several() if distributed.is_available() and distributed.is_initialized() else ALONE


def refuse_devices(config: Config, group: Group) -> None:
    """Errors: ConfigError where a run that has one process asks for more."""
    devices = config.settings.devices
    if group.size == 1 and devices > 1:
        raise ConfigError(
            f"devices: {devices} are for one run of dltips train; in a grid, a search or a comparison each run has one"
            " device: leave devices out"
        )


@contextlib.contextmanager
def _in_touch() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # gloo's is of no kind of its own
        raise Lost(f"another process is gone ({' '.join(str(error).split())[:150]})") from error
