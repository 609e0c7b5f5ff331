"""The house: which room stands on which, no circles, nothing of Hydra's inside; imports within functions count, too."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from dltips import paths

# Each stands on those behind it, and on none before it.
ROOMS = (
    *("main", "commands", "use", "sweep", "insight", "train", "weights", "feed", "tips", "nets", "plots", "runs"),
    *("config", "catalog", "files", "signals", "free_memory", "formatting", "metrics", "paths", "exit_codes", "errors"),
)
# What a room leaves alone although it lies behind it.
NEVER = {
    "tips": ("config", "runs", "plots"),  # neither Hydra nor the run folder
    "insight": ("train", "weights", "feed", "tips", "nets"),  # it reads run folders, without torch
    "nets": ("config", "runs", "plots"),
}
PUBLIC = ("__init__", "registry", "card")  # what a user's own tips import: they gather names from other rooms


# Texts that name a module and import nothing: a process to start, the entry points' group, a class's home
NAMED = {
    ("train.parallel.spawn", "commands.worker_main"),
    ("paths", "tips"),
    ("nets.size", "tips.activation"),
}


def imports_of(source: str, modules: set[str], module: str = "") -> Iterator[str]:
    """The modules of dltips that a source imports, anywhere in it, or names in a text of its own: `config.recipes`."""
    above = ["dltips", *module.split(".")]
    for node in ast.walk(ast.parse(source)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            base = [*(above[: -node.level] if node.level else []), *([node.module] if node.module else [])]
            names = [".".join([*base, alias.name]) for alias in node.names]
        text = node.value if isinstance(node, ast.Constant) else None
        if isinstance(text, str) and re.fullmatch(r"dltips(\.\w+)+", text):
            names = [text]  # import_module("dltips.train.run")
        for name in names:
            parts = name.removeprefix("dltips.").split(".") if name.startswith("dltips.") else []
            if (module, ".".join(parts)) in NAMED:
                continue
            while parts and ".".join(parts) not in modules:
                parts.pop()
            if parts:
                yield ".".join(parts)


def arrows(package: Path) -> dict[str, set[str]]:
    files = {".".join(file.relative_to(package).with_suffix("").parts): file for file in package.rglob("*.py")}
    sources = {name.removesuffix(".__init__"): file.read_text(encoding="utf-8") for name, file in files.items()}
    return {name: set(imports_of(text, set(sources), name)) - {name} for name, text in sources.items()}


def against_the_order(found: dict[str, set[str]]) -> list[str]:
    """`runs.folder -> train.run`: a room that stands on one before it, or on one that it leaves alone."""
    wrong = []
    for name, targets in found.items():
        room = name.partition(".")[0]
        for target in sorted(targets) if name not in (*PUBLIC, "__main__") else ():
            other = target.partition(".")[0]
            if other != room and (ROOMS.index(other) < ROOMS.index(room) or other in NEVER.get(room, ())):
                wrong.append(f"{name} -> {target}")
    return wrong


def circles(found: dict[str, set[str]]) -> list[str]:
    """The modules from which imports lead back to themselves. A package's own list of its modules is none."""
    packages = {name for name in found if any(other.startswith(f"{name}.") for other in found)}

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        left = [start]
        while left:
            new = {target for target in found[left.pop()] if target not in packages} - seen
            seen |= new
            left += new
        return seen

    return sorted(name for name in found if name in reached(name))


FOUND = arrows(paths.PACKAGE)


def test_every_room_stands_on_those_below_it() -> None:
    assert {name.partition(".")[0] for name in FOUND} - {*PUBLIC, "__main__"} <= set(ROOMS)
    assert against_the_order(FOUND) == []


def test_no_module_is_reached_from_itself() -> None:
    assert circles(FOUND) == []


@pytest.mark.parametrize(
    ("module", "planted", "wrong"),
    [
        ("runs.folder", "from dltips.train import run", ["runs.folder -> train.run"]),
        ("runs.folder", "def late():\n    import dltips.train.run", ["runs.folder -> train.run"]),
        (
            "insight.groups",
            "if TYPE_CHECKING:\n    from dltips.train.fit import Record",
            ["insight.groups -> train.fit"],
        ),
        ("tips.schedule", "from dltips.config.validation import Config", ["tips.schedule -> config.validation"]),
        ("train.loop", "from dltips.main import main", ["train.loop -> main"]),
        ("train.loop", "from dltips.runs import folder", []),
        ("runs.hparams", "def late():\n    from ..train import run", ["runs.hparams -> train.run"]),
        ("runs.hparams", "def late():\n    import_module('dltips.train.run')", ["runs.hparams -> train.run"]),
        ("runs.hparams", "from . import folder", []),
    ],
)
def test_a_planted_import_is_found(module: str, planted: str, wrong: list[str]) -> None:
    assert against_the_order({**FOUND, module: set(imports_of(planted, set(FOUND), module))}) == wrong


def test_a_planted_circle_is_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == ["a", "b", "c"]


def insides_of_hydra(source: str) -> list[str]:
    """What a source names of a library's `_internal`, in an import or in a text."""
    found = re.findall(r"hydra\._internal[\w.]*", source)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("hydra", "omegaconf"):
            names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
            found += [name for name in names if name.startswith("_")]
    return found


def test_nothing_of_hydras_inside_is_imported() -> None:
    for file in paths.PACKAGE.rglob("*.py"):
        assert insides_of_hydra(file.read_text(encoding="utf-8")) == [], file


@pytest.mark.parametrize(
    "planted",
    ["from hydra import _internal", "import hydra._internal.hydra", "import_module('hydra._internal')"],
)
def test_a_planted_inside_of_hydra_is_found(planted: str) -> None:
    assert insides_of_hydra(f"def late():\n    {planted}") != []
