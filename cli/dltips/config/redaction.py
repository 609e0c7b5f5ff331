"""Redacts secrets: recognized by the key, by the shape, or by an environment variable's name."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

# Keys and shapes of secrets
SECRET_KEY = re.compile(r"(?i)(token|secret|password|passwd|credential|api_?key|access_?key)")


SECRET_VALUE = re.compile(
    r"(?<![A-Za-z0-9])(sk-[A-Za-z0-9_-]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}|hf_[A-Za-z0-9]{20,}"
    r"|AKIA[0-9A-Z]{16}|xox[abprs]-[A-Za-z0-9-]{10,})|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"
)


def redact(text: str) -> str:
    """Replaces what looks like a secret, or equals an environment variable whose name marks it as one."""
    return _without(_secrets(), text)


def redacted(tree: Any) -> Any:
    """Returns a config tree with every secret-looking value replaced; unresolved interpolations stay."""
    return _redacted(tree, "", _secrets())


def _secrets() -> list[str]:
    return [value for name, value in os.environ.items() if len(value) >= 6 and SECRET_KEY.search(name)]


def _without(secrets: list[str], text: str) -> str:
    for secret in secrets:
        text = text.replace(secret, "[redacted]")
    return SECRET_VALUE.sub("[redacted]", text)


def _redacted(tree: Any, key: str, secrets: list[str]) -> Any:
    if isinstance(tree, Mapping):
        return {name: _redacted(value, str(name), secrets) for name, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_redacted(value, key, secrets) for value in tree]
    if isinstance(tree, str):
        hidden = SECRET_KEY.search(key) and not tree.startswith("${")
        return "[redacted]" if hidden else _without(secrets, tree)
    return tree
