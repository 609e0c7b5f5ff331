"""--compare: four runs under one budget, and a table that says which was right."""

from pathlib import Path

import pytest

from dltips.main import main
from dltips.runs.file_names import read_summary
from dltips.sweep.compare_strategies import STRATEGIES, StrategyOutcome, table

RUN = ["device=cpu", "log.tensorboard=false", "log.pictures=none", "data.subset=100", "model=cnn", "model.widths=[4,6]"]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def source() -> Path:
    assert main(["train", *RUN, "epochs=1"]) == 0
    (folder,) = Path("outputs").iterdir()
    return folder


def test_all_four_run_with_autos_knobs_and_stop_at_their_budget(capsys: pytest.CaptureFixture[str]) -> None:
    first = source()
    capsys.readouterr()
    chosen = [*RUN, f"finetune.source={first}", "finetune=auto", "finetune.n=1", "finetune.rate=0.3", "epochs=100000"]
    assert main(["train", *chosen, "name=ants", "--compare=0.3"]) == 0
    printed = capsys.readouterr().out
    runs = {path.name.split("ants-")[1]: read_summary(path) for path in set(Path("outputs").iterdir()) - {first}}
    assert set(runs) == set(STRATEGIES)
    for strategy, summary in runs.items():
        assert summary is not None and strategy in printed
        assert summary["status"] == "finished" and summary["stopped_early"] and summary["strategy"] == strategy
        assert f"{summary['best']['val/accuracy']:.4f}" in printed
    config = next(path for path in Path("outputs").iterdir() if path.name.endswith("top_layers")) / "config.yaml"
    assert "'n': 1\n" in config.read_text() and "rate: 0.3\n" in config.read_text()
    assert printed.count(" *  ") == 1 and "auto: size: " in printed


def test_one_that_is_refused_does_not_stop_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    """More stages than there are, as auto itself takes it; an augmentation, which a machine cannot have."""
    first = source()
    capsys.readouterr()
    chosen = [*RUN, f"finetune.source={first}", "finetune=auto", "finetune.n=7", "augmentation=crop", "epochs=2"]
    assert main(["train", *chosen, "regularization=max_norm", "--compare=5"]) == 0
    printed = capsys.readouterr().out
    assert [strategy for strategy in STRATEGIES if f"\n{strategy}" in printed] == list(STRATEGIES)
    assert "earlier_stage_svm is left out: regularization.max_norm" in printed
    assert len(list(Path("outputs").iterdir())) == 4


def outcome(strategy: str, score: float | None) -> StrategyOutcome:
    best = None if score is None else {"val/accuracy": score, "val/loss": 1 - score}
    return StrategyOutcome(
        strategy, f"outputs/{strategy}", {"best": best, "last": {"epoch": 3}, "trained_parameters": 10}, 1.0
    )


def test_the_table_ranks_and_says_by_how_many_samples_another_was_better() -> None:
    outcomes = [outcome("linear_probe", 0.90), outcome("top_layers", 0.94), outcome("most_layers", None)]
    lines = table(outcomes, "linear_probe", "val/accuracy", 60, 50)
    assert [line.split()[0] for line in lines[2:5]] == ["top_layers", "linear_probe", "most_layers"]
    assert lines[-1] == "top_layers would have been right: ahead of linear_probe by 2 of 50 validation samples"
    assert table(outcomes, "top_layers", "val/accuracy", 60, 50)[-1] == "auto was right: nothing beats top_layers"
    by_loss = table(outcomes, "linear_probe", "val/loss", 60, 50)
    assert by_loss[2].split()[0] == "top_layers"
    assert by_loss[-1] == "top_layers would have been right: ahead of linear_probe by 0.0400 in val/loss"
    assert table(outcomes, "most_layers", "val/accuracy", 60, 50)[-1] == "auto chose most_layers, which has no score"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--compare"],
            "--compare: runs the strategies among which finetune=auto chooses, but finetune is none; write"
            " finetune=auto",
        ),
        (["--compare=soon"], "--compare: 'soon' is not a number of seconds; write --compare=60"),
        (["--compare=0"], "--compare: '0' is not a number of seconds; write --compare=60"),
        (["-m", "--compare"], "--compare: is for one run, not for a grid; leave out -m"),
    ],
)
def test_wrong_use_is_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *RUN, *arguments]) == 2
    assert capsys.readouterr().err == f"dltips: {message}\n"
    assert not Path("outputs").exists() or not list(Path("outputs").iterdir())
