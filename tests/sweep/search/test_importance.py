"""How much each parameter of a search matters."""

from pathlib import Path

import pytest

from dltips.main import main
from dltips.sweep.search.importance import ENOUGH

QUICK = ("+recipe=quickstart", "log.tensorboard=false", "log.layers=false", "model.widths=[16]")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def place() -> Path:
    (found,) = Path("outputs").glob("*/sweep.json")
    return found.parent


@pytest.mark.slow
def test_importance_finds_what_matters(capsys: pytest.CaptureFixture[str]) -> None:
    """init=zeros learns nothing, and the batch size hardly counts."""
    arguments = ["init=he,zeros", "batch_size=int(interval(30,60))", "trials=20", "sampler=random"]
    assert main(["sweep", *QUICK, "epochs=2", *arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    shares = lines[lines.index("importance") + 1 :][:2]
    assert shares[0].split()[0] == "init" and float(shares[0].split()[1].rstrip("%")) > 90
    names = {"search-history.png", "search-slices.png", "search-importance.png"}
    assert {path.name for path in place().glob("*.png")} == names


def test_the_readme_says_how_many_trials_importance_takes() -> None:
    text = " ".join((Path(__file__).parents[3] / "README.md").read_text().split())
    assert f"the importance of each parameter (from {ENOUGH} complete trials on; pruned ones do not count)" in text
