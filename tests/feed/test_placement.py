"""Where a split lies: on the device if it fits, else streamed."""

from typing import Any

import pytest
import torch

from dltips.feed.batches import Resident, Streaming
from dltips.feed.placement import free_bytes, place_split
from dltips.feed.splits import Split

CPU = torch.device("cpu")


def images(count: int = 103, channels: int = 3) -> Split:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randint(0, 256, (count, channels, 6, 7), dtype=torch.uint8, generator=generator)
    return Split(inputs, torch.arange(count))


def chosen(part: Split) -> Split:
    """The same as every other sample of something larger, in reverse order."""
    positions = torch.arange(2 * len(part) - 1, 0, -2)
    inputs = torch.zeros((2 * len(part), *part.inputs.shape[1:]), dtype=part.inputs.dtype)
    targets = torch.zeros(2 * len(part), dtype=torch.int64)
    inputs[positions], targets[positions] = part.inputs, part.targets
    return Split(inputs, targets, positions)


@pytest.mark.parametrize(
    ("placement", "free", "kind"),
    [
        ("resident", 0, Resident),
        ("stream", 10**12, Streaming),
        ("auto", 2 * 103 * 126, Resident),
        ("auto", 2 * 103 * 126 - 2, Streaming),
    ],
)
def test_data_lie_on_the_device_if_asked_or_if_they_fill_half_of_what_is_free(
    placement: str, free: int, kind: type[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dltips.feed.placement.free_bytes", lambda device: free)
    assert isinstance(place_split(images(), placement, CPU), kind)
    assert isinstance(place_split(chosen(images()), placement, CPU), kind)


def test_on_a_cpu_what_is_free_is_the_machine_s_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dltips.free_memory.available", lambda: 12345)
    assert free_bytes(CPU) == 12345
