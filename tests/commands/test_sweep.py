"""dltips sweep --help: what it shows can be typed."""

import shlex
from pathlib import Path

import numpy
import pytest

from dltips.commands.sweep import HELP
from dltips.main import main
from dltips.sweep.search import run_search
from dltips.sweep.search.search_settings import read, split

EXAMPLES = [line.strip() for line in HELP.splitlines() if line.startswith("  dltips sweep ")]


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 4 and max(map(len, HELP.splitlines())) < 120


def fashion(folder: Path) -> None:
    """Fashion-MNIST's files, with 400 training and 20 test images: not every machine has the real ones."""
    folder.mkdir(parents=True)
    random = numpy.random.default_rng(0)
    for part, count in (("train", 400), ("t10k", 20)):
        images, labels = random.integers(0, 256, (count, 28, 28)), numpy.arange(count) % 10
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
            head = bytes([0, 0, 8, array.ndim])
            (folder / f"{part}-{kind}-ubyte").write_bytes(head + sizes + array.astype(numpy.uint8).tobytes())


@pytest.mark.parametrize("example", [line for line in EXAMPLES if "resume=" not in line])
def test_the_examples_of_the_help_are_valid(example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that is looked at before the first trial: every choice and end, on data and with a net."""
    planned: list[run_search.SearchPlan] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DLTIPS_DATA", str(tmp_path))
    fashion(tmp_path / "FashionMNIST/raw")
    monkeypatch.setattr(run_search, "run_plan", lambda plan, *rest: planned.append(plan) or 0)
    assert main(shlex.split(example)[1:]) == 0
    (plan,) = planned
    assert len(plan.space.dimensions) >= 1 and not plan.space.notes


@pytest.mark.parametrize("example", [line for line in EXAMPLES if "resume=" in line])
def test_an_example_that_goes_on_sets_what_may_differ(example: str) -> None:
    own, overrides = split(shlex.split(example)[2:])
    assert read(own).resume == "last" and overrides == []
