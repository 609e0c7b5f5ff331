"""hydra/launcher=: the same trials with the same results elsewhere, one death costs one trial, and nothing is lost."""

import importlib.util
import json
from pathlib import Path

import pytest
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from dltips import paths
from dltips.catalog.registry import knobs_of
from dltips.errors import ConfigError
from dltips.main import main
from dltips.sweep.grid.compose_trials import freeze
from dltips.sweep.grid.launchers import LAUNCHERS, launcher_for

QUICK = ["epochs=4", "data.subset=150", "log.tensorboard=false", "log.layers=false", "log.pictures=none", "device=cpu"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def losses(place: str = "outputs/*") -> list[list[float]]:
    """Each trial's, epoch by epoch."""
    files = sorted(Path().glob(f"{place}/*/metrics.jsonl"))
    return [[json.loads(line)["train/loss"] for line in file.read_text().splitlines()] for file in files]


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
            "hydra.launcher.address: 'ray' is not an address; write HOST:",
        ),
        (
            ["hydra/launcher=ray", "hydra.launcher.max_retries=-1"],
            "hydra.launcher.max_retries: -1 is out of range; it mu",
        ),
        (
            ["hydra/launcher=submitit_slurm"],
            "hydra/launcher=submitit_slurm: there is no sbatch here; give the command wh",
        ),
        (["hydra/launcher=rai"], "hydra/launcher: 'rai' is not a launcher; did you mean ray?"),
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


# The two ends


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
