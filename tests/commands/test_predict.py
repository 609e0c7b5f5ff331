"""dltips predict: the same numbers as validation and evaluation, from files, without the training data."""

import contextlib
import csv
import io
import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from PIL import Image
from torch import Tensor

from dltips.feed.splits import Split, split
from dltips.main import main
from dltips.use import trained_net

Output = pytest.CaptureFixture[str]
QUICK = ["log.tensorboard=false", "log.pictures=none", "log.layers=false"]
CNN = ["model=cnn", "model.widths=[4,8]", "model.norm=batch", "epochs=2", "batch_size=32", "optimizer.lr=0.02"]


def train(base: Path, *overrides: str) -> Path:
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(io.StringIO()):
        patch.chdir(base)
        with contextlib.redirect_stdout(io.StringIO()):
            assert main(["train", *QUICK, *overrides]) == 0
    (path,) = (base / "outputs").iterdir()
    return path


@pytest.fixture(scope="module")
def trained_digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two epochs on digits, with an augmentation and a norm layer, which are both off when the net is used."""
    return train(tmp_path_factory.mktemp("predict"), *CNN, "augmentation=crop", "augmentation.crop.padding=1")


@pytest.fixture
def run(trained_digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    shutil.copytree(trained_digits, tmp_path / "outputs" / "run")
    monkeypatch.chdir(tmp_path)
    return "outputs/run"


def splits(run: str) -> tuple[Split, Split]:
    """The validation and the test split of the run."""
    config, _ = trained_net.read(Path(run), "last.pt")
    parts = split(config.tip("data")(), config.common["data"]())
    return parts.val.taken(), parts.test.taken()


def save_images(images: Tensor, into: Path) -> Path:
    into.mkdir(parents=True)
    for number, image in enumerate(images):
        Image.fromarray(image.squeeze(0).numpy()).save(into / f"{number:04}.png")
    return into


def predicted(capsys: Output, *arguments: str) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert main(["predict", *arguments, "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    found: list[dict[str, Any]] = json.loads(out)["predictions"]
    return found


def accuracy(found: list[dict[str, Any]], targets: Tensor) -> float:
    hits = [int(entry["top"][0]["class"]) == label for entry, label in zip(found, targets.tolist(), strict=True)]
    return sum(hits) / len(hits)


@pytest.mark.parametrize("form", ["png", "npz"])
def test_files_of_the_test_samples_get_the_accuracy_that_evaluate_tells(form: str, run: str, capsys: Output) -> None:
    _, test = splits(run)
    if form == "png":
        path = save_images(test.inputs, Path("images"))
    else:
        path = Path("test.npz")
        numpy.savez(path, images=test.inputs.squeeze(1).numpy())
    found = predicted(capsys, run, str(path))
    assert main(["evaluate", run, "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert accuracy(found, test.targets) == scores["accuracy"] < 1  # else any two would be equal
    # the cross-entropy as well: the whole distribution is the same
    every = predicted(capsys, run, str(path), "--top", "10")
    losses = [
        -math.log(next(one["probability"] for one in entry["top"] if one["class"] == str(label)))
        for entry, label in zip(every, test.targets.tolist(), strict=True)
    ]
    assert sum(losses) / len(losses) == pytest.approx(scores["loss"], rel=1e-5)


def test_the_training_data_need_not_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    """A table with categories and missing values: all that is needed lies in the checkpoint."""
    monkeypatch.chdir(tmp_path)
    draw = torch.Generator().manual_seed(0)
    size = torch.rand(120, generator=draw)
    lines = [
        f"{value:.4f},{'red' if value > 0.7 else 'blue'},{'large' if value > 0.5 else 'small'}"
        for value in size.tolist()
    ]
    lines[3] = f",{lines[3].split(',', 1)[1]}"
    Path("table.csv").write_text("size,color,kind\n" + "\n".join(lines) + "\n")
    path = train(tmp_path, "data=csv", "data.file=table.csv", "data.label=kind", "epochs=20", "model.widths=[16]")
    Path("table.csv").unlink()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
    Path("new.csv").write_text("color,size\nred,0.95\nblue,0.05\nblue,\n")
    found = predicted(capsys, str(path), "new.csv")
    assert [entry["name"] for entry in found] == ["new.csv:2", "new.csv:3", "new.csv:4"]
    assert [entry["top"][0]["class"] for entry in found[:2]] == ["large", "small"]
    assert [len(entry["top"]) for entry in found] == [2, 2, 2]  # there are no more classes


def test_a_person_reads_the_same_in_columns(run: str, capsys: Output) -> None:
    _, test = splits(run)
    save_images(test.inputs[:12], Path("images"))
    found = predicted(capsys, run, "images", "--top", "2")
    assert main(["predict", run, "images", "--top", "2"]) == 0
    out, err = capsys.readouterr()
    assert err == "" and "\x1b" not in out
    for line, entry in zip(out.splitlines(), found, strict=True):
        texts = [(one["class"], f"{100 * one['probability']:.1f}", "%") for one in entry["top"]]
        assert line.split() == [entry["name"], *texts[0], *texts[1]]
    assert len({len(line) for line in out.splitlines()}) == 1  # percentages end below each other


def test_a_csv_holds_the_exact_numbers_and_overwrites_nothing(run: str, capsys: Output) -> None:
    _, test = splits(run)
    save_images(test.inputs[:3], Path("images"))
    found = predicted(capsys, run, "images", "--csv", "out.csv")
    with open("out.csv", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["name", "class_1", "probability_1", "class_2", "probability_2", "class_3", "probability_3"]
    assert [[row[0], *map(float, row[2::2])] for row in rows] == [
        [entry["name"], *(one["probability"] for one in entry["top"])] for entry in found
    ]
    before = Path("out.csv").read_bytes()
    assert main(["predict", run, "images", "--csv", "out.csv"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and re.fullmatch(r"dltips: --csv: out\.csv .*; choose another name.*\n", err)
    assert Path("out.csv").read_bytes() == before


def test_predicting_reads_no_test_split_and_changes_nothing(run: str, capsys: Output) -> None:
    files = {path.name: path.read_bytes() for path in Path(run).iterdir()}
    save_images(torch.zeros(1, 1, 8, 8, dtype=torch.uint8), Path("images"))
    predicted(capsys, run, "images")
    assert {path.name: path.read_bytes() for path in Path(run).iterdir()} == files


def test_a_name_moves_no_cursor(run: str, capsys: Output) -> None:
    save_images(torch.zeros(1, 1, 8, 8, dtype=torch.uint8), Path("images\x1b[2J"))
    assert main(["predict", run, "images\x1b[2J"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("images?[2J/0000.png  ")


MISTAKES: list[tuple[str, str]] = [
    ("nowhere images", "nowhere: .*outputs"),
    ("outputs/run missing.png", r"predict: missing\.png .*; give a file"),
    ("outputs/run empty", "predict: empty .*pictures"),
    ("outputs/run images --top 11", "--top: 11 .*1 to 10"),
    ("outputs/run images --top 0", "--top: 0 .*1 to 10"),
    ("outputs/run images --device gpu", "device: 'gpu' .*: auto, cpu, cuda, cuda:N, mps$"),
    ("outputs/run images --top many", "dltips predict: .*--top: .*'many'; see dltips predict --help$"),
    ("outputs/run", "dltips predict: .*required: PATH; see dltips predict --help$"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES, ids=[arguments for arguments, _ in MISTAKES])
def test_mistakes_are_one_line(arguments: str, message: str, run: str, capsys: Output) -> None:
    save_images(torch.zeros(1, 1, 8, 8, dtype=torch.uint8), Path("images"))
    Path("empty").mkdir()
    assert main(["predict", *arguments.split()]) == 2
    out, err = capsys.readouterr()
    assert out == "" and re.search(f"^dltips: {message}", err) and err.count("\n") == 1


def test_a_file_that_is_no_picture_is_one_line_that_names_it(run: str, capsys: Output) -> None:
    save_images(torch.zeros(2, 1, 8, 8, dtype=torch.uint8), Path("images"))
    Path("images/0001.png").write_bytes(b"no picture")
    assert main(["predict", run, "images"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and re.fullmatch(r"dltips: predict: images/0001\.png .*\n", err)


def test_an_archive_without_samples_is_one_line(run: str, capsys: Output) -> None:
    numpy.savez("none.npz", images=numpy.zeros((0, 8, 8), dtype=numpy.uint8))
    assert main(["predict", run, "none.npz"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_run_without_its_best_checkpoint_is_one_line_with_the_remedy(run: str, capsys: Output) -> None:
    save_images(torch.zeros(1, 1, 8, 8, dtype=torch.uint8), Path("images"))
    (Path(run) / "best.pt").unlink()
    assert main(["predict", run, "images"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and re.fullmatch(r"dltips: outputs/run/best\.pt: .*; try --checkpoint last\n", err)
    assert len(predicted(capsys, run, "images", "--checkpoint", "last")) == 1


def test_a_checkpoint_or_config_with_code_in_it_runs_none(run: str, tmp_path: Path, capsys: Output) -> None:
    save_images(torch.zeros(1, 1, 8, 8, dtype=torch.uint8), Path("images"))

    class Payload:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "pwned",)

    config = (Path(run) / "config.yaml").read_text()
    (Path(run) / "config.yaml").write_text(f"{config}extra:\n  _target_: pathlib.Path.touch\n  self: pwned\n")
    assert main(["predict", run, "images"]) == 2
    (Path(run) / "config.yaml").write_text(config)
    torch.save({"model": Payload()}, Path(run) / "best.pt")
    assert main(["predict", run, "images"]) == 2
    assert capsys.readouterr().err.count("\n") == 2 and not (tmp_path / "pwned").exists()
