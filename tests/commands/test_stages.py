"""dltips ls stages: a net's stages from stem to head."""

import json
from pathlib import Path

import pytest

from dltips.main import main

Output = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


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
