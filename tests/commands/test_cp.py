from pathlib import Path

import pytest

from dltips import paths
from dltips.config import recipes
from dltips.main import main

RECIPES = ", ".join(sorted(recipes.names()))

Output = pytest.CaptureFixture[str]
SHIPPED = (paths.shipped("recipes") / "quickstart.yaml").read_text()


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_cp_makes_a_recipe_that_trains_the_same(capsys: Output) -> None:
    assert main(["cp", "quickstart", "mine"]) == 0
    assert capsys.readouterr().out == "recipes/mine.yaml\nrun it with: dltips train +recipe=mine\n"
    assert Path("recipes/mine.yaml").read_text() == SHIPPED
    assert main(["train", "+recipe=mine", "--cfg", "job"]) == 0
    mine = capsys.readouterr().out
    assert main(["train", "+recipe=quickstart", "--cfg", "job"]) == 0
    assert capsys.readouterr().out == mine


def test_cp_into_a_folder_of_recipes_says_its_whole_name(capsys: Output) -> None:
    assert main(["cp", "quickstart", "claims/mine"]) == 0
    assert capsys.readouterr().out == "recipes/claims/mine.yaml\nrun it with: dltips train +recipe=claims/mine\n"
    assert main(["train", "+recipe=claims/mine", "--cfg", "job"]) == 0


def test_cp_to_a_path(capsys: Output) -> None:
    assert main(["cp", "quickstart", "some/where/else.yaml"]) == 0
    assert capsys.readouterr().out == "some/where/else.yaml\n"
    assert Path("some/where/else.yaml").read_text() == SHIPPED


def test_cp_overwrites_nothing(capsys: Output) -> None:
    Path("recipes").mkdir()
    Path("recipes/mine.yaml").write_text("precious")
    assert main(["cp", "quickstart", "mine"]) == 2
    expected = "dltips: cp: recipes/mine.yaml exists already; choose another name, or remove it first\n"
    assert capsys.readouterr() == ("", expected)
    assert Path("recipes/mine.yaml").read_text() == "precious"


def test_cp_does_not_write_through_a_dangling_link(capsys: Output) -> None:
    Path("recipes").mkdir()
    Path("recipes/mine.yaml").symlink_to("nowhere")
    assert main(["cp", "quickstart", "mine"]) == 2
    assert capsys.readouterr().err.count("\n") == 1 and not Path("recipes/nowhere").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("cat quickstrat", "recipe: 'quickstrat' is not a recipe; did you mean quickstart?"),
        ("cat ../x", f"recipe: '../x' is not a recipe; there is: {RECIPES}"),
        ("cat", "dltips cat: the following arguments are required: recipe; see dltips cat --help"),
        ("cp nosuch mine", f"recipe: 'nosuch' is not a recipe; there is: {RECIPES}"),
        ("cp quickstart", "dltips cp: the following arguments are required: dest; see dltips cp --help"),
        (
            "cp quickstart ../x",
            "cp: '../x' is not a recipe name (letters, digits, - and _); or give a path to a .yaml file",
        ),
    ],
)
def test_mistakes_are_one_line(arguments: str, message: str, tmp_path: Path, capsys: Output) -> None:
    assert main(arguments.split()) == 2
    assert capsys.readouterr() == ("", f"dltips: {message}\n")
    assert not any(tmp_path.iterdir())


def test_a_place_that_cannot_be_written(tmp_path: Path, capsys: Output) -> None:
    Path("recipes").write_text("")
    assert main(["cp", "quickstart", "mine"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("dltips: cp: recipes/mine.yaml cannot be written (") and err.count("\n") == 1
