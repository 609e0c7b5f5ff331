"""The place that a launcher gives a process, and the devices that a machine has."""

from pathlib import Path

import pytest
import torch

from dltips.errors import ConfigError
from dltips.train.parallel.world import World, check_device, world_from


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_mac_has_one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    check_device(2, "cpu")
    for device in ("auto", "mps"):
        with pytest.raises(ConfigError, match=r"^device: mps .*devices is 2; write device=cpu$"):
            check_device(2, device)


TORCHRUN = {
    "RANK": "1",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "a",
    "MASTER_PORT": "7",
}


SRUN = {
    "SLURM_PROCID": "5",
    "SLURM_NTASKS": "8",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_TASKS_PER_NODE": "4(x2)",
    "SLURM_STEP_NODELIST": "gpu[007-008]",
    "SLURM_JOB_ID": "1234",
    "SLURM_STEP_ID": "1",
}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        (TORCHRUN, World(1, 4, 1, 2, "a", 7)),
        ({"RANK": "0", "WORLD_SIZE": "1"}, None),
        ({"WORLD_SIZE": "4"}, None),
        (SRUN, World(5, 8, 1, 4, "gpu007", 18639)),
        (SRUN | {"SLURM_STEP_NODELIST": "a1,b[2-3]"}, World(5, 8, 1, 4, "a1", 18639)),
        (SRUN | {"SLURM_STEP_NUM_NODES": "1"}, World(5, 8, 1, 4, "127.0.0.1", 18639)),
        (SRUN | {"MASTER_ADDR": "here", "MASTER_PORT": "9"}, World(5, 8, 1, 4, "here", 9)),
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "2"}, World(1, 2, 1, 2, "127.0.0.1", 10000)),
        # one task of a step; a batch script that calls dltips without srun
        (SRUN | {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}, None),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_LOCALID": "0", "ENVIRONMENT": "BATCH"}, None),
    ],
)
def test_where_a_launcher_has_put_the_process(environment: dict[str, str], expected: World | None) -> None:
    assert world_from(environment) == expected


def test_an_environment_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^devices: .*RANK is 'x'"):
        world_from(TORCHRUN | {"RANK": "x"})
    with pytest.raises(ConfigError, match=r"^devices: .*number 4 of 4; .*RANK, WORLD_SIZE$"):
        world_from(TORCHRUN | {"RANK": "4"})
