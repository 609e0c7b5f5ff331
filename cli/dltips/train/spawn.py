"""From one command to several processes and back to one exit code; or one of those that torchrun or srun started.

Imports no torch before it is certain that there are to be several.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from dltips.main import EXIT_INTERNAL, EXIT_INTERRUPTED, EXIT_OK, fail
from dltips.overrides import typed_keys
from dltips.registry import ConfigError

PLACE = "DLTIPS_PROCESSES"  # a folder of the starting process: each rank's pid, exit code, what it said, the run folder
LOST = "lost"  # in place of an exit code: another process went first
FEW = 4  # so many processes may share a CPU with fewer cores, to try things out
GRACE = 5.0  # seconds for a process to find out by itself that another one is gone


@dataclass(frozen=True)
class World:
    """Where this process stands among those of the run."""

    rank: int
    size: int
    local_rank: int
    local_size: int
    address: str
    port: int


def world(environment: Mapping[str, str]) -> World | None:
    """Where torchrun or srun has put this process; None if it is alone. Errors: ConfigError.

    A command in a batch script that is not under srun is alone, whatever the job's number of tasks.
    """
    if "RANK" in environment and "WORLD_SIZE" in environment:
        rank, size = _number(environment, "RANK"), _number(environment, "WORLD_SIZE")
        local_rank = _number(environment, "LOCAL_RANK", rank)
        local_size = _number(environment, "LOCAL_WORLD_SIZE", size)
        address, port = environment.get("MASTER_ADDR", "127.0.0.1"), _number(environment, "MASTER_PORT", 29500)
    elif "SLURM_PROCID" in environment and _under_srun(environment):
        rank = _number(environment, "SLURM_PROCID")
        size = _number(environment, "SLURM_STEP_NUM_TASKS", _number(environment, "SLURM_NTASKS", 1))
        local_rank = _number(environment, "SLURM_LOCALID", rank)
        tasks = re.match(r"\d+", environment.get("SLURM_STEP_TASKS_PER_NODE", ""))
        local_size = int(tasks.group()) if tasks else size
        address = environment.get("MASTER_ADDR") or _first_node(environment)
        # two runs of one job, one after the other, must not meet at one port; below those that the system hands out
        chosen = (
            10000 + (_number(environment, "SLURM_JOB_ID", 0) * 7 + _number(environment, "SLURM_STEP_ID", 0)) % 20000
        )
        port = _number(environment, "MASTER_PORT", chosen)
    else:
        return None
    if not 0 <= rank < size:
        raise ConfigError(f"devices: the environment calls this process number {rank} of {size}; mend RANK, WORLD_SIZE")
    return World(rank, size, local_rank, local_size, address, port) if size > 1 else None


def _under_srun(environment: Mapping[str, str]) -> bool:
    return "SLURM_STEP_NUM_TASKS" in environment or environment.get("ENVIRONMENT") != "BATCH"


def _number(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = environment.get(name)
    if text is None and default is not None:
        return default
    if text is None or not text.isdigit():
        raise ConfigError(f"devices: the environment variable {name} is {text!r}, which is no number")
    return int(text)


def _first_node(environment: Mapping[str, str]) -> str:
    """The node of process 0: the first of `node[003-007,12]`; its own address where there is one node alone."""
    if environment.get("SLURM_STEP_NUM_NODES") == "1":
        return "127.0.0.1"
    names = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST") or ""
    found = re.match(r"([^,\[]+)(?:\[(\w+))?", names)
    if found:
        return found.group(1) + (found.group(2) or "")
    return environment.get("SLURM_LAUNCH_NODE_IPADDR", "127.0.0.1")


def run_on_devices(composed: DictConfig, overrides: list[str], arguments: list[str], one_run: Callable[[], int]) -> int:
    """The run in this process, or in several; the exit code. Errors: ConfigError.

    `arguments` are those of `dltips train`, for the processes that are started.
    """
    place = world(os.environ)
    if place is not None:
        return _as_one_of(place, composed, overrides, one_run)
    devices = _asked(composed, overrides)
    if devices == 1:
        return one_run()
    if composed.get("resume") is None:
        from dltips.config import validate

        settings = validate(composed).settings
        check_devices(devices, settings.device)
        from dltips.train.distributed import check_batch_size

        check_batch_size(settings.batch_size, devices)
    else:
        check_devices(devices, str(composed.get("device")))
    return start(devices, arguments)


def _asked(composed: DictConfig, overrides: list[str]) -> int:
    """How many devices: as typed; of a run that goes on, as it had. Errors: ConfigError."""
    from dltips.registry import Size, check_value

    devices: Any = composed.get("devices")
    if composed.get("resume") is not None and "devices" not in typed_keys(overrides):
        from dltips.train import folder

        devices = folder.read_config(folder.find(str(composed.resume), to_resume=True)).get("devices", 1)
    count: int = check_value("devices", devices, Size)
    return count


def check_devices(devices: int, device: str) -> None:
    """Whether this machine has so many. Errors: ConfigError."""
    import torch

    if device == "mps" or ":" in device:
        raise ConfigError(
            f"device: {device} is one device, and devices is {devices}; write device=auto or leave devices out"
            + (" (CUDA_VISIBLE_DEVICES says which GPUs are meant)" if device.startswith("cuda") else "")
        )
    if device == "cpu" or not torch.cuda.is_available():
        cores = os.cpu_count() or 1
        if devices > max(cores, FEW):
            raise ConfigError(f"devices: {devices} processes on a CPU of {cores} cores; write devices={cores} at most")
        return
    count = torch.cuda.device_count()
    if devices > count:
        gpus = "1 GPU" if count == 1 else f"{count} GPUs"
        raise ConfigError(f"devices: {devices} are wanted and there is {gpus}; lower it, or write device=cpu")


def start(devices: int, arguments: list[str]) -> int:
    """Run `dltips train` with these arguments in so many processes, which end before this does; the exit code."""
    import logging

    from torch.distributed import run as torchrun
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    logging.disable(logging.CRITICAL)  # what torch says of an end is said here, in one line
    failed: tuple[int, int] | None = None  # the rank that went first, and its exit status
    stopped = False
    with tempfile.TemporaryDirectory(prefix="dltips-") as name, _surroundings(devices, name):
        place = Path(name)
        flags = ["--standalone", "--nproc-per-node", str(devices), "--log-dir", name]
        try:
            parsed = torchrun.parse_args([*flags, "-m", "dltips.train.rank", *arguments])  # type: ignore[no-untyped-call]
            torchrun.run(parsed)  # type: ignore[no-untyped-call]
        except SignalException:
            stopped = True
        except ChildFailedError as error:
            rank, failure = error.get_first_failure()
            failed = rank, failure.exitcode
        finally:
            logging.disable(logging.NOTSET)
            _end_all(place)
        return _conclude(place, devices, failed, stopped=stopped)


@contextlib.contextmanager
def _surroundings(devices: int, place: str) -> Iterator[None]:
    """What the processes inherit; and SIGUSR1 is a scheduler's word for stop, as SIGTERM is."""
    environment, names = dict(os.environ), ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1")
    # torch takes over all but the last
    theirs = {number: signal.getsignal(number) for number in (getattr(signal, name, None) for name in names) if number}
    if hasattr(signal, "SIGUSR1"):
        signal.signal(signal.SIGUSR1, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    os.environ |= {PLACE: place, "TMPDIR": place}  # what a process leaves that is killed goes with the folder
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // devices)))
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")  # each process would tell of the others' end
    try:
        yield
    finally:
        for number, handler in theirs.items():
            signal.signal(number, handler)
        os.environ.clear()
        os.environ.update(environment)


def _end_all(place: Path) -> None:
    """None of the processes outlives this one."""
    for file in place.glob("pid-*") if hasattr(os, "killpg") else ():
        with contextlib.suppress(ProcessLookupError, PermissionError, ValueError):
            os.killpg(int(file.read_text()), signal.SIGKILL)


def _conclude(place: Path, devices: int, failed: tuple[int, int] | None, *, stopped: bool) -> int:
    """The exit code, and what has to be said since no process could."""
    told = {rank: _read(place / f"code-{rank}") for rank in range(devices)}
    if told[0].isdigit():  # it has said why
        return int(told[0])
    for rank, code in told.items():
        said = _read(place / f"said-{rank}").splitlines()
        if code.isdigit() and int(code) != EXIT_OK and said:
            reason = re.sub(r"^(\[rank\d+\]: ?|dltips: )", "", said[-1])  # torch's mark on a traceback, or ours
            return fail(f"process {rank + 1} of {devices}: {reason}", int(code))
    if stopped:
        return fail("interrupted", EXIT_INTERRUPTED)
    rank, status = failed or (0, EXIT_INTERNAL)
    how = f"ended with status {status}"
    if status < 0:
        how = f"was killed by {signal.Signals(-status).name}"
        how += " (memory may have run out)" if -status == signal.SIGKILL else ""
    path = _read(place / "folder")
    remedy = f"; dltips train resume={path} goes on from its last checkpoint" if path else "; nothing was trained yet"
    return fail(f"process {rank + 1} of {devices} {how}, and the others with it{remedy}", EXIT_INTERNAL)


def _read(file: Path) -> str:
    try:
        return file.read_text(errors="replace").strip()
    except OSError:
        return ""


# One of several


def _as_one_of(place: World, composed: DictConfig, overrides: list[str], one_run: Callable[[], int]) -> int:
    """The run, as one of its processes."""
    if "devices" in typed_keys(overrides) and composed.devices != place.size:
        raise ConfigError(
            f"devices: {composed.devices} are wanted, and {place.size} processes were started; leave devices out"
        )
    composed.devices = place.size
    heard = os.dup(2)
    if place.rank:
        _silence(place.rank)
    with _connected(place, str(composed.get("device"))) as first:
        from dltips.train.group import Lost

        try:
            return one_run()
        except Lost:
            tell(f"code-{place.rank}", LOST)
            if PLACE not in os.environ and place.rank == 0:
                fail("another process of this run is gone, which ends the run")
            return EXIT_INTERNAL
        except ConfigError as error:
            if place.rank and PLACE not in os.environ and not _goes(first):
                os.write(heard, f"dltips: process {place.rank + 1} of {place.size}: {error}\n".encode())
            raise
        except Exception as error:
            if place.rank and PLACE not in os.environ:
                text = f"dltips: process {place.rank + 1} of {place.size}: {type(error).__name__}: {error}"
                os.write(heard, f"{' '.join(text.split())}\n".encode())
            raise


def _goes(first: int | None) -> bool:
    """Whether process 0 ends, too: what is wrong in all processes that one says."""
    until = time.monotonic() + 2 * GRACE
    while time.monotonic() < until:
        if first is None or not _is_alive(first):
            return True
        time.sleep(0.1)
    return False


@contextlib.contextmanager
def _connected(place: World, device: str) -> Iterator[int | None]:
    """Within, torch.distributed connects the processes. Yields process 0's pid, if it is on this machine."""
    import datetime

    import torch
    from torch import distributed

    gpu = device in ("auto", "cuda") and torch.cuda.is_available()
    if gpu:
        check_devices(place.local_size, device)
        torch.cuda.set_device(place.local_rank)
    os.environ |= {
        "MASTER_ADDR": place.address,
        "MASTER_PORT": str(place.port),
        "RANK": str(place.rank),
        "WORLD_SIZE": str(place.size),
        "LOCAL_RANK": str(place.local_rank),
        "LOCAL_WORLD_SIZE": str(place.local_size),
    }
    try:
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if gpu else "gloo",
            timeout=datetime.timedelta(minutes=30),  # the first process may draw, save or download meanwhile
            device_id=torch.device("cuda", place.local_rank) if gpu else None,
        )
    except (RuntimeError, ValueError) as error:
        raise ConfigError(
            f"devices: the {place.size} processes do not find each other at {place.address}:{place.port}"
            f" ({' '.join(str(error).split())[:120]})"
        ) from error
    here = _on_this_machine()
    threading.Thread(target=_watch, args=(list(here.values()),), daemon=True).start()
    yield here.get(0)
    distributed.destroy_process_group()  # not behind an error: it would wait for those that are gone


