"""What README and CONTRIBUTING say of the tree is so."""

import re

import pytest

from dltips import paths

README = (paths.CHECKOUT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (paths.CHECKOUT / "CONTRIBUTING.md").read_text(encoding="utf-8")
# What need not be named: the command's other entry, the package itself, and addresses kept for older tips
UNNAMED = {"__main__.py", "__init__.py", "registry.py", "card.py"}


def tree() -> list[str]:
    """The paths of README's tree, each under the last line above it that is indented less."""
    block = README.partition("## Where things are")[2].split("```")[1]
    found: list[str] = []
    above: list[tuple[int, str]] = []
    for line in block.strip("\n").splitlines():
        indent = len(line) - len(line.lstrip())
        above = [(depth, name) for depth, name in above if depth < indent]
        prefix = "".join(name for _, name in above)
        names = line.split("   ")[0].split() if indent == 0 else line.strip().split("   ")[0].split()
        found += [prefix + name for name in names]
        above.append((indent, names[0]))
    return found


def test_every_path_of_the_tree_exists() -> None:
    assert len(tree()) > 30
    assert [path for path in tree() if not (paths.CHECKOUT / path).exists()] == []


def test_every_room_and_every_module_beside_them_is_in_the_tree() -> None:
    named = {path.removeprefix("cli/dltips/").rstrip("/") for path in tree()}
    entries = [entry for entry in paths.PACKAGE.iterdir() if entry.is_dir() or entry.suffix == ".py"]
    assert {entry.name for entry in entries} - named == UNNAMED | {
        entry.name for entry in entries if "cache" in entry.name
    }
    rooms = [folder.parent for folder in paths.PACKAGE.glob("*/*/__init__.py") if folder.parent.parent.name != "tips"]
    inner = {str(folder.relative_to(paths.PACKAGE)) for folder in rooms}
    assert inner - named == {"sweep/grid/launch"} & inner


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:cli|tests|configs|benchmarks)/[\w/.]+)`", CONTRIBUTING))))
def test_what_contributing_names_exists(path: str) -> None:
    assert (paths.CHECKOUT / path).exists()
