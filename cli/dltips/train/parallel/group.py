"""Groups the processes of one run: collectives over one process or several, each with a device and a rank."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import platform
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, distributed

from dltips.config.validation import Config
from dltips.errors import ConfigError
from dltips.exit_codes import EXIT_INTERNAL
from dltips.train.parallel.world import (
    LOST_CODE,
    MESSAGES_VARIABLE,
    World,
    check_device,
    check_devices,
    reported_reason,
    send_message,
)

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

NOTICE_AFTER = 10.0  # seconds until a process reports that it waits for others
PEER_GRACE = 5.0  # seconds for a process to find out by itself that another one is gone


class ProcessLost(Exception):
    """Another process of the run is gone or unreachable."""


class ProcessGroup:
    """A single process: sums and agreements are its own values."""

    rank = 0
    size = 1

    def total(self, *values: float) -> Sequence[float]:
        """Returns each value's sum over the processes, the same bits in all of them."""
        return values

    def all_reduce(self, tensor: Tensor) -> None:
        """Replaces the tensor by its sum over the processes."""

    def broadcast(self, tensors: Sequence[Tensor]) -> None:
        """Replaces the tensors by those of the first process."""

    def all_gather(self, value: Any) -> list[Any]:
        """Returns every process's value, by rank: numbers, texts, lists of them."""
        return [value]

    def from_first(self, value: Any) -> Any:
        """Returns the first process's value."""
        return value

    def maxima(self, *values: float) -> Sequence[float]:
        """Returns each value's maximum over the processes, for the price of one message."""
        return values

    def shard(self, order: Tensor) -> Tensor:
        """Returns this process's share of samples that are evaluated once."""
        return order

    def barrier(self) -> None:
        """Waits until all processes are here."""

    def leave(self) -> None:
        """Waits for the other processes at the end of the run, and disconnects."""

    @contextlib.contextmanager
    def in_turn(self) -> Iterator[None]:
        """Runs the block in one process of each machine first, then in the others."""
        yield


SINGLE_PROCESS = ProcessGroup()


class DistributedGroup(ProcessGroup):
    """One of several processes connected by torch.distributed; all of them make the same calls in the same order.

    CPU tensors go through gloo, GPU tensors through nccl. Every call may raise ProcessLost.
    """

    def __init__(self) -> None:
        self.rank, self.size = distributed.get_rank(), distributed.get_world_size()

    def total(self, *values: float) -> Sequence[float]:
        # each process sums in the order of ranks: a reduction need not give all of them the same bits
        return [sum(column) for column in zip(*self.all_gather(values), strict=True)]

    def all_reduce(self, tensor: Tensor) -> None:
        if tensor.numel():
            with raising_process_lost():
                distributed.all_reduce(tensor)

    def broadcast(self, tensors: Sequence[Tensor]) -> None:
        for tensor in tensors:
            if tensor.numel():
                contiguous = tensor.detach().contiguous()
                with raising_process_lost():
                    distributed.broadcast(contiguous.reshape(-1).view(torch.uint8), 0)  # gloo has no int16, no float8
                if contiguous.data_ptr() != tensor.data_ptr():
                    tensor.copy_(contiguous)

    def all_gather(self, value: Any) -> list[Any]:
        encoded = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        with raising_process_lost():
            distributed.all_gather(lengths, torch.tensor([len(encoded)]))
            longest = max(int(length) for length in lengths)
            texts = [torch.zeros(longest, dtype=torch.uint8) for _ in range(self.size)]
            distributed.all_gather(texts, torch.nn.functional.pad(encoded, (0, longest - len(encoded))))
        return [json.loads(bytes(text[: int(length)].tolist())) for text, length in zip(texts, lengths, strict=True)]

    def from_first(self, value: Any) -> Any:
        return self.all_gather(value)[0]

    def maxima(self, *values: float) -> Sequence[float]:
        maxima = torch.tensor(values, dtype=torch.float64)
        with raising_process_lost():
            distributed.all_reduce(maxima, distributed.ReduceOp.MAX)
        return maxima.tolist()

    def shard(self, order: Tensor) -> Tensor:
        return order.tensor_split(self.size)[self.rank]

    def barrier(self) -> None:
        self.all_gather(None)

    def leave(self) -> None:
        self.barrier()
        RUN_OVER.set()

    @contextlib.contextmanager
    def in_turn(self) -> Iterator[None]:
        ahead = os.environ["LOCAL_RANK"] == "0"
        if not ahead:
            self.barrier()
        yield
        if ahead:
            self.barrier()


RUN_OVER = threading.Event()  # set when the run is over: a process that ends from then on is not lost


def current_group() -> ProcessGroup:
    """Returns the group that this process is connected to, else a single process."""
    return DistributedGroup() if distributed.is_available() and distributed.is_initialized() else SINGLE_PROCESS


