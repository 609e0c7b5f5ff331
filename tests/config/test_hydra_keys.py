"""Hydra's own keys: a launcher as plain data with its knobs, everything else refused."""

import pytest

from dltips.config.hydra_keys import launcher, refuse_launcher
from dltips.config.overrides import parse
from dltips.errors import ConfigError


def refusal(*typed: str) -> str:
    with pytest.raises(ConfigError) as refused:
        launcher(parse(typed))
    return str(refused.value)


def test_without_one_it_is_this_process() -> None:
    assert launcher(parse(["seed=1,2"])) == launcher(parse(["hydra/launcher=basic"])) == {"name": "basic"}


def test_knobs_stand_over_the_launchers_file_and_are_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_PARTITION", "gpu")
    chosen = launcher(
        parse(
            [
                "hydra.launcher.partition=${oc.env:MY_PARTITION}",
                "hydra/launcher=submitit_slurm",
                "+hydra.launcher.timeout_min=5",
                "hydra.launcher.timeout_min=6",
                "hydra.launcher.setup=[module load cuda]",
                "hydra.launcher.additional_parameters.reservation=mine",
                "++hydra.launcher.additional_parameters={nice: 3}",
            ]
        )
    )
    assert (chosen["name"], chosen["partition"], chosen["timeout_min"]) == ("submitit_slurm", "gpu", 6)
    assert chosen["setup"] == ["module load cuda"] and chosen["cpus_per_task"] == 4
    assert chosen["additional_parameters"] == {"reservation": "mine", "nice": 3}


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["hydra/launcher=joblib"], "hydra/launcher=joblib: does not exist any more; write --workers N in its place"),
        (["hydra/launcher=rai"], "hydra/launcher: 'rai' is not a launcher; did you mean ray?"),
        (["hydra/launcher=../../init/he"], "hydra/launcher: '../../init/he' is not a launcher"),
        (["hydra/launcher=[ray]"], "hydra/launcher: ['ray'] is not a launcher"),
        (["hydra/launcher=ray,basic"], "hydra/launcher=ray,basic: all runs of a grid have the same launcher"),
        (["hydra/launcher=ray", "hydra.launcher.num_cpus=1,2"], "hydra.launcher.num_cpus=1,2: all runs of a grid have"),
        (
            ["hydra/launcher=ray", "hydra.launcher.cpus=1"],
            "hydra.launcher.cpus: hydra/launcher=ray has no such key; did",
        ),
        (["hydra/launcher=ray", "hydra.launcher.name=x"], "hydra.launcher.name: hydra/launcher=ray has no such key"),
        (["hydra/launcher=ray", "hydra.launcher.num_cpus.x=1"], "hydra.launcher.num_cpus.x: hydra/launcher=ray has no"),
        (["hydra.launcher.num_cpus=1"], "hydra.launcher.num_cpus=1: belongs to a launcher; write hydra/launcher=NAME"),
        (["~hydra/launcher"], "~hydra/launcher: nothing can be left out"),
        (["hydra/launcher@x=ray"], "hydra/launcher@x=ray: a package cannot be set here; write hydra/launcher=OPTION"),
        (["hydra.verbose=true"], "hydra.verbose=true: is refused; of Hydra's own keys there are hydra/launcher=NAME"),
        (["hydra/sweeper=basic"], "hydra/sweeper=basic: grids are laid out by dltips itself"),
        (["hydra.sweep.dir=x"], "hydra.sweep.dir=x: is refused; runs lie under ./outputs"),
    ],
)
def test_what_is_refused(typed: list[str], message: str) -> None:
    assert refusal(*typed).startswith(message)


def test_a_launcher_is_for_a_grid() -> None:
    refuse_launcher(parse(["seed=1", "+recipe=quickstart"]))
    with pytest.raises(ConfigError, match=r"^hydra.launcher.num_cpus=2: is for a grid of runs; write dltips train -m "):
        refuse_launcher(parse(["hydra.launcher.num_cpus=2"]))
    with pytest.raises(ConfigError, match=r"^hydra.mode=RUN: is refused"):
        refuse_launcher(parse(["hydra.mode=RUN"]))
