"""hydra/launcher=submitit_slurm: its script, line by line, and what it makes of SLURM's words.

There is no SLURM here: its programs are stand-ins, and what they are given is looked at.
"""

import os
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from dltips.errors import ConfigError
from dltips.sweep.grid.compose_trials import freeze
from dltips.sweep.grid.launch import with_slurm
from dltips.sweep.grid.launch.remote_trial import jobs_of
from dltips.sweep.grid.launchers import launcher_for
from dltips.sweep.trial import Trial, folder_name
from dltips.train.context import RunContext

pytest.importorskip("submitit", reason="submitit is not installed: pip install 'dltips[submitit]'")

SCRIPT = """#!/bin/bash

# Parameters
#SBATCH --array=0-1%2
#SBATCH --cpus-per-task=3
#SBATCH --error={logs}/%A_%a_0_log.err
#SBATCH --gpus-per-node=1
#SBATCH --job-name=dltips-place
#SBATCH --mem=10240MB
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output={logs}/%A_%a_0_log.out
#SBATCH --partition=gpu
#SBATCH --requeue
#SBATCH --reservation=mine
#SBATCH --signal=USR2@120
#SBATCH --time=240
#SBATCH --wckey=submitit

# setup
source venv/bin/activate

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output {logs}/%A_%a_%t_log.out --error {logs}/%A_%a_%t_log.err --cpus-per-task=3 {python} -u -m \
submitit.core._submit {logs}
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def trials(*overrides: str) -> list[Trial]:
    cells = enumerate(freeze(["device=cpu", *overrides]).cells)
    return [Trial(number, cell.plain, cell.varied, folder_name(number, "0" * 16), "") for number, cell in cells]


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of programs with SLURM's names: sbatch keeps the script, sacct says that both jobs were cancelled."""
    programs = tmp_path / "programs"
    programs.mkdir()
    bodies = {
        "sbatch": f'cp "$1" {tmp_path}/script; echo Submitted batch job 123',
        "sacct": r'printf "JobID|State|NodeList\n123_0|CANCELLED by 0|n1\n123_1|OUT_OF_MEMORY|n2\n"',
        "scancel": f'echo "$@" >> {tmp_path}/cancelled',
        "srun": "exit 1",
    }
    for name, body in bodies.items():
        (programs / name).write_text(f"#!/bin/sh\n{body}\n")
        (programs / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return programs


def chosen_slurm(*more: str) -> Any:
    knobs = ["partition=gpu", "cpus_per_task=3", "mem_gb=10", "setup=[source venv/bin/activate]"]
    knobs += ["additional_parameters={reservation: mine}", *more]
    overrides = ["hydra/launcher=submitit_slurm", *(f"++hydra.launcher.{knob}" for knob in knobs)]
    return launcher_for(freeze(["seed=0,1", *overrides]).launcher, 1)


def test_slurms_script_and_what_slurm_says_of_jobs_that_end(slurm: Path, tmp_path: Path) -> None:
    Path("place").mkdir()
    ended = sorted(chosen_slurm()(trials("seed=0,1"), Path("place"), RunContext()), key=lambda one: one.number)
    script = (tmp_path / "script").read_text()
    assert script.rstrip() == SCRIPT.format(logs=tmp_path / "place/.submitit", python=sys.executable).rstrip()
    assert [(one.status, one.error) for one in ended] == [
        (
            "interrupted",
            "its job was ended by SLURM, as CANCELLED by 0 (see place/.submitit/123_0_0_log.err); the same command goes"
            " on with it",
        ),
        (
            "interrupted",
            "its job was ended by SLURM, as OUT_OF_MEMORY (see place/.submitit/123_1_0_log.err); the same command"
            " goes on with it",
        ),
    ]


def test_no_gpus_are_asked_for_where_there_shall_be_none(slurm: Path, tmp_path: Path) -> None:
    Path("place").mkdir()
    list(chosen_slurm("gpus_per_node=0", "gres=gpu:a100:1")(trials("seed=0,1"), Path("place"), RunContext()))
    script = (tmp_path / "script").read_text()
    assert "--gpus-per-node" not in script and "#SBATCH --gres=gpu:a100:1" in script


def test_what_sbatch_refuses_is_said_in_its_words(slurm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (slurm / "sbatch").write_text("#!/bin/sh\necho 'sbatch: error: invalid partition specified: gpu' >&2\nexit 1\n")
    Path("place").mkdir()
    with pytest.raises(ConfigError) as error:
        list(chosen_slurm()(trials("seed=0,1"), Path("place"), RunContext()))
    assert str(error.value) == (
        "hydra/launcher=submitit_slurm: SLURM takes no jobs (sbatch: error: invalid partition specified: gpu)"
    )
    assert capsys.readouterr().err == ""


def test_a_stopped_grid_cancels_its_jobs(slurm: Path, tmp_path: Path) -> None:
    Path("place").mkdir()
    knobs = with_slurm.Knobs(
        partition=None,
        account=None,
        qos=None,
        constraint=None,
        array_parallelism=1,
        timeout_min=5,
        signal_delay_s=30,
        max_num_timeout=1,
        cpus_per_task=1,
        gpus_per_node=0,
        gres=None,
        mem_gb=None,
        setup=[],
        additional_parameters={},
    )
    executor = with_slurm.executor_for(knobs, Path("place"))
    queue = with_slurm.SlurmExecutor(executor, jobs_of(trials("seed=0,1"), Path("place"), [], 1))
    queue.stop()
    assert (tmp_path / "cancelled").read_text() == "123_0 123_1\n" and (tmp_path / "place/.submitit/stop").exists()