def refuse_devices(config: Config, group: ProcessGroup) -> None:
    """Raises ConfigError if a run with one process asks for more."""
    devices = config.settings.devices
    if group.size == 1 and devices > 1:
        raise ConfigError(
            f"devices: {devices} are for one run of dltips train; in a grid, a search or a comparison each run has one"
            " device: leave devices out"
        )


@contextlib.contextmanager
def raising_process_lost() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        # gloo's error has no type of its own, but names its source file
        if isinstance(error, distributed.DistError) or "gloo/transport" in str(error):
            raise ProcessLost(reported_reason() or "another process of this run is gone") from error
        raise


# Connecting the processes


@contextlib.contextmanager
def connected(world: World, device: str) -> Iterator[int | None]:
    """Connects the processes by torch.distributed during the block. Yields process 0's pid, if it is on this machine.

    `device` as in a config. Raises ConfigError.
    """
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    check_device(world.size, device)
    os.environ |= {
        "MASTER_ADDR": world.address,
        "MASTER_PORT": str(world.port),
        "RANK": str(world.rank),
        "WORLD_SIZE": str(world.size),
        "LOCAL_RANK": str(world.local_rank),
        "LOCAL_WORLD_SIZE": str(world.local_size),
    }
    gpu = gpu_of(world, device)
    timeout = datetime.timedelta(minutes=30)  # the first process may draw, save or download meanwhile
    address = f"{world.address}:{world.port}"
    notice = f"dltips: process {world.rank} of {world.size} waits for the others at {address}"
    timer = threading.Timer(NOTICE_AFTER, lambda: print(notice, file=sys.stderr, flush=True))
    timer.daemon = True
    timer.start()
    try:
        store, _, _ = next(rendezvous("env://", timeout=timeout))
        store.set_timeout(timeout)
        if gpu is not None:
            torch.cuda.set_device(gpu)
            refuse_shared_gpu(world, store, _gpu_name(gpu))
        distributed.init_process_group(
            "gloo" if gpu is None else "cpu:gloo,cuda:nccl",
            timeout=timeout,
            store=PrefixStore("run", store),
            rank=world.rank,
            world_size=world.size,
            device_id=None if gpu is None else torch.device("cuda", gpu),
        )
    except (RuntimeError, ValueError) as error:
        raise ConfigError(
            f"devices: the {world.size} processes do not find each other at {address}"
            f" ({' '.join(str(error).split())[:120]})"
        ) from error
    finally:
        timer.cancel()
    local_pids = _local_pids()
    threading.Thread(target=_watch, args=(list(local_pids.values()),), daemon=True).start()
    yield local_pids.get(0)
    # not after an error: it would wait for lost processes. And not gloo's, for which torch 2.6 may wait for ever once
    # another process has ended: the process ends without a teardown anyway (verbs.leave)
    if gpu is not None:
        distributed.destroy_process_group()


def gpu_of(world: World, device: str) -> int | None:
    """Returns the index of this process's GPU among the visible ones; None on a CPU. Raises ConfigError for too few.

    A scheduler may show each process a single GPU.
    """
    if device not in ("auto", "cuda") or not torch.cuda.is_available():
        return None
    if torch.cuda.device_count() == 1:
        return 0
    check_devices(world.local_size, device)
    return world.local_rank


def _gpu_name(gpu: int) -> str:
    """Returns a name of this GPU, the same in every process."""
    return f"{platform.node()} {torch.cuda.get_device_properties(gpu).uuid}"


def refuse_shared_gpu(world: World, store: Store, name: str) -> None:
    """Raises ConfigError, in all processes, if two of them have the same GPU."""
    store.set(f"gpu-{world.rank}", name)
    names = [store.get(f"gpu-{rank}").decode() for rank in range(world.size)]
    for rank, gpu in enumerate(names):
        if gpu in names[:rank]:
            raise ConfigError(
                f"devices: processes {names.index(gpu) + 1} and {rank + 1} of {world.size} have the same GPU;"
                " start one for each GPU, or write device=cpu"
            )


def _local_pids() -> dict[int, int]:
    """Returns the pid of each rank that runs here."""
    peers = current_group().all_gather([platform.node(), os.getpid()])
    return {rank: pid for rank, (node, pid) in enumerate(peers) if node == platform.node()}


def _watch(peers: Sequence[int]) -> None:
    """Ends this process soon after another one is lost, even while it waits for a GPU or a message."""
    parent = os.getppid() if MESSAGES_VARIABLE in os.environ else None
    while not RUN_OVER.wait(1.0):
        if parent is not None and os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGTERM)  # no parent to report to: save, and end
            return
        if not all(map(is_alive, peers)):
            if not RUN_OVER.wait(PEER_GRACE):
                send_message(f"code-{distributed.get_rank()}", LOST_CODE)
                os._exit(EXIT_INTERNAL)
            return


def is_alive(pid: int) -> bool:
    """Returns whether a process of this machine is running, and not a zombie."""
    try:
        os.kill(pid, 0)
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except ProcessLookupError:
        return False
    except OSError:
        return True
