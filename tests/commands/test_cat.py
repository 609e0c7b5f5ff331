"""dltips cat prints a recipe."""

from pathlib import Path

import pytest

from dltips import paths
from dltips.main import main

Output = pytest.CaptureFixture[str]


SHIPPED = (paths.shipped("recipes") / "quickstart.yaml").read_text()


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_cat_prints_the_file_as_it_is(capsys: Output) -> None:
    assert main(["cat", "quickstart"]) == 0
    assert capsys.readouterr() == (SHIPPED, "")


def test_cat_prints_the_user_s_own_before_the_shipped_one(capsys: Output) -> None:
    Path("recipes").mkdir()
    Path("recipes/quickstart.yaml").write_text("# mine\n")
    assert main(["cat", "quickstart"]) == 0
    assert capsys.readouterr().out == "# mine\n"


def test_a_recipe_that_is_no_text(capsys: Output) -> None:
    Path("recipes").mkdir()
    Path("recipes/broken.yaml").write_bytes(b"\xff\xfe\x00")
    for arguments in (["cat", "broken"], ["cp", "broken", "mine"]):
        assert main(arguments) == 2
        out, err = capsys.readouterr()
        assert out == "" and "broken.yaml" in err and err.count("\n") == 1
    assert not Path("recipes/mine.yaml").exists()
