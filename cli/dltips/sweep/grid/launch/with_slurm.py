"""hydra/launcher=submitit_slurm: a SLURM cluster's jobs, one for each trial, in one array.

Adds what submitit's script lacks: --requeue, and srun's own --cpus-per-task, which it no longer takes from sbatch
(SLURM 22.05). Hydra's own plugin is not used: it composes each trial when its job starts.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from dltips.catalog.registry import Count, Positive, Size
from dltips.errors import ConfigError
from dltips.sweep.grid.launch.executor import JobLost, collect
from dltips.sweep.grid.launch.remote_trial import Job, JobResult, jobs_of
from dltips.sweep.grid.launch.with_submitit import STOP, RemoteCall, SubmittedJob, fresh, refuse_secrets, result_of
from dltips.sweep.trial import Trial, TrialOutcome
from dltips.train.context import RunContext

LOOK = 2.0  # seconds between two scans of the shared file system
LEFT_ALONE = 60.0  # seconds after scancel; SLURM kills after 30 (KillWait)


@dataclass(frozen=True, kw_only=True)
class Knobs:
    partition: str | None
    account: str | None
    qos: str | None
    constraint: str | None
    array_parallelism: Size
    timeout_min: Size
    signal_delay_s: Size
    max_num_timeout: Count
    cpus_per_task: Size
    gpus_per_node: Count
    gres: str | None
    mem_gb: Positive | None
    setup: list[str]
    additional_parameters: dict[str, Any]


def launcher(knobs: Knobs) -> Any:
    """Returns the launcher. Raises ConfigError if there is no SLURM."""
    for program in ("sbatch", "srun", "sacct", "scancel"):
        if shutil.which(program) is None:
            raise ConfigError(
                f"hydra/launcher=submitit_slurm: there is no {program} here; give the command where SLURM's programs"
                " are, or try it with hydra/launcher=submitit_local"
            )
    refuse_secrets([], {f"hydra.launcher.setup[{index}]": line for index, line in enumerate(knobs.setup)})
    return partial(_launch, knobs)


def _launch(knobs: Knobs, trials: Sequence[Trial], place: Path, context: RunContext) -> Iterator[TrialOutcome]:
    refuse_secrets(trials)
    submits = executor_for(knobs, place)
    executor = SlurmExecutor(submits, jobs_of(trials, place, context.typed, knobs.cpus_per_task))
    return collect(executor, place, context)


def executor_for(knobs: Knobs, place: Path) -> Any:
    """Returns submitit's executor, with all settings of the script. Raises ConfigError."""
    import submitit

    executor = submitit.SlurmExecutor(fresh(place), max_num_timeout=knobs.max_num_timeout)
    optional = {
        "partition": knobs.partition,
        "account": knobs.account,
        "qos": knobs.qos,
        "constraint": knobs.constraint,
        "gpus_per_node": knobs.gpus_per_node or None,
        "gres": knobs.gres,
        "mem": None if knobs.mem_gb is None else f"{round(knobs.mem_gb * 1024)}MB",
        "setup": list(knobs.setup) or None,
    }
    executor.update_parameters(
        job_name=f"dltips-{place.name}",
        time=knobs.timeout_min,
        nodes=1,
        ntasks_per_node=1,
        cpus_per_task=knobs.cpus_per_task,
        array_parallelism=knobs.array_parallelism,
        signal_delay_s=knobs.signal_delay_s,
        srun_args=[f"--cpus-per-task={knobs.cpus_per_task}"],
        additional_parameters={"requeue": True, **knobs.additional_parameters},
        **{name: value for name, value in optional.items() if value is not None},
    )
    return executor


class SlurmExecutor:
    """Submits all jobs to SLURM at once, which limits how many of them run at a time."""

    def __init__(self, executor: Any, waiting: Sequence[Job]) -> None:
        self._folder = Path(executor.folder)
        self._looked = 0.0
        self._stopped: float | None = None
        try:
            with contextlib.redirect_stderr(io.StringIO()), executor.batch():
                jobs = [executor.submit(RemoteCall(), remote_job) for remote_job in waiting]
            self._out = [SubmittedJob(job, remote_job.trial) for job, remote_job in zip(jobs, waiting, strict=True)]
        except Exception as error:
            lines = [line for line in str(error).splitlines() if "sbatch" in line] or str(error).splitlines() or ["?"]
            raise ConfigError(f"hydra/launcher=submitit_slurm: SLURM takes no jobs ({lines[-1].strip()})") from error

    @property
    def busy(self) -> bool:
        return bool(self._out)

    def wait(self, seconds: float) -> list[tuple[Trial, JobResult | JobLost]]:
        if time.monotonic() - self._looked < LOOK:
            time.sleep(seconds)
            return []
        self._looked = time.monotonic()
        files = {file.name for file in self._folder.iterdir()}
        ended = [out for out in self._out if out.job.paths.result_pickle.name in files or self._given_up(out)]
        for out in ended:
            self._out.remove(out)
        return [(out.trial, result_of(out, f"ended by SLURM, as {out.job.state}")) for out in ended]

    def _given_up(self, out: SubmittedJob) -> bool:
        """Returns whether SLURM reports the end of a job that left no result."""
        if self._stopped is None:
            return bool(out.job.watcher.is_done(out.job.job_id))
        late = time.monotonic() - self._stopped > LEFT_ALONE
        return late or bool(out.job.watcher.is_done(out.job.job_id, mode="force"))

    def stop(self) -> None:
        self._stopped = time.monotonic()
        (self._folder / STOP).touch()
        self.close()

    def close(self) -> None:
        if self._out:
            ids = [out.job.job_id for out in self._out]
            subprocess.run(["scancel", *ids], check=False, capture_output=True)
