import pytest

from dltips import free_memory
from dltips.errors import ConfigError


def test_what_cannot_be_had_is_refused_with_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 10**6 < free_memory.available() < 10**16
    free_memory.require_memory("data.expand", free_memory.available() // 2)
    monkeypatch.setattr(free_memory, "available", lambda: 2_000_000_000)
    free_memory.require_memory("data.expand", 2_000_000_000)
    with pytest.raises(ConfigError, match=r"^data.expand: takes 3.5 GB, but 2.0 GB are free; lower it$"):
        free_memory.require_memory("data.expand", 3_500_000_000)
