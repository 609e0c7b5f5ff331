"""submitit's jobs on this machine: their GPUs and their files."""

from pathlib import Path

import pytest

from dltips.errors import ConfigError
from dltips.sweep.grid.compose_trials import freeze
from dltips.sweep.grid.launch.with_submitit import gpus_of, refuse_secrets
from dltips.sweep.trial import Trial, folder_name

QUICK = ["epochs=4", "data.subset=150", "log.tensorboard=false", "log.layers=false", "log.pictures=none", "device=cpu"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def trials(*overrides: str) -> list[Trial]:
    cells = freeze([*QUICK, *overrides]).cells
    made = [Trial(number, cell.plain, cell.varied, "", "") for number, cell in enumerate(cells)]
    return [Trial(one.number, one.plain, one.varied, folder_name(one.number, one.config.hash), "") for one in made]


def test_each_slot_has_gpus_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    assert gpus_of(0, 1) == [] or torch.cuda.is_available()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [gpus_of(slot, 1) for slot in range(5)] == [[0], [1], [2], [3], [0]]
    assert [gpus_of(slot, 2) for slot in range(2)] == [[0, 1], [2, 3]]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert [gpus_of(slot, 1) for slot in range(2)] == [[5], [7]]


def test_a_secret_is_not_written_to_a_jobs_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "0123456789")
    refuse_secrets(trials("name=${oc.env:MY_TOKEN}"))
    with pytest.raises(ConfigError) as error:
        refuse_secrets(trials("name=a-0123456789"))
    assert str(error.value) == (
        "name: holds a secret, and a job's files would show it; write 'name=${oc.env:NAME}', and set NAME in the"
        " environment"
    )


def test_a_secret_in_the_jobs_own_settings_is_refused() -> None:
    refuse_secrets([], {"setup": "source ~/env"})
    with pytest.raises(ConfigError, match=r"^setup: .*oc\.env:NAME"):
        refuse_secrets([], {"setup": "export X=ghp_0123456789012345678901234567"})