def _on_this_machine() -> dict[int, int]:
    """The pid of each rank that runs here."""
    from dltips.train.group import group

    peers = group().gather([platform.node(), os.getpid()])
    return {rank: pid for rank, (node, pid) in enumerate(peers) if node == platform.node()}


def _watch(peers: Sequence[int]) -> None:
    """End this process soon after another one is gone, even while it waits for a GPU or a message that never comes."""
    from torch import distributed

    from dltips.train.group import OVER

    parent = os.getppid() if PLACE in os.environ else None
    while not OVER.wait(1.0):
        if parent is not None and os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGTERM)  # nobody is there to be told: save, and end
            return
        if not all(map(_is_alive, peers)):
            if not OVER.wait(GRACE):
                tell(f"code-{distributed.get_rank()}", LOST)
                os._exit(EXIT_INTERNAL)
            return


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        # one that has ended and was not waited for yet
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except ProcessLookupError:
        return False
    except OSError:
        return True


def _silence(rank: int) -> None:
    """What this process says goes to the starting process's folder, or nowhere."""
    name = Path(os.environ[PLACE]) / f"said-{rank}" if PLACE in os.environ else os.devnull
    sys.stdout.flush()
    sys.stderr.flush()
    with open(name, "a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)


def tell(name: str, text: object) -> None:
    """To the starting process, if there is one; what is told first counts."""
    if PLACE in os.environ:
        with contextlib.suppress(OSError), (Path(os.environ[PLACE]) / name).open("x") as file:
            file.write(str(text))
