"""`dltips sweep` on real runs: counted, resumed, pruned, averaged over seeds, reported."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from optuna.trial import FrozenTrial, create_trial
from sqlalchemy.exc import OperationalError

from dltips.exit_codes import EXIT_INTERRUPTED, EXIT_PARTLY
from dltips.main import main
from dltips.runs.file_names import read_metrics, read_summary
from dltips.sweep.search import ranking
from dltips.sweep.search.plan import SearchPlan
from dltips.sweep.search.samplers import from_unit
from dltips.sweep.search.search_settings import SearchSettings
from dltips.sweep.search.search_workers import Work
from dltips.sweep.search.space import resolve
from dltips.sweep.search.storage import opened, url_of

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


def test_so_many_trials_as_were_asked_for_each_an_ordinary_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", *QUICK, "epochs=2", LR, "init=he,xavier", "trials=4"]) == 0
    out, err = capsys.readouterr()
    assert [run.name[:4] for run in runs()] == ["000-", "001-", "002-", "003-"]
    assert all(summary["status"] == "finished" for summary in summaries())
    assert all(run.name[4:] == summary["config_hash"][:8] for run, summary in zip(runs(), summaries(), strict=True))
    best = max(range(4), key=lambda number: summaries()[number]["best"]["val/accuracy"])
    assert f"best      trial {best}: " in out and f"folder    {runs()[best]}" in out
    assert err.count("\ntrial ") == 4 and "(4 of 4)" in err
    assert [run for run in runs() if (run / "curves.png").exists()] == [runs()[best]], "pictures of the best run alone"
    content = json.loads((place() / "sweep.json").read_text())
    assert (content["kind"], content["varied"], content["metric"]) == (
        "search",
        ["optimizer.lr", "init"],
        "val/accuracy",
    )


def test_the_same_command_goes_on_and_more_trials_are_added(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["sweep", *QUICK, "epochs=1", LR, "sampler=qmc", "log.pictures=none"]
    assert main([*command, "trials=2"]) == 0
    before = {run: (run / "metrics.jsonl").stat().st_mtime_ns for run in runs()}
    assert main([*command, "trials=2"]) == 0
    assert f"going on with {place()}: 2 of 2 trials are done" in capsys.readouterr().err
    assert main(["sweep", "resume=last", "trials=4"]) == 0
    assert len(runs()) == 4
    assert all((run / "metrics.jsonl").stat().st_mtime_ns == then for run, then in before.items())
    assert main([*command, "trials=3"]) == 0
    assert "trials: there are 4 already, of which none is taken away" in capsys.readouterr().err


def test_another_name_is_another_search() -> None:
    command = ["sweep", *QUICK, "epochs=1", LR, "trials=1", "log.pictures=none"]
    assert main([*command, "name=a"]) == 0 == main([*command, "name=b"])
    assert len(list(Path("outputs").glob("*/study.db"))) == 2


def test_a_trial_that_diverges_is_recorded_and_the_others_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    """Six trials over two rates: the search's seed is fixed, and both are drawn."""
    code = main(["sweep", *QUICK, "epochs=2", "optimizer.lr=choice(0.1,1e30)", "trials=6", "log.pictures=none"])
    out, _ = capsys.readouterr()
    counts = Counter(summary["status"] for summary in summaries())
    assert code == EXIT_PARTLY and counts["diverged"] >= 1 and counts["finished"] >= 1
    assert f"6 trials: {counts['finished']} complete, {counts['diverged']} failed" in out
    assert "failed: not finite in epoch 1: " in out


def test_when_all_fail_the_reason_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", *QUICK, "epochs=2", "optimizer.lr=choice(1e30,1e31)", "trials=2"]) == EXIT_PARTLY
    out, _ = capsys.readouterr()
    assert "2 trials: 0 complete, 2 failed\ntrial 0  failed: not finite in epoch 1: " in out and "best" not in out


def test_two_objectives_give_a_front(capsys: pytest.CaptureFixture[str]) -> None:
    small = [argument for argument in QUICK if "widths" not in argument]
    widths = "model.widths=[2],[64]"
    code = main(["sweep", *small, "epochs=3", widths, "trials=5", "objective=[val/accuracy,parameters]"])
    out, _ = capsys.readouterr()
    assert code == 0 and " front" in out and (place() / "search-front.png").exists()
    points = [(summary["best"]["val/accuracy"], summary["parameters"]) for summary in summaries()]
    beaten = [any(a >= p and b <= q and (a, b) != (p, q) for a, b in points) for p, q in points]
    assert out.count(" front\n") == beaten.count(False)


