import json
import subprocess
import sys
from pathlib import Path

import pytest

from dltips.catalog import source_reader
from dltips.catalog.registry import FAMILIES
from dltips.main import main

Output = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_everything_is_listed_with_one_line_each(capsys: Output) -> None:
    assert main(["ls"]) == 0
    blocks = capsys.readouterr().out.strip("\n").split("\n\n")
    assert [block.splitlines()[0] for block in blocks] == [*(f"{family}=" for family in FAMILIES), "recipes", "metrics"]
    for family, block in zip(FAMILIES, blocks, strict=False):
        listed = dict(line.split(maxsplit=1) for line in block.splitlines()[1:])
        assert listed == source_reader.options(family)


@pytest.mark.parametrize("family", FAMILIES)
def test_one_family(family: str, capsys: Output) -> None:
    assert main(["ls", family]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(source_reader.options(family))
    assert all(len(line.split()) > 2 for line in lines)


def test_json_holds_the_same(capsys: Output) -> None:
    assert main(["ls", "--json"]) == 0
    listing = json.loads(capsys.readouterr().out)
    assert list(listing) == [*FAMILIES, "recipes", "metrics"]
    assert all(listing[family] == source_reader.options(family) for family in FAMILIES)
    assert main(["ls", "init", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"init": listing["init"]}


def test_tips_are_the_options_of_all_families_a_line_each(capsys: Output) -> None:
    assert main(["ls", "tips"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert dict(line.split(maxsplit=1) for line in lines) == source_reader.tips()
    assert main(["ls", "tips", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"tips": source_reader.tips()}


def test_recipes_are_listed_with_the_first_line_of_their_header(capsys: Output) -> None:
    Path("recipes/claims").mkdir(parents=True)
    Path("recipes/mine.yaml").write_text("# @package _global_\n# My own words.\n# More of them.\nepochs: 1\n")
    Path("recipes/claims/silent.yaml").write_text("epochs: 1\n")
    assert main(["ls", "recipes", "--json"]) == 0
    recipes = json.loads(capsys.readouterr().out)["recipes"]
    assert list(recipes) == sorted(recipes) and {"claims/silent", "mine", "quickstart"} <= set(recipes)
    assert recipes["mine"] == "My own words." and recipes["claims/silent"] == ""
    assert recipes["quickstart"].endswith(".")


def test_the_user_s_own_recipe_is_listed_for_the_shipped_one(capsys: Output) -> None:
    Path("recipes").mkdir()
    Path("recipes/quickstart.yaml").write_text("# Mine.\nepochs: 1\n")
    assert main(["ls", "recipes"]) == 0
    listed = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert listed["quickstart"] == "Mine." and all(
        text != "Mine." for name, text in listed.items() if name != "quickstart"
    )


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"{", b""])
def test_a_broken_recipe_does_not_hide_the_others(content: bytes, capsys: Output) -> None:
    Path("recipes").mkdir()
    Path("recipes/broken.yaml").write_bytes(content)
    assert main(["ls", "recipes"]) == 0
    assert "quickstart" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("ls inti", "ls: 'inti' is neither a family nor `tips`, `recipes` or `metrics`; did you mean init?"),
        ("ls recipe", "ls: 'recipe' is neither a family nor `tips`, `recipes` or `metrics`; did you mean recipes?"),
        ("ls init --seed", "ls: --seed lists tips, not init; write dltips ls tips --seed"),
        ("ls init he", "dltips ls: unrecognized arguments: he; see dltips ls --help"),
        ("ls stages", "ls stages: of which net? Write dltips ls stages resnet; `dltips ls model` lists them"),
        ("ls stages resnett", "ls stages: 'resnett' is not a model; did you mean resnet?"),
        ("ls stages convnext_ato", "ls stages: 'convnext_ato' is not a model; did you mean convnext_atto?"),
        ("ls stages resnet model.depht=3", "model.depht: model=resnet has no such knob; did you mean depth?"),
        (
            "ls stages lstm data.image_size=9",
            "data.image_size: is for images, but a sample's shape is (1, 8000); leave it out",
        ),
        ("ls --jsno", "dltips ls: unrecognized arguments: --jsno; see dltips ls --help"),
    ],
)
def test_mistakes_are_one_line(arguments: str, message: str, capsys: Output) -> None:
    assert main(arguments.split()) == 2
    assert capsys.readouterr() == ("", f"dltips: {message}\n")


def test_other_listings_import_no_torch() -> None:
    code = "import sys; from dltips.main import main; main(['ls', 'model']); assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
