"""hydra/launcher=submitit_local: submitit's jobs as processes of this machine, to try SLURM's behaviour locally.

submitit writes a job's call to a file, and its result to another (pickles, in .submitit within the sweep's folder):
both are removed when the job has ended, its log stays. Hydra's own plugin is not used: it starts all jobs at once, and
composes each when it starts.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from dltips.catalog.registry import Count, Size
from dltips.config.plain import leaves
from dltips.config.redaction import redact, redacted
from dltips.errors import ConfigError, OutputError
from dltips.signals import install
from dltips.sweep.grid.launch.executor import JobLost, collect, ignore_sigint
from dltips.sweep.grid.launch.remote_trial import Job, JobResult, jobs_of, run_job
from dltips.sweep.trial import Trial, TrialOutcome
from dltips.train.context import RunContext

FOLDER = ".submitit"  # in the sweep's
STOP = "stop"  # a file in it: the command was stopped
KILLED_WITHIN = 600.0  # seconds that a job waits for its scheduler to end it and perhaps requeue it


@dataclass(frozen=True, kw_only=True)
class Knobs:
    array_parallelism: Size
    timeout_min: Size
    signal_delay_s: Size
    max_num_timeout: Count
    cpus_per_task: int | None
    gpus_per_node: Count


def launcher(knobs: Knobs) -> Any:
    """Returns the launcher."""
    return partial(_launch, knobs)


def _launch(knobs: Knobs, trials: Sequence[Trial], place: Path, context: RunContext) -> Iterator[TrialOutcome]:
    import submitit

    refuse_secrets(trials)
    at_once = min(knobs.array_parallelism, len(trials))
    cores = knobs.cpus_per_task or max(1, (os.cpu_count() or 1) // at_once)
    submits = submitit.LocalExecutor(fresh(place), max_num_timeout=knobs.max_num_timeout)
    submits.update_parameters(timeout_min=knobs.timeout_min, signal_delay_s=knobs.signal_delay_s)
    executor = LocalExecutor(submits, jobs_of(trials, place, context.typed, cores), at_once, knobs.gpus_per_node)
    return collect(executor, place, context)


def fresh(place: Path) -> Path:
    """Returns the folder of the jobs' files, without a stop file. Raises ConfigError."""
    logging.getLogger("submitit").setLevel(logging.ERROR)
    folder = place.resolve() / FOLDER
    try:
        folder.mkdir(exist_ok=True)
        (folder / STOP).unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"outputs: {folder} cannot be written ({error.strerror})") from error
    return folder


def refuse_secrets(trials: Sequence[Trial], texts: Mapping[str, str] | None = None) -> None:
    """Raises ConfigError for anything that looks like a secret: a job's files would contain it."""
    for plain in [trial.plain for trial in trials] + [texts or {}]:
        hidden = dict(leaves(redacted(plain)))
        for key, value in leaves(plain):
            if isinstance(value, str) and (hidden.get(key) != value or redact(value) != value):
                raise ConfigError(
                    f"{key}: holds a secret, and a job's files would show it; write '{key}=${{oc.env:NAME}}', and set"
                    " NAME in the environment"
                )


