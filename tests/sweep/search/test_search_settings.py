"""A search's own settings: times, defaults, the environment."""

import pytest

from dltips.errors import ConfigError
from dltips.sweep.search import search_settings as settings_module
from dltips.sweep.search.search_settings import objectives, read, seconds, split

LR = "optimizer.lr=tag(log,interval(1e-3,1))"


@pytest.mark.parametrize(
    ("typed", "found"),
    [("2h", 7200.0), ("30m", 1800.0), ("1h30m", 5400.0), (90, 90.0), ("1.5h", 5400.0), ("2d", 172800.0)],
)
def test_times(typed: str | float, found: float) -> None:
    assert seconds(typed) == found


def test_settings_of_a_search_and_of_its_runs_are_told_apart() -> None:
    own, rest = split(["trials=3", LR, "--workers", "4", "+recipe=quickstart", "objective=[val/accuracy,seconds]"])
    assert (own, rest) == (
        ["trials=3", "workers=4", "objective=[val/accuracy,seconds]"],
        [LR, "+recipe=quickstart"],
    )
    found = read(own)
    assert (found.trials, found.workers, objectives(found)) == (3, 4, ["val/accuracy", "seconds"])


def test_the_environment_may_hold_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDY", "postgresql://me@host/db")
    assert read(["storage=${oc.env:STUDY}"]).storage == "postgresql://me@host/db"
    with pytest.raises(ConfigError, match=r"^storage: "):
        read(["storage=${oc.env:NO_SUCH_VARIABLE}"])


def test_defaults_are_what_help_says() -> None:
    from dltips.commands.sweep import HELP

    for name in ("trials", "sampler", "pruner", "seeds", "workers", "reduction"):
        field = settings_module.SearchSettings.__dataclass_fields__[name]
        assert f"  {name}={field.default}" in HELP
