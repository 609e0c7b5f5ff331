"""hydra/launcher=: the same trials with the same results elsewhere, one death costs one trial, and nothing is lost."""

import importlib.util
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from dltips import paths
from dltips.catalog.registry import knobs_of
from dltips.errors import ConfigError
from dltips.main import main
from dltips.sweep.grid.compose_trials import freeze
from dltips.sweep.grid.launch import with_ray
from dltips.sweep.grid.launch.executor import JobLost, collect
from dltips.sweep.grid.launch.remote_trial import RUNNING, JobResult, claimed, jobs_of, run_job
from dltips.sweep.grid.launch.with_submitit import gpus_of, refuse_secrets
from dltips.sweep.grid.launchers import LAUNCHERS, launcher_for
from dltips.sweep.trial import Trial, TrialOutcome, folder_name
from dltips.train.context import RunContext

QUICK = ["epochs=4", "data.subset=150", "log.tensorboard=false", "log.layers=false", "log.pictures=none", "device=cpu"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def losses(place: str = "outputs/*") -> list[list[float]]:
    """Each trial's, epoch by epoch."""
    files = sorted(Path().glob(f"{place}/*/metrics.jsonl"))
    return [[json.loads(line)["train/loss"] for line in file.read_text().splitlines()] for file in files]


def trials(*overrides: str) -> list[Trial]:
    cells = freeze([*QUICK, *overrides]).cells
    made = [Trial(number, cell.plain, cell.varied, "", "") for number, cell in enumerate(cells)]
    return [Trial(one.number, one.plain, one.varied, folder_name(one.number, one.config.hash), "") for one in made]


def outcome(trial: Trial, status: str = "finished") -> TrialOutcome:
    return TrialOutcome(trial.number, status, Path("elsewhere"))


# What can be asked for


def test_each_launcher_has_its_yaml_with_the_knobs_that_its_module_takes() -> None:
    folder = paths.shipped("configs") / "hydra/launcher"
    assert {file.stem for file in folder.glob("*.yaml")} == set(LAUNCHERS)
    for name, (module, package) in LAUNCHERS.items():
        section = OmegaConf.load(folder / f"{name}.yaml")
        knobs = knobs_of(importlib.import_module(f"dltips.sweep.grid.launch.{module}").Knobs)
        assert isinstance(section.pop("name"), str) and list(section) == list(knobs)
        assert f"dltips[{package}]" in (folder / f"{name}.yaml").read_text()


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (["hydra/launcher=joblib"], "hydra/launcher=joblib: does not exist any more; write --workers N in its place"),
        (
            ["hydra/launcher=ray", "++hydra.launcher.num_cpu=2"],
            "hydra.launcher.num_cpu: hydra/launcher=ray has no such key; did you mean num_cpus?",
        ),
        (["hydra/launcher=ray", "hydra.launcher.num_cpus=two"], "hydra.launcher.num_cpus: 'two' is not a number"),
        (
            ["hydra/launcher=ray", "hydra.launcher.address=ray"],
            "hydra.launcher.address: 'ray' is no address; write HOST:",
        ),
        (
            ["hydra/launcher=ray", "hydra.launcher.max_retries=-1"],
            "hydra.launcher.max_retries: -1 is out of range; it mu",
        ),
        (
            ["hydra/launcher=submitit_slurm"],
            "hydra/launcher=submitit_slurm: there is no sbatch here; give the command wh",
        ),
        (["hydra/launcher=rai"], "hydra/launcher: 'rai' is no launcher; did you mean ray?"),
        (["hydra/launcher=ray", "+hydra.launcher.name=x"], "hydra.launcher.name: hydra/launcher=ray has no such key"),
        (
            ["+hydra.launcher.num_cpus=1"],
            "hydra.launcher.num_cpus=1: belongs to a launcher; write hydra/launcher=NAME",
        ),
    ],
)
def test_a_mistake_is_named_before_anything_is_made(
    chosen: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: "there")
    with pytest.raises(ConfigError) as error:
        launcher_for(freeze(["seed=0,1", *chosen]).launcher, 1)
    assert message in str(error.value) and not Path("outputs").exists()


def test_a_package_that_is_missing_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for name, (_, package) in LAUNCHERS.items():
        with pytest.raises(ConfigError) as error:
            launcher_for({"name": name}, 1)
        assert str(error.value) == f"hydra/launcher={name}: needs {package}; pip install 'dltips[{package}]'"


def test_workers_and_a_launcher_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match="--workers: are processes of this machine, but hydra/launcher=ray places"):
        launcher_for(freeze(["seed=0,1", "hydra/launcher=ray"]).launcher, 2)


def test_an_address_where_nobody_listens_is_named_at_once() -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        knobs = with_ray.Knobs(address=address, num_cpus=1.0, num_gpus=None, max_retries=0)
        with pytest.raises(ConfigError) as error:
            with_ray.launcher(knobs)
    assert str(error.value) == (
        f"hydra.launcher.address: {address} does not answer (Connection refused); start Ray there:"
        f" ray start --head --port={address.rpartition(':')[2]}"
    )


