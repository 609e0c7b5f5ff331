"""What a search prints at its end."""

import math
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from optuna.trial import FrozenTrial, TrialState, create_trial

from dltips.config.composition import compose
from dltips.config.plain import to_plain
from dltips.main import main
from dltips.runs.file_names import read_summary
from dltips.sweep.search import search_report
from dltips.sweep.search.plan import SearchPlan
from dltips.sweep.search.samplers import from_unit
from dltips.sweep.search.search_report import at_the_edge
from dltips.sweep.search.search_settings import SearchSettings
from dltips.sweep.search.space import resolve

QUICK = ("+recipe=quickstart", "log.tensorboard=false", "log.layers=false", "model.widths=[16]")


LR = "optimizer.lr=tag(log,interval(1e-3,1))"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def place() -> Path:
    (found,) = Path("outputs").glob("*/sweep.json")
    return found.parent


def runs() -> list[Path]:
    return sorted(file.parent for file in place().glob("*/config.yaml"))


def summaries() -> list[dict[str, Any]]:
    return [read_summary(run) or {} for run in runs()]


def test_the_command_it_prints_trains_the_best_again(capsys: pytest.CaptureFixture[str]) -> None:
    main(
        ["sweep", *QUICK, "epochs=1", LR, "regularization=[l2],[l2,label_smoothing]", "trials=3", "objective=val/loss"]
    )
    lines = capsys.readouterr().out.splitlines()
    command = next(line for line in lines if line.startswith("train "))
    best = next(line for line in lines if line.startswith("folder ")).split()[1]
    overrides = shlex.split(command)[3:]
    composed, _ = compose(overrides)
    stored = yaml.safe_load(Path(best, "config.yaml").read_text())
    assert to_plain(composed) == stored


@pytest.mark.parametrize(
    ("typed", "value", "line"),
    [
        (
            "optimizer.lr=tag(log,interval(1e-4,1))",
            0.98,
            "optimizer.lr: the best value 0.98 lies at the edge of tag(log,interval(1e-4,1)); widen it upwards",
        ),
        (
            "optimizer.lr=tag(log,interval(1e-4,1))",
            0.00011,
            "optimizer.lr: the best value 0.00011 lies at the edge of tag(log,interval(1e-4,1)); widen it downwards",
        ),
        ("optimizer.lr=tag(log,interval(1e-4,1))", 0.02, None),
        ("optimizer.lr=interval(0.01,1)", 0.02, "optimizer.lr: the best value 0.02 lies at the edge of"),
        ("epochs=int(interval(1,30))", 30, "epochs: the best value 30 lies at the edge of int(interval(1,30)); widen"),
        ("init=he,xavier", "xavier", None),
    ],
)
def test_the_edge_of_a_range_is_pointed_at(typed: str, value: Any, line: str | None) -> None:
    space = resolve([typed])
    (dimension,) = space.dimensions
    key, distribution = dimension.key, dimension.distribution()
    best = create_trial(params={key: value}, distributions={key: distribution}, value=1.0)
    found = at_the_edge(SearchPlan(space, SearchSettings(), ("val/accuracy",), (), ""), best)
    assert (found == []) if line is None else found[0].startswith(line)


def test_where_seconds_are_an_objective_one_column_has_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", *QUICK, "epochs=1", LR, "trials=2", "objective=[val/accuracy,seconds]"]) == 0
    head, *rows = [line for line in capsys.readouterr().out.splitlines() if line][:3]
    assert head.split() == ["trial", "optimizer.lr", "val/accuracy", "seconds"]
    seconds = {f"{summary['seconds']:.4f}" for summary in summaries()}
    assert {row.split()[3] for row in rows} == seconds and head.index("seconds") < rows[0].index("front")


def planned(*typed: str, **settings: Any) -> SearchPlan:
    return SearchPlan(resolve([*QUICK, *typed]), SearchSettings(**settings), ("val/accuracy",), (), "study")


def test_the_end_says_what_to_type_next(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", *QUICK, "epochs=1", LR, "trials=1", "log.pictures=none"]) == 0
    last = capsys.readouterr().out.splitlines()[-2:]
    assert last == [f"compare   dltips compare {place()}", f"board     dltips board {place()}"]


def told(plan: SearchPlan, values: list[float], **attributes: Any) -> list[FrozenTrial]:
    """Complete trials, one for each value."""
    found = []
    for number, value in enumerate(values):
        params = {
            key: from_unit(each, (number + 0.5) / len(values)) for key, each in plan.space.distributions().items()
        }
        trial = create_trial(
            params=params,
            distributions=plan.space.distributions(),
            value=value,
            user_attrs={"folders": [f"{number:03}-0123abcd"], "seconds": 1.0, **attributes},
        )
        trial.number = number
        found.append(trial)
    return found


@pytest.mark.parametrize(
    ("values", "why"),
    [([0.5] * 24, "all trials score the same"), ([1e308, -1e308] * 12, "the scores lie too far apart")],
)
def test_scores_that_differ_by_nothing_or_beyond_any_float_are_reported(
    values: list[float], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = planned(LR, "init=he,xavier")
    assert search_report.report(plan, Path(), told(plan, values), interrupted=False) == 0
    out = capsys.readouterr().out
    assert f"parameter importance: {why}\n" in out and "best      trial 0: " in out


def test_the_best_run_may_lie_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    plan = planned(LR)
    search_report.report(
        plan, Path("here"), told(plan, [0.5], worker={"host": "node7", "token": "x"}), interrupted=False
    )
    assert (
        "folder    000-0123abcd, which is not in here: a worker on node7 ran it in a folder of its own\n"
        in capsys.readouterr().out
    )


def test_a_run_of_the_best_value_is_finite() -> None:
    assert main(["sweep", *QUICK, "epochs=1", LR, "trials=1", "objective=seconds", "log.pictures=none"]) == 0
    assert math.isfinite(summaries()[0]["seconds"])


@pytest.mark.parametrize(("storage", "end"), [(None, ""), ("postgresql://me@host/db", " storage=ADDRESS")])
@pytest.mark.parametrize(
    ("interrupted", "code", "why"), [(True, 130, "interrupted"), (False, 0, "not all trials are done")]
)
def test_what_is_left_is_counted_with_the_command_that_goes_on(
    storage: str | None, end: str, interrupted: bool, code: int, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = planned(LR, storage=storage)
    trials = told(plan, [0.5, 0.6, 0.7])
    trials[1].state = TrialState.RUNNING
    assert search_report.report(plan, Path("a b"), trials, interrupted=interrupted) == code
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"{why}: 1 of 3 trials are left; go on with: dltips sweep resume='a b'{end}"


def test_three_reasons_are_printed_and_the_exit_code_tells_of_failures(capsys: pytest.CaptureFixture[str]) -> None:
    plan = planned(LR)
    trials = told(plan, [0.5] * 6)
    for trial in trials[1:]:
        trial.state = TrialState.FAIL
        trial.set_user_attr("error", "no memory")
    assert search_report.report(plan, Path(), trials, interrupted=False) == 5
    out = capsys.readouterr().out
    assert out.count("failed: no memory") == 3 and "... and 2 more\n" in out
