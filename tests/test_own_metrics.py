"""A metric outside the package, named by DLTIPS_IMPORT: recorded, watched, compared, searched for, listed."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest
import sklearn.metrics
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dltips import metrics
from dltips.feed.splits import split
from dltips.main import main
from dltips.runs import checkpoint, past_runs
from dltips.use import trained_net

Output = pytest.CaptureFixture[str]
QUICK = ("log.tensorboard=false", "log.pictures=none", "log.layers=false", "data.subset=300")

MODULE = '''\
from dltips import metric


@metric(better="higher")
def cohen_kappa(confusion):
    """Agreement beyond chance (Cohen 1960).

    Not listed.
    """
    total = confusion.sum()
    chance = (confusion.sum(0) * confusion.sum(1)).sum() / total**2
    return (confusion.trace() / total - chance) / (1 - chance)


@metric(better="lower")
def worst_class(confusion):
    """The largest share of a class that is missed."""
    return max(1 - confusion.diagonal() / confusion.sum(1))


@metric(better="lower")
def excess(record):
    """How far the validation loss lies above that of training."""
    return record["val/loss"] - record["train/loss"]
'''


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """What a test registers is gone after it: the table belongs to the process."""
    before = dict(metrics.TABLE)
    yield
    metrics.TABLE.clear()
    metrics.TABLE.update(before)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """own.py with three metrics, in a folder where nobody stands."""
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics" / "own.py").write_text(MODULE)
    monkeypatch.setenv("DLTIPS_IMPORT", str(tmp_path / "metrics" / "own.py"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "metrics" / "own.py"


def trained(*overrides: str) -> tuple[Path, list[dict[str, Any]], dict[str, Any]]:
    """The newest run's folder, its records and its summary."""
    assert main(["train", *QUICK, *overrides]) == 0
    path = max(Path("outputs").iterdir())
    records = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return path, records, json.loads((path / "summary.json").read_text())


def refused(capsys: Output, *arguments: str) -> str:
    capsys.readouterr()
    assert main(list(arguments)) == 2
    err = capsys.readouterr().err
    assert err.startswith("dltips: ") and err.count("\n") == 1 and not any(Path().glob("outputs/*"))
    return err.removeprefix("dltips: ").rstrip("\n")


def test_it_is_recorded_and_what_decides_by_its_direction(own: Path) -> None:
    path, records, summary = trained("epochs=6", "metric=val/worst_class", "optimizer.lr=0.3", "log.tensorboard=true")
    config, payload = trained_net.read(path, checkpoint.LAST)
    model, preprocess = trained_net.load_net(config, payload)
    val = split(config.tip("data")(), config.common["data"]()).val.taken()
    with torch.no_grad():
        predicted = model.eval()(preprocess(val.inputs.float() / 255)).argmax(1)
    last = records[-1]
    assert last["val/cohen_kappa"] == pytest.approx(sklearn.metrics.cohen_kappa_score(val.targets, predicted))
    recalls = sklearn.metrics.recall_score(val.targets, predicted, average=None)
    assert last["val/worst_class"] == pytest.approx(1 - min(recalls))
    assert last["excess"] == last["val/loss"] - last["train/loss"]
    scores = [record["val/worst_class"] for record in records]
    best = scores.index(min(scores)) + 1
    assert min(scores) < max(scores) and summary["best"]["epoch"] == best
    assert summary["best"]["val/cohen_kappa"] == records[best - 1]["val/cohen_kappa"]
    assert summary["better"] == {"val/cohen_kappa": "higher", "val/worst_class": "lower", "excess": "lower"}
    events = EventAccumulator(str(path)).Reload()
    assert {"val/cohen_kappa", "val/worst_class", "excess", "train_val_gap"} <= set(events.Tags()["scalars"])
    assert [point.value for point in events.Scalars("val/worst_class")] == pytest.approx(scores)


@pytest.mark.parametrize(("monitor", "sign"), [("val/worst_class", 1), ("val/cohen_kappa", -1), ("excess", 1)])
def test_early_stopping_and_plateau_follow_it(own: Path, monitor: str, sign: int) -> None:
    watching = [f"regularization.early_stopping.monitor={monitor}", "regularization.early_stopping.patience=3"]
    plateau = ["schedule=plateau", f"schedule.monitor={monitor}", "schedule.patience=0", "schedule.factor=0.5"]
    _, records, summary = trained("epochs=40", "optimizer.lr=0.3", "regularization=early_stopping", *watching, *plateau)
    scores = [sign * record[monitor] for record in records]
    rate, best, waited = 0.3, numpy.inf, 0
    for epoch, score in enumerate(scores):
        assert waited < 3, "it would have stopped before"
        assert records[epoch]["lr"] == pytest.approx(rate)
        best, waited = (score, 0) if score < best else (best, waited + 1)
        rate *= 1.0 if waited == 0 else 0.5
    assert waited == 3 and summary["stopped_early"] and len(records) < 40