def test_what_no_machine_of_a_cluster_has_is_not_waited_for() -> None:
    nodes = [{"CPU": 8.0, "memory": 1.0}, {"CPU": 2.0, "GPU": 1.0}]
    with_ray.check_room({"CPU": 2, "GPU": 1}, nodes)
    with_ray.check_room({"CPU": 8, "GPU": 0}, nodes)
    with pytest.raises(ConfigError) as error:
        with_ray.check_room({"CPU": 4, "GPU": 1}, nodes)
    assert str(error.value) == (
        "hydra.launcher.num_cpus, num_gpus: no machine of the cluster has 4 cores and 1 GPUs; they have 2 cores and 1"
        " GPUs; 8 cores and 0 GPUs"
    )


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


# The two ends


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
    (errand,) = jobs_of([trial], Path("place"), ["seed"], cores=1)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.chdir("/")
    reply = run_job(errand)
    assert os.environ["OMP_NUM_THREADS"] == "1" and Path.cwd() == tmp_path
    assert reply.outcome is not None and reply.outcome.status == "finished" and reply.outcome.path.is_dir()
    assert reply.outcome.path == tmp_path / "place" / trial.folder
    assert not list((tmp_path / "place" / RUNNING).glob("*.holder"))
    with claimed(tmp_path / "place" / RUNNING / trial.folder):
        taken = run_job(errand).outcome
    assert taken is not None and taken.status == "interrupted" and "still runs it" in str(taken.error)
    Path("place").rename("moved")
    assert f"outputs: {tmp_path / 'place'} is not there on " in str(run_job(errand).refused)
    assert not Path("place").exists()


class Told:
    """A crew of which each trial ends as its script says."""

    def __init__(self, script: list[tuple[Trial, JobResult | JobLost]], strike: int | None = None) -> None:
        self.script, self.strike, self.calls = script, strike, list[str]()

    @property
    def busy(self) -> bool:
        return bool(self.script)

    def wait(self, seconds: float) -> Iterator[Any]:
        if self.strike is not None and len(self.script) == self.strike:
            signal.raise_signal(signal.SIGINT)
        return iter([self.script.pop(0)])

    def stop(self) -> None:
        self.calls.append("stop")

    def close(self) -> None:
        self.calls.append("close")


def test_a_death_costs_one_trial_and_a_note_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    first, second, third = trials("seed=0,1,2")
    note = JobResult(outcome(first), ["mind the gap"])
    crew = Told(
        [
            (first, note),
            (second, JobLost("lost with its machine")),
            (third, JobResult(outcome(third), ["mind the gap"])),
        ]
    )
    ended = list(collect(crew, Path("place"), RunContext()))  # type: ignore[arg-type]
    assert [one.status for one in ended] == ["finished", "interrupted", "finished"]
    assert ended[1].error == "its job was lost with its machine; the same command goes on with it"
    assert [one.path for one in ended] == [Path("place") / trial.folder for trial in (first, second, third)]
    assert capsys.readouterr().err == "mind the gap\n" and crew.calls == ["close"]


def test_a_machine_without_the_folder_ends_the_grid() -> None:
    (trial,) = trials("seed=0")
    crew = Told([(trial, JobResult(None, refused="outputs: it is not there"))])
    with pytest.raises(ConfigError, match="outputs: it is not there"):
        list(collect(crew, Path("place"), RunContext()))  # type: ignore[arg-type]
    assert crew.calls == ["close"]


def test_the_first_ctrl_c_is_passed_on_once_and_the_second_ends_all() -> None:
    first, second, third, fourth = trials("seed=range(4)")
    (Path("place") / second.folder).mkdir(parents=True)
    lost = JobLost("stopped")
    crew = Told([(first, JobResult(outcome(first))), (second, lost), (third, lost), (fourth, lost)], strike=3)
    ended = list(collect(crew, Path("place"), RunContext()))  # type: ignore[arg-type]
    # who was stopped has no excuse, which tells a person's stop from a death; who never began is no outcome
    assert [(one.number, one.status, one.error) for one in ended] == [(0, "finished", None), (1, "interrupted", None)]
    assert crew.calls == ["stop", "close"]

    crew = Told([(first, JobResult(outcome(first))), (second, lost)])
    with pytest.raises(KeyboardInterrupt):
        for _ in collect(crew, Path("place"), RunContext()):  # type: ignore[arg-type]
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)


def test_a_secret_is_not_written_to_a_jobs_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "0123456789")
    refuse_secrets(trials("name=${oc.env:MY_TOKEN}"))
    with pytest.raises(ConfigError) as error:
        refuse_secrets(trials("name=a-0123456789"))
    assert str(error.value) == (
        "name: holds a secret, and a job's files would show it; write 'name=${oc.env:NAME}', and set NAME in the"
        " environment"
    )


def test_ours_is_chosen_where_hydras_plugin_of_that_name_is_installed() -> None:
    store = ConfigStore.instance()
    store.store(group="hydra/launcher", name="ray", node={"_target_": "theirs"}, provider="ray_launcher")
    try:
        expected = {"name": "ray", "address": None, "num_cpus": 2, "num_gpus": None, "max_retries": 0}
        assert freeze(["seed=0,1", "hydra/launcher=ray", "hydra.launcher.num_cpus=2"]).launcher == expected
    finally:
        del store.repo["hydra"]["launcher"]["ray.yaml"]


def test_a_launcher_wants_a_grid(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *QUICK, "hydra/launcher=ray"]) == 2
    said = "dltips: hydra/launcher=ray: is for a grid of runs; write dltips train -m hydra/launcher=ray ...\n"
    assert capsys.readouterr().err == said
