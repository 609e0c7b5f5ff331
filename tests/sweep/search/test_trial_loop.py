"""A worker's loop: claims, failures, lost trials, preset parameters."""

import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from optuna.trial import TrialState

from dltips.sweep.search.storage import Database, opened, url_of
from dltips.sweep.search.study import Study, join, open_study
from dltips.sweep.search.trial_loop import TrialHandle, TrialResult
from dltips.sweep.search.worker_id import this_worker


def beside(name: str) -> ModuleType:
    """A module of this folder: pytest's importlib mode makes no package of it."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
        assert spec is not None and spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


stress = beside("stress")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with opened(url_of(None, tmp_path), 30) as found:
        yield found


def begun(database: Database, count: int) -> Study:
    assert join(database, "study", ["maximize"], count, {"kind": "test"})
    return open_study(database, "study")


def test_a_worker_stays_while_a_trial_waits(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another one may give its trial back between our two questions."""
    study = begun(database, 1)
    claim, answers = Study.claim, iter([None])

    def blind(self: Study, *arguments: Any) -> Any:
        return next(answers, "ask") and claim(self, *arguments)

    monkeypatch.setattr(Study, "claim", blind)
    monkeypatch.setattr("dltips.sweep.search.trial_loop.POLL_SECONDS", (0.0, 0.0))
    assert stress.work(database) == "done"
    assert study.counts()[TrialState.COMPLETE] == 1


def test_a_worker_that_lost_its_trial_reports_no_epoch(database: Database) -> None:
    study = begun(database, 1)
    seen = []

    def lost(asked: Any) -> TrialResult:
        seen.append(asked.number)
        asked.loop.lost = len(seen) == 1
        asked.report(1, 0.5)
        assert len(study.trials()[0].intermediate_values) == len(seen) - 1
        if asked.loop.lost:
            study.requeue_dead(replace(this_worker(), machine="another"), -1.0)
        return TrialResult("complete", [1.0])

    assert stress.work(database, objective=lost) == "done"


def test_one_workers_search_can_be_repeated(tmp_path: Path) -> None:
    found = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        with opened(url_of(None, tmp_path / name), 30) as database:
            study = begun(database, 14)
            assert stress.work(database, "tpe") == "done"
            found.append([trial.params for trial in study.trials()])
    assert found[0] == found[1]


def test_an_objective_that_raises_gives_its_trial_back(database: Database) -> None:
    def raises(asked: TrialHandle) -> TrialResult:
        raise KeyboardInterrupt

    study = begun(database, 1)
    with pytest.raises(KeyboardInterrupt):
        stress.work(database, objective=raises)
    assert study.counts()[TrialState.WAITING] == 1


def test_a_trial_goes_on_with_the_parameters_it_had(database: Database) -> None:
    seen: list[tuple[int, float]] = []

    def stopped_once(asked: TrialHandle) -> TrialResult:
        seen.append((asked.number, float(asked.values["x"])))
        asked.report(1, 0.5)
        return TrialResult("complete", [0.0]) if len(seen) > 1 else TrialResult(None)

    begun(database, 1)
    assert stress.work(database, objective=stopped_once) == "interrupted"
    assert stress.work(database, objective=stopped_once) == "done"
    assert seen[0] == seen[1]


def test_a_worker_that_lost_its_trial_tells_nothing(database: Database) -> None:
    study = begun(database, 1)
    stolen = []

    def suspended(asked: TrialHandle) -> TrialResult:
        if not stolen:  # while we slept, we were thought dead
            stolen.append(study.requeue_dead(replace(this_worker(), machine="another"), -1.0))
            return TrialResult("complete", [1.0])
        return TrialResult("complete", [2.0])

    assert stress.work(database, objective=suspended) == "done"
    (trial,) = study.trials()
    assert trial.values == [2.0] and trial.user_attrs["deaths"] == 1


def test_a_failure_is_recorded_and_the_others_go_on(database: Database) -> None:
    study = begun(database, 3)
    stress.work(
        database,
        objective=lambda asked: (
            TrialResult("failed", (), "out of memory") if asked.number == 1 else TrialResult("complete", [1.0])
        ),
    )
    states = [trial.state for trial in study.trials()]
    assert states == [TrialState.COMPLETE, TrialState.FAIL, TrialState.COMPLETE]
    assert study.trials()[1].user_attrs["error"] == "out of memory"