def test_runs_are_compared_by_it_where_it_is_not_known(
    own: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["train", "-m", *QUICK, "epochs=1", "optimizer.lr=0.1,0.0001", "metric=val/worst_class"]) == 0
    (sweep,) = Path("outputs").iterdir()
    runs = past_runs.runs_in([str(sweep)])
    scores = {run.settings["optimizer.lr"]: run.value("val/worst_class") for run in runs}
    low, high = sorted(scores, key=lambda rate: scores[rate] or 0.0)
    assert scores[low] != scores[high]
    monkeypatch.delenv("DLTIPS_IMPORT")
    for name in metrics.users():
        metrics.TABLE.pop(name.removeprefix("val/"))
    capsys.readouterr()
    assert main(["compare", "--metric", "val/worst_class", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["better"] == "lower"
    assert [group["settings"]["optimizer.lr"] for group in found["groups"]] == [low, high]
    assert past_runs.find(str(sweep)).settings["optimizer.lr"] == low
    assert main(["compare", "--metric", "epochs_to:val/worst_class:0.9999", "--json"]) == 0
    first = json.loads(capsys.readouterr().out)["groups"][0]
    assert (first["settings"]["optimizer.lr"], first["mean"]) == (low, 1.0)


def test_a_grid_s_best_run_is_the_best_by_it(own: Path, capsys: Output) -> None:
    assert main(["train", "-m", *QUICK, "epochs=1", "optimizer.lr=0.0001,0.1", "metric=val/worst_class"]) == 0
    out = capsys.readouterr().out
    runs = past_runs.runs_in()
    low, high = sorted(runs, key=lambda run: run.value("val/worst_class") or 0.0)
    assert low.value("val/worst_class") != high.value("val/worst_class")
    assert f"optimizer.lr={low.settings['optimizer.lr']}, val/worst_class" in out.partition("best ")[2]


def test_a_search_takes_it_as_its_objective(own: Path, capsys: Output) -> None:
    objectives = "objective=[val/worst_class,train_val_gap,parameters]"
    space = ["optimizer.lr=choice(0.0001,0.1)", "epochs=1", "trials=2", "sampler=random"]
    assert main(["sweep", *QUICK, *space, "objective=val/worst_class", "name=one"]) == 0
    runs = [run for run in past_runs.runs_in() if run.status == "finished"]
    lowest = min(run.value("val/worst_class") or 0.0 for run in runs)
    assert f"val/worst_class {lowest:.4f}" in capsys.readouterr().out.partition("best ")[2]
    assert runs[0].summary["metric"] == "val/worst_class"
    assert main(["sweep", *QUICK, *space, objectives, "name=several"]) == 0
    assert main(["sweep", *QUICK, *space, "objective=val/worst_clas"]) == 2
    assert (
        "objective: 'val/worst_clas' is not a score of a run; did you mean val/worst_class?" in capsys.readouterr().err
    )


def test_evaluate_prints_it(own: Path, capsys: Output) -> None:
    path, _, _ = trained("epochs=1")
    capsys.readouterr()
    assert main(["evaluate", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    confusion = numpy.array(found["confusion"])
    labels = [
        (true, said) for true, row in enumerate(confusion) for said, count in enumerate(row) for _ in range(count)
    ]
    assert found["cohen_kappa"] == pytest.approx(sklearn.metrics.cohen_kappa_score(*zip(*labels, strict=True)))
    assert main(["evaluate", str(path)]) == 0
    assert f"cohen_kappa {found['cohen_kappa']:.4f}" in " ".join(capsys.readouterr().out.split())


def test_it_is_listed_completed_and_explained_without_being_imported(own: Path) -> None:
    own.write_text(MODULE + "\nraise RuntimeError('imported')\n")
    script = (
        "import sys; from dltips.main import main; code = main(sys.argv[1:]); sys.exit(code or 'torch' in sys.modules)"
    )

    def said(*arguments: str) -> str:
        done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
        return done.stdout

    lines = said("ls", "metrics").splitlines()
    listed = dict(line.split(maxsplit=1) for line in lines)
    assert listed["val/cohen_kappa"] == "Agreement beyond chance (Cohen 1960) (each epoch; higher is better)"
    assert listed["excess"].endswith("above that of training (each epoch; lower is better)")
    assert list(listed).index("val/cohen_kappa") < list(listed).index("layers/LAYER/mean")
    assert "val/cohen_kappa" in json.loads(said("ls", "--json"))["metrics"]
    assert said("completion", "--words", "dltips train metric=val/c").split() == ["metric=val/cohen_kappa"]
    assert said("completion", "--words", "dltips sweep objective=e").split() == ["objective=excess"]
    assert said("completion", "--words", "dltips compare --metric val/w").split() == ["val/worst_class"]
    assert "dltips train metric=val/cohen_kappa" in said("explain", "val/cohen_kappa")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("metric=val/cohen_kapa", "metric: 'val/cohen_kapa' is not a score of an epoch; did you mean val/cohen_kappa?"),
        ("metric=exces", "metric: 'exces' is not a score of an epoch; did you mean excess?"),
        ("metric=qqq", r"metric: 'qqq' is not a score of an epoch; there is: excess, .*val/worst_class"),
        (
            "schedule=plateau schedule.monitor=val/worst",
            "schedule.monitor: 'val/worst' .* did you mean val/worst_class",
        ),
    ],
)
def test_a_name_that_is_none_gets_the_nearest_or_the_list(
    own: Path, capsys: Output, override: str, message: str
) -> None:
    assert re.match(message, refused(capsys, "train", *override.split()))


def written(own: Path, function: str, better: str = "'higher'") -> None:
    own.write_text(f"from dltips import metric\n@metric(better={better})\n{function}\n")


@pytest.mark.parametrize(
    ("function", "better", "message"),
    [
        ("def accuracy(confusion): return 1", "'higher'", "metric accuracy: the name is taken; give the function in "),
        ("def seconds(confusion): return 1", "'lower'", "metric seconds: the name is taken; "),
        ("def train_val_gap(record): return 1", "'lower'", "metric train_val_gap: the name is taken; "),
        ("def epoch(record): return 1", "'lower'", "metric epoch: the name is taken; "),
        ("def mine(confusion): return 1", "'up'", "metric mine: better='up' is neither 'higher' nor 'lower'"),
        ("def mine(outputs): return 1", "'lower'", "metric mine: its one argument says what it is computed from; "),
        ("def mine(confusion, more): return 1", "'lower'", "metric mine: its one argument says what it is computed "),
        ("def mine(confusion) return", "'lower'", "DLTIPS_IMPORT: "),
    ],
)
def test_one_that_cannot_be_in_the_table_is_refused(
    own: Path, capsys: Output, function: str, better: str, message: str
) -> None:
    written(own, function, better)
    assert refused(capsys, "train", *QUICK).startswith(message)


def test_two_files_may_not_define_one_name(
    own: Path, tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other.py").write_text(MODULE)
    monkeypatch.setenv("DLTIPS_IMPORT", f"{own},{tmp_path / 'other.py'}")
    assert refused(capsys, "train", *QUICK).startswith("metric cohen_kappa: the name is taken; give the function in")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("def mine(confusion): return confusion.nothing", "raised AttributeError: "),
        ("def mine(confusion): confusion[0] = 0; return 1", "raised ValueError: assignment destination is read-only"),
        ("def mine(confusion): return 'high'", "returned 'high', which is not a number"),
        ("def mine(confusion): return confusion", "returned array("),
        ("def mine(confusion): pass", "returned None, which is not a number"),
        ("def mine(record): return record['val/los']", "raised KeyError: 'val/los'"),
    ],
)
def test_one_that_fails_ends_the_run_at_its_first_validation(
    own: Path, capsys: Output, function: str, message: str
) -> None:
    written(own, function)
    capsys.readouterr()
    assert main(["train", *QUICK, "epochs=3"]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"dltips: metric mine: {message}") and last.endswith(f"; fix it in {own}")
    assert not any(Path("outputs").iterdir())


@pytest.mark.parametrize("value", ["1 / 0", "confusion[0, 0] * 0 / (confusion[0, 0] * 0)", "float('inf')", "10.0**999"])
def test_one_that_is_not_defined_is_nan_and_the_run_goes_on(own: Path, value: str) -> None:
    written(own, f"def mine(confusion): return {value}")
    path, records, summary = trained("epochs=2", "metric=val/mine")
    assert [record["val/mine"] for record in records] == [None, None]
    assert summary["status"] == "finished" and (path / "best.pt").exists()


def test_one_of_whole_numbers_or_numpy_s_is_a_float(own: Path) -> None:
    written(own, "def mine(confusion): return confusion.trace()")
    _, records, _ = trained("epochs=1")
    count = records[0]["val/mine"]
    assert isinstance(count, float) and count == round(count) > 0
