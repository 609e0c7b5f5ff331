"""Every option of every family with the first line of its docstring, read from the sources: nothing is imported."""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Iterator
from pathlib import Path

from dltips import paths
from dltips.registry import FAMILIES


def options(family: str) -> dict[str, str]:
    """Option -> one line, for each YAML file of the family; a tip of the user's own included."""
    described = dict(_docstrings(family))
    names = {
        file.stem
        for folder in paths.configs()
        for file in (folder / family).glob("*.yaml")
        if not file.stem.startswith("_")
    }
    return {name: described.get(name, "") for name in sorted(names)}


def module_docstring(family: str) -> str:
    """The first line of a family's module."""
    tree = ast.parse(_own_sources(family)[0].read_text(encoding="utf-8"))
    return (ast.get_docstring(tree) or "").splitlines()[0]


def knobs(family: str, option: str) -> str:
    """The option's YAML, as it was written; "" if there is none."""
    for folder in paths.configs():
        file = folder / family / f"{option}.yaml"
        if file.is_file():
            return file.read_text(encoding="utf-8")
    return ""


def _own_sources(family: str) -> list[Path]:
    module = paths.PACKAGE / "tips" / f"{family}.py"
    return [module] if module.is_file() else sorted((paths.PACKAGE / "tips" / family).glob("*.py"))


def _docstrings(family: str) -> Iterator[tuple[str, str]]:
    users = [file for file in map(paths.module_file, paths.user_modules()) if file is not None]
    trees = [ast.parse(source.read_text(encoding="utf-8")) for source in _own_sources(family)]
    for file in users:
        with contextlib.suppress(SyntaxError, ValueError):  # the option is listed all the same; training says why not
            trees.append(ast.parse(file.read_text(encoding="utf-8")))
    for tree in trees:
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                for name in _names(node, family):
                    yield name, (ast.get_docstring(node) or "").split("\n")[0]


def _names(node: ast.FunctionDef | ast.ClassDef, family: str) -> Iterator[str]:
    """The names under which a function or class is registered: @family, or @family.named("name")."""
    for decorator in node.decorator_list:
        if isinstance(decorator, ast.Name) and decorator.id == family:
            yield node.name
        elif (
            isinstance(decorator, ast.Call)
            and isinstance(decorator.func, ast.Attribute)
            and isinstance(decorator.func.value, ast.Name)
            and decorator.func.value.id == family
            and decorator.func.attr == "named"
            and isinstance(decorator.args[0], ast.Constant)
        ):
            yield str(decorator.args[0].value)


def families() -> dict[str, str]:
    return {family: module_docstring(family) for family in FAMILIES}
