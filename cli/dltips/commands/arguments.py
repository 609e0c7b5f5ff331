"""argparse with dltips' error style: a wrong argument is one line and exit code 2."""

from __future__ import annotations

import argparse
from typing import NoReturn

from dltips.errors import ConfigError

RUN = "a run's folder, or of a grid or search that of its best run; `last` is the newest under ./outputs"


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{self.prog}: {message}; see {self.prog} --help")
