"""Weights that do not fit the run are refused before anything is written."""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor, nn

from dltips.config.composition import compose
from dltips.config.validation import validate
from dltips.main import main
from dltips.train.build import build_model

QUIET = ["device=cpu", "log.tensorboard=false", "log.pictures=none", "data.subset=120", "batch_size=20"]


NET = ["model=cnn", "model.widths=[4,6,8]", "model.depth=1"]


SOURCE = [*QUIET, *NET, "epochs=2", "data.only_classes=[0,1,2,3,4]"]


TARGET = [*QUIET, *NET, "epochs=2", "data.only_classes=[5,6,7,8,9]", "optimizer.lr=0.05"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cnn with batch norm, trained on five of the digits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("source"))
        assert main(["train", *SOURCE]) == 0
        (folder,) = Path("outputs").iterdir()
        return folder.absolute()


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def stored(source: Path, name: str = "best.pt") -> dict[str, Tensor]:
    model: dict[str, Tensor] = torch.load(source / name, weights_only=True)["model"]
    return model


def test_weights_that_are_missing_may_not_rest(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A net with a stage more than the file has: trained if it is to train, refused if it would stay random."""
    state_file = Path("fewer.pth")
    torch.save({name: value for name, value in stored(source).items() if "stage2." not in name}, state_file)
    options = [*TARGET, f"finetune.source={state_file}", "finetune.min_match=0.5", "finetune.mean=[0.5]"]
    options.append("finetune.std=[0.5]")
    assert main(["train", *options, "finetune=full"]) == 0
    capsys.readouterr()
    for strategy in ("linear_probe", "earlier_stage_svm", "top_layers", "gradual"):
        n = ["finetune.n=1"] if strategy == "top_layers" else []
        assert main(["train", *options, f"finetune={strategy}", *n]) == 2
        error = capsys.readouterr().err
        assert re.search(
            rf"finetune\.source: fewer\.pth .*stage2\..*finetune={strategy} .*random; take finetune=full", error
        )


def test_statistics_that_are_missing_may_not_be_frozen(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({name: value for name, value in stored(source).items() if "running" not in name}, "bare.pth")
    options = [*TARGET, "finetune.source=bare.pth", "finetune.mean=[0.5]", "finetune.std=[0.5]", "finetune=full"]
    assert main(["train", *options]) == 0
    capsys.readouterr()
    assert main(["train", *options, "finetune.freeze_norm=true"]) == 2
    error = capsys.readouterr().err
    assert re.search(r"bare\.pth .*stage1\.conv1\.norm\.running_mean.*freeze_norm .*; take finetune=full", error)


def test_a_file_of_another_net_is_refused_before_any_data_are_read(capsys: pytest.CaptureFixture[str]) -> None:
    """Else pictures of several sizes would be what is complained of, since such a file says no size."""
    torch.save(torchvision.models.squeezenet1_1().state_dict(), "other.pth")
    chosen = ["data=image_folder", "data.root=nowhere", "model=mobilenet_v2", "finetune.source=other.pth"]
    assert main(["train", *chosen, "finetune=linear_probe"]) == 2
    error = capsys.readouterr().err
    assert re.match(r"dltips: finetune\.source: other\.pth .*0 of mobilenet_v2's 2,223,872 parameters \(0%\)", error)
    assert "a squeezenet: write model=squeezenet" in error and error.count("\n") == 1
    small = build("cnn", "model.widths=[4,6,8]").state_dict()
    torch.save(small, "own.pth")
    fitting = ["model=cnn", "model.widths=[4,6,8]", "finetune.source=own.pth", "data=image_folder", "data.root=nowhere"]
    assert main(["train", *fitting, "finetune=linear_probe"]) == 2
    assert re.search(r"data\.root: nowhere .*exist", capsys.readouterr().err)


def build(model: str, *overrides: str) -> nn.Module:
    return build_model(validate(compose([f"model={model}", *overrides])[0]), (3, 64, 64), 10, [])


def train(*overrides: str) -> Path:
    before = set(Path("outputs").glob("*"))
    assert main(["train", *overrides]) == 0
    (folder,) = set(Path("outputs").glob("*")) - before
    return folder


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["finetune=full"],
            r"finetune\.source: .*finetune=full .*give a run folder, .*or write finetune=none",
        ),
        (
            ["finetune.source=SOURCE"],
            r"finetune\.source: SOURCE .*finetune=none .*such as finetune=linear_probe \(dltips ls finetune\)",
        ),
        (
            ["finetune.source=SOURCE", "finetune=full", "preprocessing=min_max"],
            r"preprocessing: min_max .*finetune=full: .*finetune\.mean and \.std",
        ),
        (
            ["finetune.source=SOURCE", "finetune=linear_probe", "augmentation=mixup"],
            r"augmentation: mixup .*write finetune\.views=0, or leave it out",
        ),
        (
            ["finetune.source=SOURCE", "finetune=earlier_stage_svm", "augmentation=crop"],
            r"augmentation: finetune=earlier_stage_svm .*write augmentation=none",
        ),
        (
            ["finetune.source=SOURCE", "finetune=earlier_stage_linear", "data.balance=loss"],
            r"data\.balance: finetune=earlier_stage_linear .*loss; write data\.balance=none",
        ),
        (
            ["finetune.source=SOURCE", "finetune=gradual", "batch_size=1"],
            r"batch_size: 1 .*accumulate=1 .*batch norm .*write model\.norm=none",
        ),
        (
            ["finetune.source=SOURCE", "finetune=top_layers", "finetune.n=4"],
            r"finetune\.n: 4 .*3 stages .*cnn .*write finetune\.n=3, or finetune=full",
        ),
        (
            ["finetune.source=SOURCE", "finetune=most_layers", "finetune.freeze_first=9"],
            r"finetune\.freeze_first: 9 .*3 stages .*write finetune\.freeze_first=3, or finetune=linear_probe",
        ),
        (
            ["finetune.source=SOURCE", "finetune=earlier_stage_svm", "finetune.stage=stag2"],
            r"finetune\.stage: 'stag2' .*cnn; did you mean stage2\?",
        ),
        (
            ["finetune.source=SOURCE", "finetune=top_layers", "optimizer.rates={stage1: 2}", "finetune.n=1"],
            r"optimizer\.rates\.stage1: .*did you mean stage3\?",
        ),
    ],
)
def test_what_makes_no_sense_is_one_line_and_leaves_nothing(
    source: Path, overrides: Sequence[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = [override.replace("SOURCE", str(source)) for override in overrides]
    assert main(["train", *TARGET, *chosen]) == 2
    assert re.fullmatch(f"dltips: {message.replace('SOURCE', str(source))}\n", capsys.readouterr().err)
    assert not list(Path("outputs").glob("*"))
