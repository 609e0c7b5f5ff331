"""The shipped recipes: each composes, each says how to run it, how long it takes and what to expect."""

import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from dltips import paths
from dltips.config import recipes
from dltips.config.validation import validate
from dltips.main import main

NAMES = sorted(file.stem for file in paths.shipped("recipes").glob("*.yaml"))


def header(name: str) -> str:
    lines = recipes.text_of(name).splitlines()
    end = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    return "\n".join(lines[:end])


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_composes_to_a_valid_config(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code = main(["train", f"+recipe={name}", "--cfg", "job"])
    out, err = capsys.readouterr()
    assert code == 0, err
    config = validate(OmegaConf.create(out))  # type: ignore[arg-type]
    assert config.settings.name == name


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_is_a_claim(name: str) -> None:
    """Its header gives the command, how long it takes on 2 cores, and the score with its spread."""
    text = header(name)
    assert f"dltips train +recipe={name}" in text
    assert re.search(r"(second|minute|hour)s? ", text) and "2 CPU cores" in text
    assert re.search(r"\d+(\.\d+)? %", text)
    assert "seed" in text
    assert all(len(line) <= 120 for line in text.splitlines())
