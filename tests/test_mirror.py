"""Tests mirror the code: a module's test is found under its name, and tests use no private names of dltips."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "cli" / "dltips"
TESTS = Path(__file__).parent
# Modules without a test file of their own, each with the reason
EXCEPTIONS = {
    "__init__.py": "hands on names of other modules",
    "exit_codes.py": "numbers; each command's test asserts its own",
    "paths.py": "tests/test_own_tips.py and tests/config/test_recipes.py look for what lies there",
    "signals.py": "tests/sweep/grid/test_signals.py sends real ones, tests/train/parallel/test_spawn.py too",
    "tips/finetune/base.py": "records and a protocol; tests/train/finetuning/test_freezing.py uses them",
}
# Test files of several modules together, each with the reason
ACROSS = {
    "test_ants_bees.py": "the claim of a shipped recipe, on real weights and photographs",
    "test_board_in_browser.py": "the events of a run and the charts of a sweep, in a real browser",
    "test_house.py": "which room stands on which",
    "sweep/grid/test_launchers_cut_off.py": "trials of every launcher, cut off for real",
    "sweep/grid/test_signals.py": "real signals to grids and searches",
    "sweep/search/test_postgres.py": "a study on a real server",
    "sweep/search/test_search_bad_input.py": "a user's mistakes in a search, whichever module finds them",
    "test_own_metrics.py": "a user's metrics through the whole program",
    "test_bad_input.py": "a user's mistakes, whichever module finds them",
    "test_docs.py": "the tree in README and CONTRIBUTING",
    "test_messages.py": "the texts of all modules",
    "test_every_option.py": "every option of every family trains",
    "test_mirror.py": "of the tests themselves",
    "test_own_tips.py": "a user's tips through the whole program",
    "test_recipes.py": "the shipped recipes",
    "train/test_kill.py": "a run that is killed at any moment: its checkpoints, its metrics, and its resume",
}


def modules() -> list[str]:
    """Those with a function or a class, as paths within the package."""
    found = []
    for file in sorted(PACKAGE.rglob("*.py")):
        body = ast.parse(file.read_text(encoding="utf-8")).body
        if any(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) for node in body):
            found.append(file.relative_to(PACKAGE).as_posix())
    return found


def places_of(module: str) -> list[Path]:
    """Where its tests may stand: under its name, or, of a tip, in its family's file."""
    path = Path(module)
    places = [path.parent / f"test_{path.name}"]
    if path.name == "__init__.py":
        places = [path.parent.parent / f"test_{path.parent.name}.py"]
    if path.parts[0] == "tips" and len(path.parts) == 3:
        places.append(Path("tips", f"test_{path.parts[1]}.py"))
    return [TESTS / place for place in places]


@pytest.mark.parametrize("module", modules())
def test_a_module_s_test_is_found_under_its_name(module: str) -> None:
    found = any(place.is_file() for place in places_of(module))
    places = " or ".join(str(place.relative_to(TESTS.parent)) for place in places_of(module))
    assert found or module in EXCEPTIONS, f"{module} has no test: write {places}"
    assert not (found and module in EXCEPTIONS), f"{module} has a test; take it off EXCEPTIONS"


def test_exceptions_are_modules() -> None:
    assert set(EXCEPTIONS) <= set(modules())


def test_a_test_is_of_a_module_of_its_name() -> None:
    """Or of a family of tips, or, as test_every_<family>.py, of all options of one."""
    orphans = []
    for file in sorted(TESTS.rglob("test_*.py")):
        path = file.relative_to(TESTS)
        name = path.stem.removeprefix("test_").removeprefix("every_" if path.parts[0] == "tips" else "")
        target = PACKAGE / path.parent / name
        is_family = path.parent.parts[:1] == ("tips",) and (PACKAGE / "tips" / name).exists()
        if not (target.is_dir() or target.with_suffix(".py").is_file() or is_family):
            orphans.append(path.as_posix())
    left = [name for name in orphans if name not in ACROSS]
    assert left == [], "no module has this name: move the test, or add it to ACROSS with the reason"


# Private names


def is_private(name: str) -> bool:
    last = name.rpartition(".")[2]
    return last.startswith("_") and not last.startswith("__")


def private_uses(tree: ast.AST) -> Iterator[str]:
    """Private names of dltips: imported, read off something imported from it, or replaced by their names as texts."""
    ours = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "dltips":
            yield from (f"{node.module}.{alias.name}" for alias in node.names if is_private(alias.name))
            ours |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            names = [alias for alias in node.names if alias.name.partition(".")[0] == "dltips"]
            ours |= {alias.asname or "dltips" for alias in names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            root: ast.expr = node
            while isinstance(root, ast.Attribute):
                root = root.value
            if isinstance(root, ast.Name) and root.id in ours:
                yield ast.unparse(node)
        elif isinstance(node, ast.Call):
            function = ast.unparse(node.func).rpartition(".")[2]
            if function in ("setattr", "delattr", "getattr", "patch", "setitem"):
                texts = [each.value for each in node.args[:2] if isinstance(each, ast.Constant)]
                owners = (
                    {each.id for each in ast.walk(node.args[0]) if isinstance(each, ast.Name)} if node.args else set()
                )
                for text in texts:
                    if isinstance(text, str) and is_private(text) and (owners & ours or text.startswith("dltips.")):
                        yield text


@pytest.mark.parametrize(
    "file",
    sorted(TESTS.rglob("*.py")),
    ids=lambda file: file.relative_to(TESTS).as_posix(),
)
def test_no_private_name_is_used(file: Path) -> None:
    """What a test needs is public, or seen through what is."""
    assert list(private_uses(ast.parse(file.read_text(encoding="utf-8")))) == []


@pytest.mark.parametrize(
    "planted",
    [
        "from dltips.nets.flat import _is_dense",
        "from dltips.nets import flat\nflat._is_dense(x)",
        "from dltips.nets import flat as other\nother.FlatModel._view(x)",
        "import dltips.nets.flat\ndltips.nets.flat._is_dense(x)",
        "from dltips.nets import flat\nmonkeypatch.setattr(flat, '_is_dense', None)",
        "monkeypatch.setattr('dltips.nets.flat._is_dense', None)",
        "from dltips.nets import flat\ngetattr(flat, '_is_dense')",
    ],
)
def test_a_private_name_is_noticed(planted: str) -> None:
    assert len(list(private_uses(ast.parse(planted)))) == 1


@pytest.mark.parametrize(
    "harmless",
    [
        "from dltips import __version__\nfrom dltips.nets import flat\nflat.__name__",
        "import torch\ntorch._standard_gamma(x)",
        "self._x = 3\nmonkeypatch.setattr(json, '_x', None)",
    ],
)
def test_what_is_not_ours_or_has_a_dunder_is_not(harmless: str) -> None:
    assert list(private_uses(ast.parse(harmless))) == []
