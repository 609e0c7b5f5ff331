"""`dltips sweep` on real runs: counted, resumed, pruned, averaged over seeds, reported."""

import json
import math
import os
import pickle
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml
from optuna.trial import FrozenTrial, create_trial
from sqlalchemy.exc import OperationalError

from dltips.config.composition import compose
from dltips.config.plain import to_plain
from dltips.exit_codes import EXIT_INTERRUPTED, EXIT_PARTLY
from dltips.main import main
from dltips.runs.layout import read_metrics, read_summary
from dltips.sweep.search import ranking, search_plots, search_report
from dltips.sweep.search.importance import ENOUGH
from dltips.sweep.search.objective import Runs
from dltips.sweep.search.plan import SearchPlan
from dltips.sweep.search.samplers import from_unit
from dltips.sweep.search.search_plots import log_ticks
from dltips.sweep.search.search_report import at_the_edge
from dltips.sweep.search.search_settings import SearchSettings
from dltips.sweep.search.search_workers import Work
from dltips.sweep.search.space import resolve
from dltips.sweep.search.storage import DatabaseGone, opened, url_of

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


def test_seeds_are_averaged(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", *QUICK, "epochs=1", LR, "trials=1", "seeds=3", "log.pictures=none"]) == 0
    assert sorted(summary["seed"] for summary in summaries()) == [0, 1, 2]
    scores = [summary["best"]["val/accuracy"] for summary in summaries()]
    out = capsys.readouterr().out
    assert f"val/accuracy {sum(scores) / 3:.4f}" in out
    assert "dltips train -m +recipe=quickstart" in out and "'seed=range(0,3)'" in out


def test_seeds_of_a_bad_trial_are_not_all_run(capsys: pytest.CaptureFixture[str]) -> None:
    """A rate of a millionth stays at chance: after two of four seeds that is clear."""
    rates = "optimizer.lr=choice(0.1,1e-6)"
    assert main(["sweep", *QUICK, "epochs=2", rates, "trials=6", "seeds=4", "log.pictures=none"]) == 0
    counts = Counter(run.name[:3] for run in runs())
    out = capsys.readouterr().out
    assert "of them by the race of seeds)" in out
    assert min(counts.values()) < 4 == max(counts.values())


def test_a_pruned_run_says_so() -> None:
    arguments = ["epochs=6", "optimizer.lr=choice(0.1,1e-6)", "trials=8", "pruner=asha", "log.pictures=none"]
    assert main(["sweep", *QUICK, *arguments]) == 0
    ended = {run.name: (read_summary(run) or {})["status"] for run in runs()}
    assert set(ended.values()) == {"finished", "pruned"}
    for run in runs():
        assert len(read_metrics(run)) == 6 or ended[run.name] == "pruned"


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


def test_two_objectives_give_a_front(capsys: pytest.CaptureFixture[str]) -> None:
    small = [argument for argument in QUICK if "widths" not in argument]
    widths = "model.widths=[2],[64]"
    code = main(["sweep", *small, "epochs=3", widths, "trials=5", "objective=[val/accuracy,parameters]"])
    out, _ = capsys.readouterr()
    assert code == 0 and " front" in out and (place() / "search-front.png").exists()
    points = [(summary["best"]["val/accuracy"], summary["parameters"]) for summary in summaries()]
    beaten = [any(a >= p and b <= q and (a, b) != (p, q) for a, b in points) for p, q in points]
    assert out.count(" front\n") == beaten.count(False)


def test_where_seconds_are_an_objective_one_column_has_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", *QUICK, "epochs=1", LR, "trials=2", "objective=[val/accuracy,seconds]"]) == 0
    head, *rows = [line for line in capsys.readouterr().out.splitlines() if line][:3]
    assert head.split() == ["trial", "optimizer.lr", "val/accuracy", "seconds"]
    seconds = {f"{summary['seconds']:.4f}" for summary in summaries()}
    assert {row.split()[3] for row in rows} == seconds and head.index("seconds") < rows[0].index("front")


def test_no_trial_begins_when_the_time_is_over(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", *QUICK, "epochs=1", LR, "trials=3", "timeout=0.000001"]) == 0
    out = capsys.readouterr().out
    assert f"not all trials are done: 3 of 3 trials are left; go on with: dltips sweep resume={place()}" in out
    assert runs() == []
    assert main(["sweep", f"resume={place()}", "timeout=1h"]) == 0
    assert len(runs()) == 3


@pytest.mark.slow
def test_importance_finds_what_matters(capsys: pytest.CaptureFixture[str]) -> None:
    """init=zeros learns nothing, and the batch size hardly counts."""
    arguments = ["init=he,zeros", "batch_size=int(interval(30,60))", "trials=20", "sampler=random"]
    assert main(["sweep", *QUICK, "epochs=2", *arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    shares = lines[lines.index("importance") + 1 :][:2]
    assert shares[0].split()[0] == "init" and float(shares[0].split()[1].rstrip("%")) > 90
    names = {"search-history.png", "search-slices.png", "search-importance.png"}
    assert {path.name for path in place().glob("*.png")} == names


def test_the_axis_of_few_trials_has_whole_numbers() -> None:
    plan = planned(LR)
    (axes,) = search_plots._history(plan, told(plan, [0.5, 0.7, 0.6]), [], 0).axes
    assert all(tick == round(tick) for tick in axes.get_xticks())


def test_the_readme_says_how_many_trials_importance_takes() -> None:
    text = " ".join((Path(__file__).parents[3] / "README.md").read_text().split())
    assert f"how much each parameter matters (from {ENOUGH} complete trials on: those that were pruned" in text


def planned(*typed: str, **settings: Any) -> SearchPlan:
    return SearchPlan(resolve([*QUICK, *typed]), SearchSettings(**settings), ("val/accuracy",), (), "study")


class Unreachable:
    """A trial whose database is gone when the second epoch is told."""

    number = 0
    values: ClassVar[dict[str, Any]] = {"optimizer.lr": 0.1}

    def report(self, epoch: int, score: float) -> bool:
        if epoch == 2:
            raise DatabaseGone("storage: the database is gone")
        return False

    def stop(self) -> bool:
        return False


def test_a_database_that_is_gone_is_not_the_runs_failure() -> None:
    plan = planned(LR, "epochs=5")
    Path("outputs").mkdir()
    runs_of = Runs(plan.space, plan.objectives, plan.directions, 1, True, Path("outputs"), lambda: None)
    with pytest.raises(DatabaseGone):
        runs_of(Unreachable())
    (run,) = Path("outputs").iterdir()
    assert (read_summary(run) or {})["status"] == "interrupted"
    assert len(read_metrics(run)) == 2 and (run / "last.pt").exists(), "it is saved, and gone on with"


def test_what_a_worker_does_travels_to_another_process() -> None:
    """Beside a GPU workers are spawned: all they get is pickled."""
    work = Work(planned(LR), Path("outputs"), url_of(None, Path("outputs")), None, 3)
    again = pickle.loads(pickle.dumps(work))
    assert again.plan == work.plan and again.url == work.url


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


@pytest.mark.slow
def test_a_worker_that_is_killed_is_replaced() -> None:
    process = started(*LONG, "trials=4", "--workers=2")
    until_epoch(4, process)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGKILL)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert "killed by SIGKILL; its trial goes on where it was" in output
    assert len(runs()) == 4 and all(summary["status"] == "finished" for summary in summaries())


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
    assert f"importance of each parameter: {why}\n" in out and "best      trial 0: " in out


def test_the_best_run_may_lie_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    plan = planned(LR)
    search_report.report(
        plan, Path("here"), told(plan, [0.5], worker={"host": "node7", "token": "x"}), interrupted=False
    )
    assert (
        "folder    000-0123abcd, which is not in here: a worker on node7 ran it in a folder of its own\n"
        in capsys.readouterr().out
    )


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
    monkeypatch.setattr("dltips.sweep.search.run_search._planned", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    assert main(["sweep", *QUICK, LR]) == EXIT_INTERRUPTED
    assert capsys.readouterr().err == "dltips: interrupted\n" and signal.getsignal(signal.SIGTERM) is before


CREW = """
import os, signal, sys, time
from dltips.sweep.search import search_workers as crew

def work(slot):  # far longer than a signal takes
    for _ in range(3000):
        time.sleep(0.01)
    return 0

def killed(slot):
    os.kill(os.getpid(), signal.SIGKILL)

init_worker = crew.init_worker
def early(*arguments):  # a signal reaches the child before it is anything of its own
    os.kill(os.getpid(), signal.SIGTERM)
    init_worker(*arguments)

def started(start):
    def then(self):
        start(self)
        os.kill(os.getpid(), signal.SIGTERM)  # the parent, while its first worker starts
    return then

if sys.argv[1] == "child":
    crew.init_worker = early
if sys.argv[1] == "parent":
    Process = crew.multiprocessing.get_context("fork").Process
    Process.start = started(Process.start)
sys.exit(crew.run(2, killed if sys.argv[1] == "killed" else work, print))
"""


@pytest.mark.parametrize(("case", "code"), [("child", 130), ("parent", 130), ("killed", 1)])
def test_a_signal_while_workers_start_is_not_lost(case: str, code: int) -> None:
    done = subprocess.run([sys.executable, "-c", CREW, case], capture_output=True, text=True, timeout=25)
    assert (done.returncode, done.stderr) == (code, "")
    assert case != "killed" or "is not replaced, since 22 were killed; is there memory enough?" in done.stdout


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (16, 256, [20, 50, 100, 200]),
        (1e-4, 1, []),
        (20, 700, [20, 50, 100, 200, 500]),
        (60, 90, [60, 90]),
        (0.1, 1, [0.1, 0.2, 0.5, 1]),
    ],
)
def test_the_labels_of_a_short_log_axis_are_few(low: float, high: float, ticks: list[float]) -> None:
    assert log_ticks(low, high) == pytest.approx(ticks)


def test_a_run_of_the_best_value_is_finite() -> None:
    assert main(["sweep", *QUICK, "epochs=1", LR, "trials=1", "objective=seconds", "log.pictures=none"]) == 0
    assert math.isfinite(summaries()[0]["seconds"])
