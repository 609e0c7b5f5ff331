"""Parses the flags of `dltips train -m` besides Hydra's own: --zip, --workers, --retry, --dry-run."""

from __future__ import annotations

from typing import Any

from dltips.errors import ConfigError

TAKE_A_VALUE = ("--zip", "--workers")
SWITCHES = ("--retry", "--dry-run")


def split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Returns the other arguments, and the flags as --FLAG or --FLAG=VALUE. Raises ConfigError."""
    others: list[str] = []
    flags: list[str] = []
    left = iter(arguments)
    for argument in left:
        name = argument.split("=")[0]
        if name in TAKE_A_VALUE and "=" not in argument:
            value = next(left, None)
            if value is None:
                raise ConfigError(f"{name}: wants a value; write {_example(name)}")
            flags.append(f"{name}={value}")
        elif name in (*TAKE_A_VALUE, *SWITCHES):
            if name in SWITCHES and "=" in argument:
                raise ConfigError(f"{argument}: takes no value; write {name}")
            flags.append(argument)
        else:
            others.append(argument)
    return others, flags


def options(flags: list[str]) -> dict[str, Any]:
    """Returns the flags as keyword arguments of dltips.sweep.grid.run_grid.Options. Raises ConfigError."""
    found: dict[str, Any] = {"zipped": []}
    for flag in flags:
        name, _, value = flag.partition("=")
        if name == "--workers":
            if not (value.isascii() and value.isdigit()) or int(value) < 1:
                raise ConfigError(f"--workers: {value!r} is not a number of processes; write {_example(name)}")
            found["workers"] = int(value)
        elif name == "--zip":
            keys = [key.strip() for key in value.split(",") if key.strip()]
            if len(keys) < 2:
                raise ConfigError(f"--zip: {value!r} names fewer than two keys; write {_example(name)}")
            found["zipped"].append(keys)
        else:
            found[name.removeprefix("--").replace("-", "_")] = True
    return found


def _example(name: str) -> str:
    return {"--zip": "--zip=init,activation", "--workers": "--workers=2"}[name]
