"""Addresses and resources that Ray does not have."""

from pathlib import Path

import pytest

from dltips.errors import ConfigError
from dltips.sweep.grid.launch import with_ray


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


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
