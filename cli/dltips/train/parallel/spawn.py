"""Starts the processes of a run and returns one exit code; or runs as one of those that torchrun or srun started.

Imports no torch before several processes are certain.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from dltips.config.overrides import typed_keys
from dltips.errors import ConfigError
from dltips.exit_codes import EXIT_INTERNAL, EXIT_INTERRUPTED, EXIT_OK, fail
from dltips.runs.file_names import LOG
from dltips.signals import handling, present
from dltips.train.parallel.world import (
    LOST_CODE,
    MESSAGES_VARIABLE,
    World,
    check_devices,
    read_message,
    send_message,
    world_from,
)

KILL_GRACE = 10.0  # seconds until killed processes are gone
TAIL_LINES = 40  # last lines of a process's output


def run_on_devices(composed: DictConfig, overrides: list[str], arguments: list[str], one_run: Callable[[], int]) -> int:
    """Runs in this process, or in several; returns the exit code. Raises ConfigError.

    `arguments` are those of `dltips train`, for the processes that are started.
    """
    world = world_from(os.environ)
    if world is not None:
        return _run_as_process(world, composed, overrides, one_run)
    devices = _requested_devices(composed, overrides)
    if devices == 1:
        return one_run()
    with counting_signals() as stop:
        if composed.get("resume") is None:
            from dltips.config.validation import validate

            settings = validate(composed).settings
            check_devices(devices, settings.device)
            from dltips.train.parallel.sharing import check_batch_size

            check_batch_size(settings.batch_size, devices)
        else:
            check_devices(devices, str(_typed_or_stored(composed, overrides, "device", "auto")))
        return _start_processes(devices, arguments, stop)


def _requested_devices(composed: DictConfig, overrides: list[str]) -> int:
    """Returns the number of devices: as typed, or that of the resumed run. Raises ConfigError."""
    from dltips.catalog.registry import Size, check_value

    return int(check_value("devices", _typed_or_stored(composed, overrides, "devices", 1), Size))


def _typed_or_stored(composed: DictConfig, overrides: list[str], key: str, default: object) -> Any:
    """Returns the value as typed, or that of the resumed run. Raises ConfigError."""
    if composed.get("resume") is None or key in typed_keys(overrides):
        return composed.get(key)
    from dltips.runs import folder

    return folder.read_config(folder.find_to_resume(str(composed.resume))).get(key, default)


def _start_processes(devices: int, arguments: list[str], stop: StopCount) -> int:
    """Runs `dltips train` with these arguments in several processes, ends them all, and returns the exit code."""
    import logging

    failed: tuple[int, int] | None = None  # the rank that failed first, and its exit status
    with tempfile.TemporaryDirectory(prefix="dltips-") as name, _inherited_environment(devices, name):
        messages = Path(name)
        logging.disable(logging.CRITICAL)  # torch's message about a process's end is replaced by one line
        try:
            if not stop.count:
                failed = _supervise(devices, messages, arguments, stop)
        finally:
            logging.disable(logging.NOTSET)
            _end_all(messages)
        return _conclude(messages, devices, failed, stopped=stop.count > 0)


class StopCount:
    """Counts the signals that ask to stop: after the first the processes save and end, a second ends them at once.

    Two signals within 0.5 s count as one, because killing a process group delivers the signal twice.
    """

    SAME_SIGNAL = 0.5  # seconds

    def __init__(self) -> None:
        self.count = 0
        self.counted_at = 0.0

    def on_signal(self, number: int, frame: object) -> None:
        now = time.monotonic()
        if not self.count or now - self.counted_at > self.SAME_SIGNAL:
            self.count, self.counted_at = self.count + 1, now


@contextlib.contextmanager
def counting_signals() -> Iterator[StopCount]:
    """Counts signals during the block. A signal ignored by nohup stays ignored."""
    count = StopCount()
    numbers = present("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1")
    with handling(count.on_signal, [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]):
        yield count


def _supervise(devices: int, messages: Path, arguments: list[str], stop: StopCount) -> tuple[int, int] | None:
    """Starts the processes and waits for them; returns the first failed rank, if any, and its exit status.

    Torch's supervisor runs in a thread, in which it leaves signals alone: else it would kill 30 s after the first.
    """
    ended: list[BaseException | None] = []

    def supervise() -> None:
        from torch.distributed import run as torchrun

        flags = ["--standalone", "--nproc-per-node", str(devices), "--log-dir", str(messages)]
        try:
            parsed = torchrun.parse_args([*flags, "-m", "dltips.commands.worker_main", *arguments])  # type: ignore[no-untyped-call]
            torchrun.run(parsed)  # type: ignore[no-untyped-call]
            ended.append(None)
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=supervise, daemon=True)
    thread.start()
    signalled: set[Path] = set()
    while thread.is_alive() and stop.count < 2:
        thread.join(0.1)
        for file in set(messages.glob("pid-*")) - signalled if stop.count else ():
            with contextlib.suppress(OSError, ValueError):
                os.kill(int(file.read_text()), signal.SIGTERM)
                signalled.add(file)
    deadline = time.monotonic() + KILL_GRACE
    while thread.is_alive() and time.monotonic() < deadline:
        _end_all(messages)  # also those that are starting
        thread.join(0.1)
    if ended and ended[0] is not None:
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

        if not isinstance(ended[0], ChildFailedError):
            raise ended[0]
        rank, failure = ended[0].get_first_failure()
        return rank, failure.exitcode
    return None


@contextlib.contextmanager
def _inherited_environment(devices: int, messages: str) -> Iterator[None]:
    """Sets the environment that the processes inherit."""
    environment = dict(os.environ)
    # files left by a killed process are removed with the folder
    os.environ |= {MESSAGES_VARIABLE: messages, "TMPDIR": messages}
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // devices)))
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")  # else each process would report the end of the others
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(environment)


def _end_all(messages: Path) -> None:
    """Ends all processes, so that none outlives this one."""
    for file in messages.glob("pid-*") if hasattr(os, "killpg") else ():
        with contextlib.suppress(ProcessLookupError, PermissionError, ValueError):
            os.killpg(int(file.read_text()), signal.SIGKILL)


def _conclude(messages: Path, devices: int, failed: tuple[int, int] | None, *, stopped: bool) -> int:
    """Returns the exit code; prints the reason if process 0 could not."""
    codes = {rank: read_message(messages / f"code-{rank}") for rank in range(devices)}
    if codes[0].isdigit():  # it has reported the reason
        return int(codes[0])
    path = read_message(messages / "folder")
    for rank, code in codes.items():
        why = read_message(messages / f"why-{rank}")
        if code.isdigit() and int(code) != EXIT_OK and why:
            _append_to_log(messages, rank, path)
            return fail(f"process {rank + 1} of {devices}: {why}", int(code))
    if stopped:
        return fail(f"interrupted{' at once, without saving' if path else ''}; {how_to_resume(path)}", EXIT_INTERRUPTED)
    rank, status = failed or (0, EXIT_INTERNAL)
    how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
    how += " (memory may have run out)" if -status == signal.SIGKILL else ""
    _append_to_log(messages, rank, path)
    return fail(f"process {rank + 1} of {devices} {how}, and the others with it; {how_to_resume(path)}", EXIT_INTERNAL)


def how_to_resume(path: str) -> str:
    """Returns how to resume a run that could not save; `path` is its folder, if it was made."""
    from dltips.runs import checkpoint

    if not path:
        return "nothing was trained yet"
    if not any((Path(path) / name).exists() for name in (checkpoint.LAST, checkpoint.PREVIOUS)):
        return f"no checkpoint was saved yet in {path}: start again"
    return f"dltips train resume={path} goes on from its last checkpoint"


def _append_to_log(messages: Path, rank: int, path: str) -> None:
    """Appends the end of a process's output, such as a traceback, to run.log; the first process has its own."""
    lines = read_message(messages / f"said-{rank}").splitlines()[-TAIL_LINES:]
    if rank and lines and path:
        with contextlib.suppress(OSError), (Path(path) / LOG).open("a", encoding="utf-8") as log:
            log.writelines(f"process {rank + 1}: {line}\n" for line in lines)


