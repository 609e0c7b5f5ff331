"""All texts that the program can show, in messages.txt: rewording one is a visible change there.

`python tests/test_messages.py` writes the file anew.
"""

import ast
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "cli" / "dltips"
SNAPSHOT = Path(__file__).parent / "messages.txt"
WORDS = 3  # shorter ones are keys, headings and units


def render(node: ast.expr) -> str:
    """An expression of texts as one text: values in braces, alternatives as {one | other}."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(map(render, node.values))
    if isinstance(node, ast.FormattedValue):
        inner = render(node.value)
        return inner if inner.startswith("{") else f"{{{inner}}}"
    if isinstance(node, ast.IfExp):
        return f"{{{render(node.body)} | {render(node.orelse)}}}"
    return ast.unparse(node).replace('"', "'")


def docstrings(tree: ast.AST) -> set[ast.expr]:
    """And other texts that stand alone."""
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}


def outermost(node: ast.AST, left_out: set[ast.expr]) -> Iterator[ast.expr]:
    """Texts that are part of no other text, in the order of the source."""
    for child in ast.iter_child_nodes(node):
        is_text = isinstance(child, ast.JoinedStr) or (
            isinstance(child, ast.Constant) and isinstance(child.value, str) and child not in left_out
        )
        if is_text and isinstance(child, ast.expr):
            yield child
        else:
            yield from outermost(child, left_out)


def messages(source: str) -> list[str]:
    tree = ast.parse(source)
    texts = [render(node).strip() for node in outermost(tree, docstrings(tree))]
    return [text for text in texts if len(text.split()) >= WORDS]


def snapshot() -> str:
    """Each module's texts under its path."""
    parts = []
    for file in sorted(PACKAGE.rglob("*.py")):
        found = [textwrap.indent(text, "    ") for text in messages(file.read_text(encoding="utf-8"))]
        if found:
            parts.append("\n".join([file.relative_to(PACKAGE).as_posix(), *found]) + "\n")
    return "\n".join(parts)


def test_every_message_is_in_the_snapshot() -> None:
    kept = SNAPSHOT.read_text(encoding="utf-8").splitlines()
    new = snapshot().splitlines()
    differences = [f"+ {line}" for line in new if line not in kept] + [f"- {line}" for line in kept if line not in new]
    assert differences == [], "a text has changed: run python tests/test_messages.py, and read the difference"
    assert new == kept, "the order has changed: run python tests/test_messages.py"


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("raise ConfigError(f'{key}: {value!r} is wrong;' ' write 3')", "{key}: {value} is wrong; write 3"),
        ('say(f\'{count} run{"s" if several else ""} of {total:,}\')', "{count} run{s | } of {total}"),
        ("def f():\n    'A docstring is not a message.'\n    return f(a='one two three')", "one two three"),
    ],
)
def test_a_text_is_found(source: str, text: str) -> None:
    assert messages(source) == [text]


if __name__ == "__main__":
    SNAPSHOT.write_text(snapshot(), encoding="utf-8")
