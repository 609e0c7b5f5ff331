"""One frozen trial in another process: where it runs, and that no two processes run it."""

import os
from pathlib import Path

import pytest

from dltips.sweep.grid.compose_trials import freeze
from dltips.sweep.grid.launch.remote_trial import RUNNING, claimed, jobs_of, run_job
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


def test_a_trial_is_run_by_one_process_at_a_time(tmp_path: Path) -> None:
    file = tmp_path / RUNNING / "000-12345678"
    with claimed(file) as first, claimed(file) as second:
        assert first is None and second is not None and second.startswith(f"process {os.getpid()} on ")
    with claimed(file) as again:
        assert again is None
    assert not file.with_name(f"{file.name}.holder").exists()


def test_a_job_is_carried_out_where_the_command_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (trial,) = trials("seed=3")
    Path("place").mkdir()
    (remote_job,) = jobs_of([trial], Path("place"), ["seed"], cores=1)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.chdir("/")
    reply = run_job(remote_job)
    assert os.environ["OMP_NUM_THREADS"] == "1" and Path.cwd() == tmp_path
    assert reply.outcome is not None and reply.outcome.status == "finished" and reply.outcome.path.is_dir()
    assert reply.outcome.path == tmp_path / "place" / trial.folder
    assert not list((tmp_path / "place" / RUNNING).glob("*.holder"))
    with claimed(tmp_path / "place" / RUNNING / trial.folder):
        taken = run_job(remote_job).outcome
    assert taken is not None and taken.status == "interrupted" and "still runs it" in str(taken.error)
    Path("place").rename("moved")
    assert f"outputs: {tmp_path / 'place'} is not there on " in str(run_job(remote_job).refused)
    assert not Path("place").exists()
