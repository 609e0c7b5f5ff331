"""The device, its precision and the number of threads follow rules; what a run changes is restored."""

import contextlib

import pytest
import torch

from dltips.errors import ConfigError
from dltips.train import device as devices


@pytest.mark.parametrize("name", ["tpu", "cpu:3", "cuda:99"])
def test_a_device_that_is_not_here_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^device: '{name}' .*auto"):
        devices.choose(name)


def test_auto_is_the_cpu_where_there_is_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert devices.choose("auto") == devices.choose("cpu") == torch.device("cpu")


def test_autocast_is_off_on_a_cpu_unless_it_is_asked_for() -> None:
    cpu, inputs = torch.device("cpu"), torch.ones(2, 2)
    kinds = {}
    for precision in ("auto", "float32", "bfloat16"):
        with devices.autocast(precision, cpu)():
            kinds[precision] = (inputs @ inputs).dtype
    assert kinds == {"auto": torch.float32, "float32": torch.float32, "bfloat16": torch.bfloat16}
    with pytest.raises(ConfigError, match=r"^precision: bfloat16 .*mps.*float32$"):
        devices.autocast("bfloat16", torch.device("mps"))


def test_a_tiny_step_has_one_thread_and_a_large_one_those_that_were_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert devices.threads(devices.SINGLE_THREAD_FLOPS - 1) == 1
    assert devices.threads(devices.SINGLE_THREAD_FLOPS) == 3
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr("os.cpu_count", lambda: 7)
    assert devices.threads(devices.SINGLE_THREAD_FLOPS) == 7


def test_threads_kernels_and_random_state_are_restored_also_after_an_error() -> None:
    before = (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), torch.get_rng_state())
    cpu = torch.device("cpu")
    with contextlib.suppress(KeyError), devices.conditions(cpu, thread_count=2, deterministic=True):
        assert torch.get_num_threads() == 2 and torch.are_deterministic_algorithms_enabled()
        torch.rand(5)
        with devices.one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
        raise KeyError
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before[:2]
    assert torch.equal(torch.get_rng_state(), before[2])
