"""Reads every option of every family with its docstring, card and knobs from the sources, without importing them."""

from __future__ import annotations

import ast
import contextlib
import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from dltips import metrics as table
from dltips import paths
from dltips.catalog.cards import Card
from dltips.catalog.registry import FAMILIES, STACKABLE


@dataclass(frozen=True)
class Knob:
    """One line of an option's YAML."""

    key: str  # in full: `init.scale`, `augmentation.flip.p`
    default: Any
    written: str  # the default as it stands in the file
    comment: str


@dataclass(frozen=True)
class Entry:
    """The description of one option."""

    family: str
    name: str
    docstring: str
    card: Card | None  # None for a user's tip without a card
    knobs: tuple[Knob, ...]

    @property
    def switch(self) -> str:
        return f"{self.family}={self.name}"

    @property
    def at_home(self) -> tuple[str, ...]:
        """Returns the overrides that it needs besides its own."""
        return tuple(self.card.try_with) if self.card else ()


def options(family: str) -> dict[str, str]:
    """Returns option -> one line, for each YAML file of the family and each of the user's tips."""
    described = {name: docstring for name, docstring, _ in _registered(family)}
    return {name: described.get(name, "").split("\n")[0] for name in _names(family)}


def tips() -> dict[str, str]:
    """Returns `family=option` -> one line, for all options."""
    return {f"{family}={name}": line for family in FAMILIES for name, line in options(family).items()}


def cards(family: str) -> dict[str, Card | None]:
    """Returns option -> its card."""
    found = {name: record for name, _, record in _registered(family)}
    return {name: found.get(name) for name in _names(family)}


def entry(family: str, option: str) -> Entry:
    """Returns the description of one option, which must exist."""
    docstrings = {name: (docstring, record) for name, docstring, record in _registered(family)}
    docstring, record = docstrings.get(option, ("", None))
    return Entry(family, option, docstring, record, knobs(family, option))


def metrics() -> dict[str, table.Metric]:
    """Returns every metric by the name that users type, the user's own included, described as in their files."""
    known = table.listing()
    for file in _user_files():
        with contextlib.suppress(SyntaxError, ValueError):  # training reports why it cannot be imported
            own = _metrics_of(file, file.stat().st_mtime_ns)
            known |= {name: entry for name, entry in own.items() if name not in known}
    order = list(dict.fromkeys(table.PER.values()))
    return dict(sorted(known.items(), key=lambda item: order.index(table.PER[item[1].source])))


@functools.cache
def _metrics_of(file: Path, modified: int) -> dict[str, table.Metric]:
    """Returns the metrics that a file defines by @metric(better=...) or @dltips.metric(better=...)."""
    found: dict[str, table.Metric] = {}
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        for decorator in node.decorator_list if isinstance(node, ast.FunctionDef) else ():
            match decorator:
                case ast.Call(
                    func=ast.Name(id="metric") | ast.Attribute(attr="metric"),
                    keywords=[ast.keyword(arg="better", value=ast.Constant(value="higher" | "lower" as better))],
                ):
                    assert isinstance(node, ast.FunctionDef)
                    argument = next((argument.arg for argument in node.args.args), "")
                    entry = table.entry(node.name, cast(Any, better), argument, ast.get_docstring(node) or "")
                    found |= dict.fromkeys(entry.names, entry)
    return found


def families() -> dict[str, str]:
    """Returns family -> the first line of its module."""
    return {family: module_docstring(family) for family in FAMILIES}


def module_docstring(family: str) -> str:
    """Returns the first line of a family's module."""
    tree = ast.parse(_own_sources(family)[0].read_text(encoding="utf-8"))
    return (ast.get_docstring(tree) or "").splitlines()[0]


# Knobs


def yaml_of(family: str, option: str) -> str:
    """Returns the text of the option's YAML; "" if there is none."""
    for folder in paths.configs():
        file = folder / family / f"{option}.yaml"
        if file.is_file():
            return file.read_text(encoding="utf-8")
    return ""


def knobs(family: str, option: str) -> tuple[Knob, ...]:
    """Returns the option's knobs with their defaults and comments; `_common` names the common ones."""
    from omegaconf import OmegaConf

    text = yaml_of(family, option)
    tree: Any = OmegaConf.to_container(OmegaConf.create(text), resolve=False) if text else {}
    prefix = family
    if family in STACKABLE and isinstance(tree.get(option), Mapping):
        tree, prefix = tree[option], f"{family}.{option}"
    lines = _lines(text)
    found = []
    for key, default in tree.items():
        if key != "name":
            written, comment = lines.get(str(key), ("", ""))
            found.append(Knob(f"{prefix}.{key}", default, written or str(default), comment))
    return tuple(found)


LINE = re.compile(r"\s*(?P<key>\w+):\s*(?P<written>.*?)(?:(?:^|\s)#\s*(?P<comment>.*))?$")


def _lines(text: str) -> dict[str, tuple[str, str]]:
    """Returns key -> its value and comment as written; a comment may continue on lines of its own below."""
    found: dict[str, tuple[str, str]] = {}
    key = ""
    for line in text.splitlines():
        more = re.match(r"\s+#\s*(.*)", line)
        if more and key:
            found[key] = (found[key][0], f"{found[key][1]} {more[1]}".strip())
        elif match := LINE.match(line):
            key = match["key"]
            found[key] = (match["written"].strip(), (match["comment"] or "").strip())
    return found


# Sources


def _user_files() -> list[Path]:
    return [file for file in map(paths.module_file, paths.user_modules()) if file is not None]


def _names(family: str) -> list[str]:
    files = (file for folder in paths.configs() for file in (folder / family).glob("*.yaml"))
    return sorted({file.stem for file in files if not file.stem.startswith("_")})


def _own_sources(family: str) -> list[Path]:
    module = paths.PACKAGE / "tips" / f"{family}.py"
    return [module] if module.is_file() else sorted((paths.PACKAGE / "tips" / family).glob("*.py"))


def _registered(family: str) -> Iterator[tuple[str, str, Card | None]]:
    """Yields each option with its docstring and its card; the user's come last."""
    for file in _own_sources(family):
        yield from _read(file, file.stat().st_mtime_ns).get(family, ())
    for file in _user_files():
        with contextlib.suppress(
            SyntaxError, ValueError
        ):  # the option is listed; training reports why it cannot be imported
            yield from _read(file, file.stat().st_mtime_ns).get(family, ())


@functools.cache
def _read(file: Path, modified: int) -> dict[str, list[tuple[str, str, Card | None]]]:
    """Returns what a file registers, by family."""
    found: dict[str, list[tuple[str, str, Card | None]]] = {}
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            for family, name in _registered_as(node):
                found.setdefault(family, []).append((name, ast.get_docstring(node) or "", _card(node)))
    return found


def _registered_as(node: ast.FunctionDef | ast.ClassDef) -> Iterator[tuple[str, str]]:
    """Yields the families and names under which it is registered: @family, or @family.named("name")."""
    for decorator in node.decorator_list:
        match decorator:
            case ast.Name(id=family):
                yield family, node.name
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id=family), attr="named"), args=[ast.Constant(value=str(name))]
            ):
                yield family, name


def _card(node: ast.FunctionDef | ast.ClassDef) -> Card | None:
    """Returns the card above a function; None if there is none, or if it is not made of literals."""
    for decorator in node.decorator_list:
        match decorator:
            case ast.Call(func=ast.Name(id="card"), keywords=words):
                with contextlib.suppress(TypeError, ValueError):
                    return Card(**{str(word.arg): ast.literal_eval(word.value) for word in words})
    return None