# One of several processes


def _run_as_process(world: World, composed: DictConfig, overrides: list[str], one_run: Callable[[], int]) -> int:
    """Trains as one of the run's processes."""
    stderr = os.dup(2)
    if world.rank:
        _silence(world.rank)
    if "devices" in typed_keys(overrides) and composed.devices != world.size:
        raise ConfigError(f"devices: {composed.devices}, but {world.size} processes were started; leave devices out")
    composed.devices = world.size
    from dltips.train.parallel.group import ProcessLost, connected

    first_pid: int | None = None
    try:
        with connected(world, str(_typed_or_stored(composed, overrides, "device", "auto"))) as first_pid:
            return one_run()
    except ProcessLost:
        send_message(f"code-{world.rank}", LOST_CODE)
        if MESSAGES_VARIABLE not in os.environ and world.rank == 0:
            fail("another process of this run is gone, which ends the run")
        return EXIT_INTERNAL
    except Exception as error:
        from dltips.train.run import reason

        if world.rank:
            send_message(f"why-{world.rank}", reason(error))
            # the first process reports errors that all of them have
            if MESSAGES_VARIABLE not in os.environ and not (isinstance(error, ConfigError) and _has_ended(first_pid)):
                os.write(stderr, f"dltips: process {world.rank + 1} of {world.size}: {reason(error)}\n".encode())
        raise


def _has_ended(first_pid: int | None) -> bool:
    """Returns whether process 0 ends, too."""
    from dltips.train.parallel.group import is_alive

    deadline = time.monotonic() + KILL_GRACE
    while time.monotonic() < deadline:
        if first_pid is None or not is_alive(first_pid):
            return True
        time.sleep(0.1)
    return False


def _silence(rank: int) -> None:
    """Redirects this process's output to a file for the parent, or to nowhere."""
    name = Path(os.environ[MESSAGES_VARIABLE]) / f"said-{rank}" if MESSAGES_VARIABLE in os.environ else os.devnull
    sys.stdout.flush()
    sys.stderr.flush()
    with open(name, "a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
