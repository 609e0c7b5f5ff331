"""Identifies the code of a run: what its result depends on besides config, data and seed."""

from __future__ import annotations

import functools
import hashlib
import platform
import sys
from pathlib import Path

import numpy
import torch

from dltips import __version__, paths


def versions() -> dict[str, str]:
    """Returns the versions that the bits of a run may depend on."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "dltips": __version__,
    }


@functools.cache  # at the start of the process: a commit during a run changes nothing in it
def code_version() -> str:
    """Returns the package's version, and its commit in a checkout."""
    git = paths.CHECKOUT / ".git"
    try:
        commit = (git / "HEAD").read_text().strip()
        if commit.startswith("ref: "):
            commit = _commit(git, commit.removeprefix("ref: "))
    except OSError:
        return __version__
    return f"{__version__}+{commit[:12]}" if commit else __version__


def _commit(git: Path, reference: str) -> str:
    """Returns the commit of a branch, from its own file or the packed refs; "" if neither has it."""
    loose, packed = git / reference, git / "packed-refs"
    if loose.is_file() or not packed.is_file():
        return loose.read_text().strip()
    lines = (line.split() for line in packed.read_text().splitlines() if not line.startswith(("#", "^")))
    return next((commit for commit, name in lines if name == reference), "")


def code_hash() -> str:
    """Returns the hash of the running code: the package's files, the user's tips, torch and numpy.

    The files are read once per process, early: later edits are not what runs.
    """
    return _code_hash(tuple(paths.user_modules()))


@functools.cache  # 5 ms
def _code_hash(user_modules: tuple[str, ...]) -> str:
    files = sorted(paths.PACKAGE.rglob("*.py"))
    user_files = [paths.module_file(name) for name in user_modules]
    files += [file for module in user_files if module is not None for file in _with_what_it_imports(module)]
    hashed = hashlib.sha256(f"{torch.__version__} {numpy.__version__}".encode())
    for file in files:
        hashed.update(hashlib.sha256(file.read_bytes()).digest())
    return hashed.hexdigest()[:16]


def _with_what_it_imports(module: Path) -> list[Path]:
    """Returns a file of the user's tips, and the loaded modules of its folder."""
    loaded = {Path(file) for each in list(sys.modules.values()) if (file := getattr(each, "__file__", None))}
    return sorted({module, *(file for file in loaded if file.suffix == ".py" and module.parent in file.parents)})
