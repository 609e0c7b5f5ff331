"""dltips doctor: the capabilities of this machine and installation."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import sys
from pathlib import Path
from typing import Any

from dltips import __version__, paths
from dltips.commands.arguments import Parser
from dltips.exit_codes import EXIT_OK

PACKAGES = (
    "torch",
    "torchvision",
    "hydra-core",
    "omegaconf",
    "numpy",
    "scikit-learn",
    "tensorboard",
    "matplotlib",
    "rich",
)
OPTIONAL = {"lightning": "bench", "playwright": "test"}


def run(arguments: list[str]) -> int:
    parser = Parser(prog="dltips doctor", description="What this machine and installation can do.")
    parser.add_argument("--json", action="store_true", help="for programs")
    chosen = parser.parse_args(arguments)
    findings = {"installation": _installation(), "devices": _devices(), "folders": _folders(), "tips": _tips()}
    if chosen.json:
        print(json.dumps(findings, indent=2))
        return EXIT_OK
    for title, entries in findings.items():
        print(f"\n{title}")
        width = max(map(len, entries))
        for key, value in entries.items():
            print(f"  {key:<{width}}  {value}")
    return EXIT_OK


def _installation() -> dict[str, Any]:
    found = {"dltips": f"{__version__} in {paths.PACKAGE}", "python": f"{platform.python_version()} ({sys.executable})"}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = f"MISSING: pip install {package}"
    for package, extra in OPTIONAL.items():
        there = importlib.util.find_spec(package) is not None
        found[package] = (
            importlib.metadata.version(package) if there else f"not installed (pip install 'dltips[{extra}]')"
        )
    return found


def _devices() -> dict[str, Any]:
    import torch

    from dltips.train import device

    found: dict[str, Any] = {"device=auto": device.describe(device.choose("auto")), "cpu cores": os.cpu_count()}
    found["memory free"] = f"{device_memory('cpu'):.1f} GB"
    for index in range(torch.cuda.device_count()):
        bfloat16 = "bfloat16" if torch.cuda.is_bf16_supported() else "no bfloat16"
        found[f"cuda:{index}"] = (
            f"{torch.cuda.get_device_name(index)}, {device_memory(f'cuda:{index}'):.1f} GB free, {bfloat16}"
        )
    if torch.version.cuda and not torch.cuda.is_available():
        found["cuda"] = f"torch was built for CUDA {torch.version.cuda}, but finds no GPU here"
    if torch.backends.mps.is_available():
        found["mps"] = "available"
    return found


def device_memory(name: str) -> float:
    """Returns the free memory in GB."""
    import torch

    from dltips.feed.placement import free_bytes

    return free_bytes(torch.device(name)) / 1e9


def _folders() -> dict[str, Any]:
    return {
        "outputs": _folder(paths.OUTPUTS.absolute()),
        "data (data.root, DLTIPS_DATA)": _folder(paths.data()),
        "cache": _folder(paths.cache()),
    }


def _folder(path: Path) -> str:
    place = path
    while not place.exists():
        place = place.parent
    writable = "writable" if os.access(place, os.W_OK) else "NOT WRITABLE"
    there = "there" if path.exists() else "not made yet"
    return f"{path} ({there}, {writable}, {shutil.disk_usage(place).free / 1e9:.0f} GB free)"


def _tips() -> dict[str, Any]:
    from dltips.catalog import source_reader
    from dltips.catalog.registry import FAMILIES
    from dltips.config import recipes

    found: dict[str, Any] = {family: len(source_reader.options(family)) for family in FAMILIES}
    found["recipes"] = len(recipes.names())
    for module in paths.user_modules():
        file = paths.module_file(module)
        found[f"your tips: {module}"] = str(file) if file else "NOT FOUND: neither a module nor a .py file"
    return found
