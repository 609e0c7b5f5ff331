"""The objective of a search: real runs, by one or several seeds."""

from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

import pytest

from dltips.main import main
from dltips.runs.file_names import read_metrics, read_summary
from dltips.sweep.search.objective import Runs
from dltips.sweep.search.plan import SearchPlan
from dltips.sweep.search.search_settings import SearchSettings
from dltips.sweep.search.space import resolve
from dltips.sweep.search.storage import DatabaseGone

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
