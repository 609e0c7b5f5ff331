import json
import subprocess
import sys
from pathlib import Path

import pytest

from dltips.catalog import descriptions
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
        assert listed == descriptions.options(family)


@pytest.mark.parametrize("family", FAMILIES)
def test_one_family(family: str, capsys: Output) -> None:
    assert main(["ls", family]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(descriptions.options(family))
    assert all(len(line.split()) > 2 for line in lines)


def test_json_holds_the_same(capsys: Output) -> None:
    assert main(["ls", "--json"]) == 0
    listing = json.loads(capsys.readouterr().out)
    assert list(listing) == [*FAMILIES, "recipes", "metrics"]
    assert all(listing[family] == descriptions.options(family) for family in FAMILIES)
    assert main(["ls", "init", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"init": listing["init"]}


def test_tips_are_the_options_of_all_families_a_line_each(capsys: Output) -> None:
    assert main(["ls", "tips"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert dict(line.split(maxsplit=1) for line in lines) == descriptions.tips()
    assert main(["ls", "tips", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"tips": descriptions.tips()}


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


@pytest.mark.parametrize(
    ("arguments", "stages", "shape"),
    [
        ("resnet", ["stem", "stage1", "stage2", "stage3", "head"], [3, 32, 32]),
        (
            "resnet model.depth=18 model.stem=imagenet",
            ["stem", *(f"stage{n}" for n in range(1, 5)), "head"],
            [3, 224, 224],
        ),
        ("cnn data=fashion_mnist", ["stage1", "stage2", "stage3", "head"], [1, 28, 28]),
        ("cnn data.image_size=16", ["stage1", "stage2", "stage3", "head"], [3, 16, 16]),
        ("mlp data=synthetic data.size=9", ["hidden1", "hidden2", "head"], [9]),
        ("audio_cnn", ["stage1", "stage2", "stage3", "head"], [1, 8000]),
        ("timm model.architecture=resnet18", ["conv1", *(f"layer{n}" for n in range(1, 5)), "fc"], [3, 224, 224]),
        ("timm:resnet18.a1_in1k", ["conv1", *(f"layer{n}" for n in range(1, 5)), "fc"], [3, 224, 224]),
        ("test_vit data.image_size=64", ["patch_embed", *(f"blocks.{n}" for n in range(6)), "head"], [3, 64, 64]),
    ],
)
def test_stages_of_a_net(arguments: str, stages: list[str], shape: list[int], capsys: Output) -> None:
    assert main(["ls", "stages", *arguments.split(), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["stage"] for row in found["stages"]] == stages and found["input"] == shape
    assert sum(row["parameters"] for row in found["stages"]) == found["parameters"] > 0
    assert sum(row["share"] for row in found["stages"]) == pytest.approx(1)
    assert found["stages"][-1]["output"] == [found["classes"]] and found["in_order"] is True


def test_stages_are_a_table_that_ends_with_how_to_use_it(capsys: Output) -> None:
    assert main(["ls", "stages", "resnet"]) == 0
    assert (
        capsys.readouterr().out
        == """\
resnet: 272,474 parameters for inputs 3x32x32, 10 classes

  stage   parameters   share  output
  stem           464   0.2 %  16x32x32
  stage1      14,016   5.1 %  16x32x32
  stage2      51,648  19.0 %  32x16x16
  stage3     205,696  75.5 %  64
  head           650   0.2 %  10

Train stage2, stage3 and the head, and no other stage:
  finetune=top_layers finetune.n=2
Fit a support vector machine to what stage2 puts out:
  finetune=earlier_stage_svm finetune.stage=stage2
"""
    )
    assert main(["ls", "stages", "svm"]) == 0
    assert (
        capsys.readouterr().out
        == """\
svm: 1 parameter for inputs 1x8x8, 10 classes

  stage  parameters    share  output
  head            1  100.0 %  10

It is one stage: there is nothing to take over from another task.
"""
    )


def test_a_net_whose_stages_run_side_by_side_is_told_so(capsys: Output) -> None:
    assert main(["ls", "stages", "crossvit_tiny_240"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "The net does not run through them one after the other: some cannot be the last to be kept." in lines
    assert next(line for line in lines if line.startswith("  head ")).endswith("  -")


def test_other_listings_import_no_torch() -> None:
    code = "import sys; from dltips.main import main; main(['ls', 'model']); assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
