"""Each process has a device of its own; a lost one is told from an error."""

from pathlib import Path

import pytest
import torch
from torch.distributed import HashStore  # type: ignore[attr-defined]

from dltips.config.composition import compose
from dltips.config.validation import validate
from dltips.errors import ConfigError
from dltips.train.parallel.group import ProcessLost, gpu_of, raising_process_lost, refuse_shared_gpu
from dltips.train.parallel.world import MESSAGES_VARIABLE, World
from dltips.train.run import reason


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_lost_process_is_told_from_what_cannot_be_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """gloo's word has a path of another machine in it; what another process told of its end is said instead."""
    monkeypatch.setenv(MESSAGES_VARIABLE, str(tmp_path))
    with pytest.raises(RuntimeError, match=r"^Invalid scalar type$"), raising_process_lost():
        raise RuntimeError("Invalid scalar type")
    gone = RuntimeError("[/__w/pytorch/gloo/transport/tcp/pair.cc:561] Connection closed by peer")
    with pytest.raises(ProcessLost) as lost, raising_process_lost():
        raise gone
    assert "another process" in reason(lost.value) and "gloo" not in reason(lost.value)
    (tmp_path / "why-1").write_text("ValueError: no such luck")
    with pytest.raises(ProcessLost) as lost, raising_process_lost():
        raise gone
    assert reason(lost.value) == "process 2: ValueError: no such luck"


@pytest.mark.parametrize(
    ("seen", "gpu"),
    [(1, 0), (4, 2), (0, None)],  # a scheduler shows each process its own one, or all
)
def test_each_process_has_a_gpu_of_its_own(seen: int, gpu: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: seen > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: seen)
    place = World(2, 4, 2, 4, "a", 7)
    assert gpu_of(place, "auto") == gpu
    assert gpu_of(place, "cpu") is None
    if seen == 4:
        with pytest.raises(ConfigError, match=r"^devices: 5 .*4 GPUs; lower it"):
            gpu_of(World(4, 5, 4, 5, "a", 7), "auto")


def test_two_processes_on_one_gpu_are_refused() -> None:
    store = HashStore()
    for rank, name in enumerate(("a 1", "b 1")):
        store.set(f"gpu-{rank}", name)
    place = World(2, 3, 2, 3, "a", 7)
    refuse_shared_gpu(place, store, "b 2")
    with pytest.raises(ConfigError, match=r"^devices: processes 2 and 3 of 3 .*same GPU; .*write device=cpu$"):
        refuse_shared_gpu(place, store, "b 1")


def test_a_comparison_has_one_device_for_each_run(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from dltips.train.parallel.group import SINGLE_PROCESS, refuse_devices

    with pytest.raises(ConfigError, match=r"^devices: 2 .*dltips train; .*leave devices out$"):
        refuse_devices(validate(compose(["devices=2"])[0]), SINGLE_PROCESS)
