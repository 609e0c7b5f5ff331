"""The flags of dltips train -m."""

from typing import Any

import pytest

from dltips.commands.grid_flags import options, split
from dltips.errors import ConfigError


def test_flags_are_told_from_overrides_wherever_they_stand() -> None:
    arguments = ["--workers", "2", "init=he,xavier", "--zip=init,seed", "-m", "--retry", "seed=1,2", "--dry-run"]
    assert split(arguments) == (
        ["init=he,xavier", "-m", "seed=1,2"],
        ["--workers=2", "--zip=init,seed", "--retry", "--dry-run"],
    )


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        ([], {"zipped": []}),
        (["--workers=12"], {"zipped": [], "workers": 12}),
        (["--zip=a, b", "--zip=c,d,e"], {"zipped": [["a", "b"], ["c", "d", "e"]]}),
        (["--retry", "--dry-run"], {"zipped": [], "retry": True, "dry_run": True}),
    ],
)
def test_what_flags_say(flags: list[str], found: dict[str, Any]) -> None:
    assert options(flags) == found


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--workers"], "^--workers: .*--workers=2"),
        (["--zip"], "^--zip: .*--zip=init,activation"),
        (["--retry=yes"], "^--retry=yes: takes no value; write --retry"),
        (["--workers=0"], "^--workers: '0' .*--workers=2"),
        (["--workers=-1"], "^--workers: '-1' .*--workers=2"),
        (["--workers=two"], "^--workers: 'two' .*--workers=2"),
        (["--workers=²"], "^--workers: '²' .*--workers=2"),
        (["--zip=a"], "^--zip: 'a' .*two keys"),
        (["--zip=a,"], "^--zip: 'a,' .*two keys"),
    ],
)
def test_a_wrong_flag_is_one_line(flags: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        options(split(flags)[1])
