"""hydra/launcher=ray: runs trials on a Ray cluster's machines, or by Ray on this one.

Ray sends trials to free cores and GPUs, and gives each its own by CUDA_VISIBLE_DEVICES. Hydra's own plugin is not
used: it requires pickle5, which Python 3.11 has no use for, and composes each trial when it starts.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from dltips.catalog.registry import Bounds, NonNegative, Positive
from dltips.errors import ConfigError
from dltips.sweep.grid.launch.executor import JobLost, collect, ignore_sigint
from dltips.sweep.grid.launch.remote_trial import Job, JobResult, jobs_of, run_job
from dltips.sweep.trial import Trial, TrialOutcome
from dltips.train.context import RunContext

ANSWER_WITHIN = 5.0  # seconds


@dataclass(frozen=True, kw_only=True)
class Knobs:
    address: str | None
    num_cpus: Positive
    num_gpus: NonNegative | None
    max_retries: Annotated[int, Bounds(least=0)]


def launcher(knobs: Knobs) -> Any:
    """Returns the launcher. Raises ConfigError for an address where no cluster answers."""
    address = knobs.address
    if address is not None and address != "auto":
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit():
            raise ConfigError(
                f"hydra.launcher.address: {address!r} is not an address; write HOST:6379, as ray start says it, or auto"
            )
        try:
            socket.create_connection((host, int(port)), timeout=ANSWER_WITHIN).close()
        except OSError as error:
            raise ConfigError(
                f"hydra.launcher.address: {address} does not answer ({error.strerror or error}); start Ray there:"
                f" ray start --head --port={port}"
            ) from error
    return partial(_launch, knobs)


def _launch(knobs: Knobs, trials: Sequence[Trial], place: Path, context: RunContext) -> Iterator[TrialOutcome]:
    with ray_session(knobs.address) as ray:
        gpus = knobs.num_gpus
        if gpus is None:
            gpus = 1.0 if ray.cluster_resources().get("GPU", 0) >= 1 else 0.0
        wanted = {"CPU": knobs.num_cpus, "GPU": gpus}
        check_room(wanted, [node["Resources"] for node in ray.nodes() if node["Alive"]])
        executor = RayExecutor(
            ray, jobs_of(trials, place, context.typed, max(1, int(knobs.num_cpus))), wanted, knobs.max_retries
        )
        yield from collect(executor, place, context)


@contextlib.contextmanager
def ray_session(address: str | None) -> Iterator[Any]:
    """Connects to the Ray cluster, or starts one that ends with the block. Raises ConfigError."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no usage reports
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")  # a trial that asks for no GPU sees none
    os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", str(int(ANSWER_WITHIN)))  # a try takes a second
    _bring_token(address)
    with redirect_output() as said:
        import ray

        logging.getLogger("ray").setLevel(logging.CRITICAL)
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
        if address is None:
            quiet["include_dashboard"] = False
        try:
            with ignore_sigint():
                ray.init(address=address or "local", **quiet)
        except Exception as error:
            raise ConfigError(f"hydra/launcher=ray: {_why_not(str(error), said(), address)}") from error
        try:
            yield ray
        finally:
            ray.shutdown()


def _bring_token(address: str | None) -> None:
    """Creates a token for a cluster of our own, kept in no file; another cluster gets the user's, if there is one.

    Ray 2.60 starts clusters with a token by default, and joins them without, unless RAY_AUTH_MODE says so.
    """
    if "RAY_AUTH_MODE" in os.environ:
        return
    if address is None:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    named = os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token"
    if "RAY_AUTH_TOKEN" in os.environ or Path(named).is_file():
        os.environ["RAY_AUTH_MODE"] = "token"


@contextlib.contextmanager
def redirect_output() -> Iterator[Callable[[], str]]:
    """Redirects Ray's output to a file during the block and yields its text; our notes stay on stderr."""
    with tempfile.TemporaryFile() as file:
        stdout, stderr, terminal = sys.stdout, sys.stderr, os.dup(2)

        def said() -> str:
            file.seek(0)
            return file.read().decode(errors="replace")

        with os.fdopen(os.dup(terminal), "w", buffering=1) as ours, os.fdopen(os.dup(file.fileno()), "w") as theirs:
            sys.stdout, sys.stderr = theirs, ours
            os.dup2(file.fileno(), 2)  # Ray's compiled parts write there
            try:
                yield said
            finally:
                os.dup2(terminal, 2)
                os.close(terminal)
                sys.stdout, sys.stderr = stdout, stderr


def _why_not(text: str, said: str, address: str | None) -> str:
    if "AuthToken" in text + said or "token" in text:
        return (
            "the cluster wants its token; copy ~/.ray/auth_token from the machine of ray start --head, or set"
            " RAY_AUTH_TOKEN"
        )
    if address == "auto":
        return "this machine is in no cluster; ray start --head, or write hydra.launcher.address=HOST:6379"
    return (
        f"{address or 'a cluster of its own'} cannot be joined from here ({' '.join(text.split())[:160]}); this machine"
        " has to be one of the cluster's: ray start --address=HOST:6379"
    )


def check_room(wanted: dict[str, float], nodes: Sequence[dict[str, float]]) -> None:
    """Raises ConfigError for resources that no machine has: Ray would wait for them forever."""
    if any(all(node.get(name, 0) >= amount for name, amount in wanted.items()) for node in nodes):
        return
    there = "; ".join(sorted({f"{node.get('CPU', 0):g} cores and {node.get('GPU', 0):g} GPUs" for node in nodes}))
    raise ConfigError(
        f"hydra.launcher.num_cpus, num_gpus: no machine of the cluster has {wanted['CPU']:g} cores and"
        f" {wanted['GPU']:g} GPUs; they have {there or 'nothing'}"
    )


class RayExecutor:
    """Submits all trials to Ray at once, which runs as many as fit."""

    def __init__(self, ray: Any, waiting: Sequence[Job], wanted: dict[str, float], retries: int) -> None:
        self._ray = ray
        far_end = ray.remote(num_cpus=wanted["CPU"], num_gpus=wanted["GPU"], max_retries=retries)(run_job)
        self._out = {far_end.remote(remote_job): remote_job.trial for remote_job in waiting}
        self._stopped = False

    @property
    def busy(self) -> bool:
        return bool(self._out)

    def wait(self, seconds: float) -> list[tuple[Trial, JobResult | JobLost]]:
        ready, _ = self._ray.wait(list(self._out), num_returns=1, timeout=seconds)
        return [(self._out.pop(task), self._reply(task)) for task in ready]

    def stop(self) -> None:
        self._stopped = True
        for task in self._out:
            self._ray.cancel(task, force=False)  # raises KeyboardInterrupt there, which the run handles as ctrl-C

    def close(self) -> None:
        for task in self._out:
            self._ray.cancel(task, force=True)

    def _reply(self, task: Any) -> JobResult | JobLost:
        errors = self._ray.exceptions
        try:
            reply = self._ray.get(task)
        except errors.OutOfMemoryError:
            return JobLost("killed by Ray, for its memory")
        except (errors.TaskCancelledError, KeyboardInterrupt):
            return JobLost("stopped")
        except errors.RayError as error:
            return JobLost(_lost(error))
        assert isinstance(reply, JobResult)
        return reply


def _lost(error: Exception) -> str:
    name, text = type(error).__name__, " ".join(str(error).split())
    if "Node" in name or "node" in text.split(".")[0]:
        return "lost with its machine"
    if name == "WorkerCrashedError" or "died" in text:
        return "killed, perhaps for its memory"
    return f"ended by Ray ({name}: {text[:160]})"
