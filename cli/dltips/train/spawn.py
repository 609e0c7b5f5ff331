"""From one command to several processes and back to one exit code; or one of those that torchrun or srun started.

Imports no torch before it is certain that there are to be several.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
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
GRACE = 10.0  # seconds, in which processes that were killed are gone
TAIL = 40  # lines of what a process said last


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
    with _Stop() as stop:
        if composed.get("resume") is None:
            from dltips.config import validate

            settings = validate(composed).settings
            check_devices(devices, settings.device)
            from dltips.train.distributed import check_batch_size

            check_batch_size(settings.batch_size, devices)
        else:
            check_devices(devices, str(_kept(composed, overrides, "device", "auto")))
        return _start(devices, arguments, stop)


def _asked(composed: DictConfig, overrides: list[str]) -> int:
    """How many devices: as typed; of a run that goes on, as it had. Errors: ConfigError."""
    from dltips.registry import Size, check_value

    return int(check_value("devices", _kept(composed, overrides, "devices", 1), Size))


def _kept(composed: DictConfig, overrides: list[str], key: str, default: object) -> Any:
    """As typed; of a run that goes on, as it had. Errors: ConfigError."""
    if composed.get("resume") is None or key in typed_keys(overrides):
        return composed.get(key)
    from dltips.train import folder

    return folder.read_config(folder.find_to_resume(str(composed.resume))).get(key, default)


def check_device(devices: int, device: str) -> None:
    """Errors: ConfigError for a device of which there is one, if so many are wanted."""
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
    """Whether this machine has so many. Errors: ConfigError."""
    import torch

    check_device(devices, device)
    if device == "cpu" or not torch.cuda.is_available():
        cores = os.cpu_count() or 1
        if devices > max(cores, FEW):
            raise ConfigError(f"devices: {devices} processes on a CPU of {cores} cores; write devices={cores} at most")
        return
    count = torch.cuda.device_count()
    if devices > count:
        gpus = "1 GPU" if count == 1 else f"{count} GPUs"
        raise ConfigError(f"devices: {devices} are wanted and there is {gpus}; lower it, or write device=cpu")


def _start(devices: int, arguments: list[str], stop: _Stop) -> int:
    """Run `dltips train` with these arguments in so many processes, which end before this does; the exit code."""
    import logging

    failed: tuple[int, int] | None = None  # the rank that went first, and its exit status
    with tempfile.TemporaryDirectory(prefix="dltips-") as name, _surroundings(devices, name):
        place = Path(name)
        logging.disable(logging.CRITICAL)  # what torch says of an end is said here, in one line
        try:
            if not stop.asked:
                failed = _supervise(devices, place, arguments, stop)
        finally:
            logging.disable(logging.NOTSET)
            _end_all(place)
        return _conclude(place, devices, failed, stopped=stop.asked > 0)


class _Stop:
    """Within, signals are counted: the first one is for the processes, so that they save, a second one for this one.

    A scheduler says SIGUSR1. One that comes right after another is the same word: whoever ends a process and its group
    signals twice.
    """

    NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1")
    SAME = 0.5  # seconds

    def __init__(self) -> None:
        self.asked = 0
        self.at = 0.0
        self.theirs: dict[int, Any] = {}

    def hear(self, number: int, frame: object) -> None:
        now = time.monotonic()
        if not self.asked or now - self.at > self.SAME:
            self.asked, self.at = self.asked + 1, now

    def __enter__(self) -> _Stop:
        if threading.current_thread() is threading.main_thread():
            numbers = [getattr(signal, name) for name in self.NAMES if hasattr(signal, name)]
            # what nohup has switched off stays off
            numbers = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
            self.theirs = {number: signal.signal(number, self.hear) for number in numbers}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self.theirs.items():
            signal.signal(number, handler)


def _supervise(devices: int, place: Path, arguments: list[str], stop: _Stop) -> tuple[int, int] | None:
    """Start the processes and wait for their end; the rank that failed first, if any, and its exit status.

    Torch's supervisor gets a thread, in which it leaves signals alone: else it would kill 30 s after the first.
    """
    ended: list[BaseException | None] = []

    def supervise() -> None:
        from torch.distributed import run as torchrun

        flags = ["--standalone", "--nproc-per-node", str(devices), "--log-dir", str(place)]
        try:
            parsed = torchrun.parse_args([*flags, "-m", "dltips.train.rank", *arguments])  # type: ignore[no-untyped-call]
            torchrun.run(parsed)  # type: ignore[no-untyped-call]
            ended.append(None)
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=supervise, daemon=True)
    thread.start()
    told: set[Path] = set()
    while thread.is_alive() and stop.asked < 2:
        thread.join(0.1)
        for file in set(place.glob("pid-*")) - told if stop.asked else ():
            with contextlib.suppress(OSError, ValueError):
                os.kill(int(file.read_text()), signal.SIGTERM)
                told.add(file)
    until = time.monotonic() + GRACE
    while thread.is_alive() and time.monotonic() < until:
        _end_all(place)  # also those that begin only now
        thread.join(0.1)
    if ended and ended[0] is not None:
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

        if not isinstance(ended[0], ChildFailedError):
            raise ended[0]
        rank, failure = ended[0].get_first_failure()
        return rank, failure.exitcode
    return None


@contextlib.contextmanager
def _surroundings(devices: int, place: str) -> Iterator[None]:
    """What the processes inherit."""
    environment = dict(os.environ)
    os.environ |= {PLACE: place, "TMPDIR": place}  # what a process leaves that is killed goes with the folder
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // devices)))
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")  # each process would tell of the others' end
    try:
        yield
    finally:
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
    path = _read(place / "folder")
    for rank, code in told.items():
        why = _read(place / f"why-{rank}")
        if code.isdigit() and int(code) != EXIT_OK and why:
            _keep(place, rank, path)
            return fail(f"process {rank + 1} of {devices}: {why}", int(code))
    if stopped:
        return fail(f"interrupted{' at once, without saving' if path else ''}; {_remedy(path)}", EXIT_INTERRUPTED)
    rank, status = failed or (0, EXIT_INTERNAL)
    how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
    how += " (memory may have run out)" if -status == signal.SIGKILL else ""
    _keep(place, rank, path)
    return fail(f"process {rank + 1} of {devices} {how}, and the others with it; {_remedy(path)}", EXIT_INTERNAL)


def _remedy(path: str) -> str:
    """How to go on with a run that could not save; `path` is its folder, if it got that far."""
    from dltips.train import checkpoint

    if not path:
        return "nothing was trained yet"
    if not any((Path(path) / name).exists() for name in (checkpoint.LAST, checkpoint.PREVIOUS)):
        return f"no checkpoint was saved yet in {path}: start again"
    return f"dltips train resume={path} goes on from its last checkpoint"


def _keep(place: Path, rank: int, path: str) -> None:
    """The end of what a process said, a traceback for instance, goes to run.log: the first one has said its own."""
    said = _read(place / f"said-{rank}").splitlines()[-TAIL:]
    if rank and said and path:
        from dltips.train import folder

        with contextlib.suppress(OSError), (Path(path) / folder.LOG).open("a", encoding="utf-8") as log:
            log.writelines(f"process {rank + 1}: {line}\n" for line in said)


def _read(file: Path) -> str:
    try:
        return file.read_text(errors="replace").strip()
    except OSError:
        return ""


# One of several


def _as_one_of(place: World, composed: DictConfig, overrides: list[str], one_run: Callable[[], int]) -> int:
    """The run, as one of its processes."""
    heard = os.dup(2)
    if place.rank:
        _silence(place.rank)
    if "devices" in typed_keys(overrides) and composed.devices != place.size:
        raise ConfigError(
            f"devices: {composed.devices} are wanted, and {place.size} processes were started; leave devices out"
        )
    composed.devices = place.size
    from dltips.train.group import Lost, connected

    first: int | None = None
    try:
        with connected(place, str(_kept(composed, overrides, "device", "auto"))) as first:
            return one_run()
    except Lost:
        tell(f"code-{place.rank}", LOST)
        if PLACE not in os.environ and place.rank == 0:
            fail("another process of this run is gone, which ends the run")
        return EXIT_INTERNAL
    except Exception as error:
        from dltips.train.run import reason

        if place.rank:
            tell(f"why-{place.rank}", reason(error))
            # what is wrong in all processes the first one says
            if PLACE not in os.environ and not (isinstance(error, ConfigError) and _goes(first)):
                os.write(heard, f"dltips: process {place.rank + 1} of {place.size}: {reason(error)}\n".encode())
        raise


def _goes(first: int | None) -> bool:
    """Whether process 0 ends, too."""
    from dltips.train.group import is_alive

    until = time.monotonic() + GRACE
    while time.monotonic() < until:
        if first is None or not is_alive(first):
            return True
        time.sleep(0.1)
    return False


def _silence(rank: int) -> None:
    """What this process says goes to the starting process's folder, or nowhere."""
    name = Path(os.environ[PLACE]) / f"said-{rank}" if PLACE in os.environ else os.devnull
    sys.stdout.flush()
    sys.stderr.flush()
    with open(name, "a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)


def told_why() -> str:
    """What another process of this machine has told of its end; "" where none has."""
    files = sorted(Path(os.environ[PLACE]).glob("why-*")) if PLACE in os.environ else []
    reasons = [f"process {int(file.name.removeprefix('why-')) + 1}: {_read(file)}" for file in files]
    return next(iter(reasons), "")


def tell(name: str, text: object) -> None:
    """To the starting process, if there is one; what is told first counts."""
    if PLACE in os.environ:
        with contextlib.suppress(OSError), (Path(os.environ[PLACE]) / name).open("x") as file:
            file.write(str(text))