def test_no_trial_begins_when_the_time_is_over(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", *QUICK, "epochs=1", LR, "trials=3", "timeout=0.000001"]) == 0
    out = capsys.readouterr().out
    assert f"not all trials are done: 3 of 3 trials are left; go on with: dltips sweep resume={place()}" in out
    assert runs() == []
    assert main(["sweep", f"resume={place()}", "timeout=1h"]) == 0
    assert len(runs()) == 3


def planned(*typed: str, **settings: Any) -> SearchPlan:
    return SearchPlan(resolve([*QUICK, *typed]), SearchSettings(**settings), ("val/accuracy",), (), "study")


def started(*arguments: str) -> subprocess.Popen[str]:
    """In a process of its own; its lines come as they are said."""
    command = [sys.executable, "-m", "dltips", "sweep", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def until_epoch(epochs: int, process: subprocess.Popen[str], at_least: int = 0) -> None:
    """Wait for some run that has so many epochs and is not through; what it waits for is progress, not time."""
    while process.poll() is None:
        for file in Path("outputs").glob("*/*/metrics.jsonl"):
            count = len(file.read_text().splitlines())
            if count >= epochs + at_least and not (file.parent / "summary.json").exists():
                return
        time.sleep(0.005)


LONG = ("+recipe=quickstart", "epochs=40", "checkpoint.interval=0", "log.tensorboard=false", LR, "log.pictures=none")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_sweep_that_is_killed_three_times_ends_whole(workers: int) -> None:
    command = [*LONG, "trials=4", f"--workers={workers}"]
    for number in range(3):
        process = started(*command)
        until_epoch(5 + 10 * number, process)
        assert process.poll() is None
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for child in [*children, process.pid]:
            os.kill(int(child), signal.SIGKILL)
        process.communicate()
    process = started(*command)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert [run.name[:3] for run in runs()] == ["000", "001", "002", "003"]
    for run in runs():
        assert [record["epoch"] for record in read_metrics(run)] == list(range(1, 41))
    assert any("resuming" in (run / "run.log").read_text() for run in runs())
    # and ends as if nothing had happened
    resumed = next(run for run in runs() if "resuming" in (run / "run.log").read_text())
    again = yaml.safe_load((resumed / "config.yaml").read_text())
    lr = again["optimizer"]["lr"]
    assert main(["train", *LONG[:4], "log.pictures=none", f"optimizer.lr={lr!r}"]) == 0
    (alone,) = Path("outputs").glob("*/metrics.jsonl")
    volatile = ("seconds", "samples_per_second")
    plain, other = (
        [{key: value for key, value in record.items() if key not in volatile} for record in read_metrics(path)]
        for path in (resumed, alone.parent)
    )
    assert plain == other


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_saves_what_runs(workers: int) -> None:
    process = started(*LONG, "trials=3", f"--workers={workers}")
    until_epoch(4, process)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate()
    assert process.returncode == EXIT_INTERRUPTED, output
    last = output.strip().splitlines()[-1]
    assert last == f"interrupted: 3 of 3 trials are left; go on with: dltips sweep resume={place()}"
    stopped = [run for run in runs() if (read_summary(run) or {})["status"] == "interrupted"]
    assert len(stopped) == workers and all((run / "last.pt").exists() for run in stopped)
    assert main(["sweep", "resume=last"]) == 0
    assert [(len(read_metrics(run)), summary["status"]) for run, summary in zip(runs(), summaries(), strict=True)] == [
        (40, "finished")
    ] * 3


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


def test_a_database_that_goes_away_is_waited_for_wherever_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two seeds, and for the line of a trial that ended: twice away, then there."""
    plan = planned(LR, seeds=3)
    away = iter([OperationalError("SELECT", None, Exception("server closed the connection"))] * 2)

    class Study:
        def trials(self) -> list[FrozenTrial]:
            for error in away:
                raise error
            return told(plan, [0.5], scores=[0.4, 0.6])

    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with opened(url_of(None, Path()), 1) as database:
        work = Work(plan, Path(), url_of(None, Path()), None, 3)
        study: Any = Study()
        loop = work.loop(database, study)
        assert work.objective(loop, study, 0).best() == [0.4, 0.6]
        monkeypatch.setattr(ranking, "done", lambda study: len(study.trials()))
        away = iter([OperationalError("SELECT", None, Exception("server closed the connection"))] * 2)
        assert loop.after.done() == 1  # type: ignore[attr-defined]


def test_sigterm_before_the_first_trial_is_a_ctrl_c(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("dltips.sweep.search.run_search.make_plan", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    assert main(["sweep", *QUICK, LR]) == EXIT_INTERRUPTED
    assert capsys.readouterr().err == "dltips: interrupted\n" and signal.getsignal(signal.SIGTERM) is before
