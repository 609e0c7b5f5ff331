"""Prints the lowest versions that pyproject.toml declares as constraints for pip: torch>=2.6 becomes torch==2.6."""

import re
import tomllib
from pathlib import Path

declared = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
project = declared["project"]
for requirement in [
    *declared["build-system"]["requires"],
    *project["dependencies"],
    *project["optional-dependencies"]["test"],
]:
    bound = re.fullmatch(r"([\w.-]+)(?:\[[\w,-]+\])?>=([\w.]+)(?:,.*)?", requirement)
    if bound is None:  # it would promise every version ever released
        raise SystemExit(f"pyproject.toml: {requirement} needs a lower bound, as in name>=1.2")
    print(f"{bound[1]}=={bound[2]}")
