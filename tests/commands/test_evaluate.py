import contextlib
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn import metrics
from torch import Tensor

from dltips.config.validation import validate
from dltips.feed.splits import split
from dltips.main import main
from dltips.runs import checkpoint, folder
from dltips.runs.file_names import read_summary
from dltips.use.trained_net import load_net

Output = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three epochs on digits, at a rate that leaves mistakes to count."""
    base = tmp_path_factory.mktemp("evaluate")
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(io.StringIO()):
        patch.chdir(base)
        quick = ["epochs=3", "log.tensorboard=false", "log.pictures=none", "log.layers=false"]
        assert main(["train", *quick, "optimizer.lr=0.002", "regularization=[dropout]", *SMALL]) == 0
    (path,) = (base / "outputs").iterdir()
    return path


SMALL = ["model.widths=[16]", "regularization.dropout.min_units=1", "regularization.dropout.p=0.2"]


@pytest.fixture
def run(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A copy of the run, as outputs/run of the folder at hand."""
    shutil.copytree(trained, tmp_path / "outputs" / "run")
    monkeypatch.chdir(tmp_path)
    return "outputs/run"


def evaluated(capsys: Output, *arguments: str) -> Any:
    capsys.readouterr()
    assert main(["evaluate", *arguments, "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return json.loads(out)


def summary(run: str) -> dict[str, Any]:
    found = read_summary(Path(run))
    assert found is not None
    return found


def by_hand(run: str, name: str) -> tuple[Tensor, Tensor, float]:
    """Predictions, labels and loss of the test split: the net and the images, without the feed."""
    config = validate_config(run)
    model, preprocess = load_net(config, checkpoint.read(Path(run) / name))
    test = split(config.tip("data")(), config.common["data"]()).test.taken()
    model.eval()
    with torch.no_grad():
        outputs = torch.cat([model(preprocess(images.float() / 255)) for images in test.inputs.split(64)])
    return outputs.argmax(1), test.targets, float(torch.nn.functional.cross_entropy(outputs, test.targets))


def validate_config(run: str) -> Any:
    from omegaconf import OmegaConf

    return validate(OmegaConf.create(folder.read_config(Path(run))))


@pytest.mark.parametrize("which", ["best", "last"])
def test_the_scores_are_those_of_the_checkpoint_s_predictions(which: str, run: str, capsys: Output) -> None:
    predicted, targets, loss = by_hand(run, f"{which}.pt")
    found = evaluated(capsys, run, "--checkpoint", which)
    assert found["checkpoint"] == which and found["samples"] == len(targets) == 180
    assert found["accuracy"] == metrics.accuracy_score(targets, predicted)
    assert found["loss"] == loss
    assert found["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(targets, predicted), rel=1e-14)
    assert found["macro_f1"] == pytest.approx(metrics.f1_score(targets, predicted, average="macro"), rel=1e-14)
    assert found["confusion"] == metrics.confusion_matrix(targets, predicted, labels=range(10)).tolist()
    assert sum(map(sum, found["confusion"])) == found["samples"]
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        targets, predicted, labels=range(10), zero_division=0
    )
    for index, entry in enumerate(found["per_class"]):
        assert entry["class"] == found["classes"][index] == str(index)
        assert entry["samples"] == support[index] == sum(found["confusion"][index])
        assert entry["recall"] == recall[index]
        assert (entry["precision"] or 0) == precision[index]
        assert entry["f1"] == f1[index]
    assert found["accuracy"] < 1  # else the confusion matrix would prove nothing


def test_an_evaluation_that_fails_is_no_read(run: str, capsys: Output) -> None:
    assert main(["evaluate", run, "--device", "gpu"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and re.fullmatch(r"dltips: device: 'gpu' .*: auto, cpu, cuda, cuda:N, mps\n", err)
    assert summary(run)["test_reads"] == 0


def test_a_person_reads_the_same_numbers(run: str, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    found = evaluated(capsys, run)
    assert main(["evaluate", run]) == 0
    out, err = capsys.readouterr()
    assert err == "" and "\x1b" not in out
    where, first, *lines, last = out.splitlines()
    assert where == run
    numbers = [f"{found[name]:.4f}" for name in ("loss", "accuracy", "balanced_accuracy", "macro_f1")]
    expected = "test loss {}  accuracy {}  balanced {}  macro F1 {}  (180 samples, best checkpoint of epoch {})"
    assert first == expected.format(*numbers, found["epoch"])
    assert last.startswith("the test split of this run has been read 2 times: ")
    rows = [line.split() for line in lines if line.split()[:1] and line.split()[0] in found["classes"]]
    assert [[int(cell) for cell in row[1:]] for row in rows[10:]] == found["confusion"]
    assert [row[3] for row in rows[:10]] == [f"{entry['recall']:.4f}" for entry in found["per_class"]]


def test_the_first_read_says_so_without_a_warning(run: str, capsys: Output) -> None:
    assert main(["evaluate", run]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "the test split of this run has been read 1 time"


def test_the_test_split_is_not_what_the_run_was_trained_or_chosen_on(run: str) -> None:
    config = validate_config(run)
    splits = split(config.tip("data")(), config.common["data"]())
    parts = [set(part.indices.tolist()) for part in (splits.train, splits.val, splits.test) if part.indices is not None]
    assert [len(part) for part in parts] == [1437, 180, 180] and len(set.union(*parts)) == 1797


@pytest.mark.parametrize("which", ["best", "last"])
@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "text", "another", "missing"])
def test_a_damaged_checkpoint_is_one_line(which: str, damage: str, run: str, capsys: Output) -> None:
    file = Path(run) / f"{which}.pt"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 255
    if damage == "another":
        torch.save([1, 2, 3], file)
    elif damage == "missing":
        file.unlink()
    else:
        other = {"truncated": content[:500], "flipped": content, "empty": b"", "text": b"no checkpoint"}
        file.write_bytes(other[damage])
    assert main(["evaluate", run, "--checkpoint", which]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"dltips: {file}: ") and err.count("\n") == 1 and "Traceback" not in err
    assert (
        "does not exist; the run has not saved it yet" in err if damage == "missing" else "; try --checkpoint " in err
    )
    assert summary(run)["test_reads"] == 0


def test_a_checkpoint_with_code_in_it_runs_none(run: str, tmp_path: Path, capsys: Output) -> None:
    class Payload:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "pwned",)

    torch.save({"model": Payload()}, Path(run) / "best.pt")
    assert main(["evaluate", run]) == 2
    assert capsys.readouterr().err.count("\n") == 1 and not (tmp_path / "pwned").exists()


def test_a_checkpoint_of_another_net_is_one_line(run: str, capsys: Output) -> None:
    config = Path(run) / "config.yaml"
    config.write_text(config.read_text().replace("  - 16\n", "  - 17\n"))
    assert main(["evaluate", run]) == 2
    err = capsys.readouterr().err
    assert re.search(r"^dltips: the checkpoint's net .*config's: ", err) and err.count("\n") == 1


def test_a_checkpoint_that_lacks_parts_is_one_line(run: str, capsys: Output) -> None:
    torch.save({"format": 1}, Path(run) / "best.pt")
    assert main(["evaluate", run]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_an_unfinished_run_is_one_line_with_the_remedy(run: str, capsys: Output) -> None:
    (Path(run) / "summary.json").unlink()
    assert main(["evaluate", run]) == 2
    out, err = capsys.readouterr()
    assert out == "" and re.fullmatch(r"dltips: outputs/run: .*summary\.json.* train resume=outputs/run\n", err)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("nowhere", "nowhere: .*outputs"),
        (".", r"\.: .*config\.yaml; .*outputs"),
        ("", "dltips evaluate: .*required: run; see dltips evaluate --help"),
        ("outputs/run --checkpoint worst", "dltips evaluate: .*--checkpoint: .*'worst' .*; see dltips evaluate --help"),
    ],
)
def test_mistakes_are_one_line(arguments: str, message: str, run: str, capsys: Output) -> None:
    assert main(["evaluate", *arguments.split()]) == 2
    out, err = capsys.readouterr()
    assert out == "" and re.fullmatch(f"dltips: {message}\n", err)


def test_an_initialized_net_can_be_evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "epochs=0", "log.tensorboard=false", "log.pictures=none", "model.widths=[4]"]) == 0
    (path,) = Path("outputs").iterdir()
    assert evaluated(capsys, str(path))["epoch"] == 0
