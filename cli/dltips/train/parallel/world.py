"""Finds a process's place among those that share its run, and passes messages to their parent by files."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dltips.errors import ConfigError

# a folder of the parent: each rank's pid, exit code and output, and the run folder
MESSAGES_VARIABLE = "DLTIPS_PROCESSES"


LOST_CODE = "lost"  # instead of an exit code: another process failed first


CPU_PROCESSES_ALLOWED = 4  # up to so many processes may share a CPU with fewer cores, for trying things out


@dataclass(frozen=True)
class World:
    """This process's place among those of the run."""

    rank: int
    size: int
    local_rank: int
    local_size: int
    address: str
    port: int


def world_from(environment: Mapping[str, str]) -> World | None:
    """Returns this process's place under torchrun or srun; None if it is alone. Raises ConfigError.

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
        # two runs of one job, one after the other, need different ports; below those that the system assigns
        chosen = (
            10000 + (_number(environment, "SLURM_JOB_ID", 0) * 7 + _number(environment, "SLURM_STEP_ID", 0)) % 20000
        )
        port = _number(environment, "MASTER_PORT", chosen)
    else:
        return None
    if not 0 <= rank < size:
        raise ConfigError(f"devices: the environment calls this process number {rank} of {size}; fix RANK, WORLD_SIZE")
    return World(rank, size, local_rank, local_size, address, port) if size > 1 else None


def _under_srun(environment: Mapping[str, str]) -> bool:
    return "SLURM_STEP_NUM_TASKS" in environment or environment.get("ENVIRONMENT") != "BATCH"


def _number(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = environment.get(name)
    if text is None and default is not None:
        return default
    if text is None or not text.isdigit():
        raise ConfigError(f"devices: the environment variable {name} is {text!r}, which is not a number")
    return int(text)


def _first_node(environment: Mapping[str, str]) -> str:
    """Returns the node of process 0: the first of `node[003-007,12]`; its own address if there is only one node."""
    if environment.get("SLURM_STEP_NUM_NODES") == "1":
        return "127.0.0.1"
    names = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST") or ""
    found = re.match(r"([^,\[]+)(?:\[(\w+))?", names)
    if found:
        return found.group(1) + (found.group(2) or "")
    return environment.get("SLURM_LAUNCH_NODE_IPADDR", "127.0.0.1")


def check_device(devices: int, device: str) -> None:
    """Raises ConfigError if several devices are requested of a kind that exists once."""
    import torch

    if device.startswith("cuda:"):
        raise ConfigError(
            f"device: {device} is one device, and devices is {devices}; write device=auto or leave devices out"
            " (CUDA_VISIBLE_DEVICES says which GPUs are meant)"
        )
    if device == "auto" and not torch.cuda.is_available() and torch.backends.mps.is_available():
        device = "mps"
    if device.startswith("mps"):
        raise ConfigError(f"device: {device} is one device, and devices is {devices}; write device=cpu")


def check_devices(devices: int, device: str) -> None:
    """Raises ConfigError if this machine has fewer devices."""
    import torch

    check_device(devices, device)
    if device == "cpu" or not torch.cuda.is_available():
        cores = os.cpu_count() or 1
        if devices > max(cores, CPU_PROCESSES_ALLOWED):
            raise ConfigError(f"devices: {devices} processes on a CPU of {cores} cores; write devices={cores} at most")
        return
    count = torch.cuda.device_count()
    if devices > count:
        gpus = "1 GPU" if count == 1 else f"{count} GPUs"
        raise ConfigError(f"devices: {devices} are wanted and there is {gpus}; lower it, or write device=cpu")


def read_message(file: Path) -> str:
    try:
        return file.read_text(errors="replace").strip()
    except OSError:
        return ""


def reported_reason() -> str:
    """Returns the reason that another process of this machine reported for its end; "" without one."""
    files = sorted(Path(os.environ[MESSAGES_VARIABLE]).glob("why-*")) if MESSAGES_VARIABLE in os.environ else []
    reasons = [f"process {int(file.name.removeprefix('why-')) + 1}: {read_message(file)}" for file in files]
    return next(iter(reasons), "")


def send_message(name: str, text: object) -> None:
    """Writes a message file for the parent, if any; the first write of a name wins."""
    if MESSAGES_VARIABLE in os.environ:
        with contextlib.suppress(OSError), (Path(os.environ[MESSAGES_VARIABLE]) / name).open("x") as file:
            file.write(str(text))