class RemoteCall:
    """The call that submitit runs; submitit passes its own signal handlers first."""

    def __call__(self, remote_job: Job) -> JobResult:
        """Runs a trial. When the time is up, it saves a checkpoint, and the job is requeued and resumes from it."""
        from submitit.core.job_environment import JobEnvironment

        on_slurm = os.environ.get("SUBMITIT_EXECUTOR") == "slurm"
        if not on_slurm:
            os.setpgid(0, 0)  # the terminal's ctrl-C only reaches the command's process, which passes it on once
        time_is_up = getattr(signal, f"SIG{JobEnvironment.USR_SIG}")
        queue_again: Any = signal.getsignal(time_is_up)
        heard: list[int] = []

        def stop(number: int, frame: object) -> None:
            raise KeyboardInterrupt  # before the first step or after the last one: in between the run handles it

        def save_and_queue(number: int, frame: object) -> None:
            if not heard:
                heard.append(number)
                signal.raise_signal(signal.SIGTERM)

        install(stop, (signal.SIGTERM,))
        install(save_and_queue, (time_is_up,))
        reply = run_job(remote_job)
        with contextlib.suppress(KeyboardInterrupt):  # it is told to stop, which it is about to do
            stopped = reply.outcome is not None and reply.outcome.status == "interrupted" and not reply.outcome.error
            if stopped and heard:
                queue_again(heard[0], None)  # and exits
            if stopped and on_slurm and not (Path(remote_job.place) / FOLDER / STOP).exists():
                # SLURM requeues a preempted job only if it is killed, not if it exits within the grace period
                time.sleep(KILLED_WITHIN)
                raise SystemExit(128 + signal.SIGTERM)
        return reply

    def checkpoint(self, remote_job: Job) -> Any:
        """Returns the call of a requeued job: the same, which resumes from the trial's checkpoint."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, remote_job)


@dataclass
class SubmittedJob:
    """A submitted job and its trial."""

    job: Any
    trial: Trial
    slot: int = 0


def result_of(out: SubmittedJob, stdout_of_kill: str) -> JobResult | JobLost:
    """Returns the result of an ended job; removes its files, keeps its log."""
    paths = out.job.paths
    log = f"see {os.path.relpath(paths.stderr)}"
    if not paths.result_pickle.exists():
        return JobLost(f"{stdout_of_kill} ({log})")
    outcome, result = out.job._get_outcome_and_result()
    for file in (paths.result_pickle, paths.submitted_pickle):
        file.unlink(missing_ok=True)
    if outcome == "success":
        assert isinstance(result, JobResult)
        return result
    reason = str(result).strip().splitlines()[-1]
    if "timed-out too many times" in reason:
        return JobLost("out of time more often than hydra.launcher.max_num_timeout")
    return JobLost(f"ended by {reason} ({log})")


class LocalExecutor:
    """Runs jobs on this machine, so many at a time, each with its own GPUs."""

    def __init__(self, executor: Any, waiting: Sequence[Job], at_once: int, gpus: int) -> None:
        self._executor = executor
        self._waiting = deque(waiting)
        self._gpus = gpus
        self._out: list[SubmittedJob] = []
        for slot in range(at_once):
            self._give(slot)

    @property
    def busy(self) -> bool:
        return bool(self._out)

    def wait(self, seconds: float) -> list[tuple[Trial, JobResult | JobLost]]:
        until = time.monotonic() + seconds
        while not (ended := [out for out in self._out if out.job.done()]) and time.monotonic() < until:
            time.sleep(seconds / 10)
        replies: list[tuple[Trial, JobResult | JobLost]] = []
        for out in ended:
            self._out.remove(out)
            replies.append((out.trial, result_of(out, "killed, perhaps for its memory or its time")))
            self._give(out.slot)
        return replies

    def stop(self) -> None:
        self._waiting.clear()
        (Path(self._executor.folder) / STOP).touch()
        self._terminate()

    def close(self) -> None:
        self._terminate()

    def _terminate(self) -> None:
        for out in self._out:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(out.job.job_id), signal.SIGTERM)  # the job's starter passes it on

    def _give(self, slot: int) -> None:
        if not self._waiting:
            return
        remote_job = self._waiting.popleft()
        gpus = gpus_of(slot, self._gpus)
        self._executor.update_parameters(gpus_per_node=len(gpus), visible_gpus=gpus)
        with ignore_sigint():
            self._out.append(SubmittedJob(self._executor.submit(RemoteCall(), remote_job), remote_job.trial, slot))


def gpus_of(slot: int, each: int) -> list[int]:
    """Returns the numbers of a slot's GPUs for CUDA_VISIBLE_DEVICES; empty if this machine has none."""
    import torch

    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    numbers = [int(number) for number in visible.split(",") if number.strip().isdigit()] or list(range(there))
    return [numbers[(slot * each + index) % len(numbers)] for index in range(min(each, there))]
