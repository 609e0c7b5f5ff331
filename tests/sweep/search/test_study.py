"""A study's trials: each claimed by one worker, given back or told once, whoever dies."""

import importlib.util
import sqlite3
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from sqlalchemy import text

from dltips.errors import ConfigError
from dltips.sweep.search import study as studies
from dltips.sweep.search.storage import connect, url_of
from dltips.sweep.search.study import Study, join, open_study
from dltips.sweep.search.trial_loop import TrialHandle, TrialResult
from dltips.sweep.search.worker_id import is_dead, this_worker


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
def storage(tmp_path: Path) -> Iterator[RDBStorage]:
    opened = connect(url_of(None, tmp_path), 30)
    yield opened
    opened.remove_session()
    opened.engine.dispose()


def begun(storage: RDBStorage, count: int) -> Study:
    assert join(storage, "study", ["maximize"], count, {"kind": "test"})
    return open_study(storage, "study")


def test_a_study_is_made_once_with_all_its_trials(storage: RDBStorage) -> None:
    study = begun(storage, 5)
    assert not join(storage, "study", ["maximize"], 7, {})
    assert [trial.number for trial in study.trials()] == [0, 1, 2, 3, 4]
    assert study.counts()[TrialState.WAITING] == 5
    assert study.content() == {"kind": "test"}


def test_it_grows_to_what_is_asked_for_and_never_shrinks(storage: RDBStorage) -> None:
    study = begun(storage, 3)
    assert [study.grow(count) for count in (5, 5, 2)] == [5, 5, 5]
    assert [trial.number for trial in study.trials()] == [0, 1, 2, 3, 4]


def test_in_sqlite_a_transaction_holds_the_file_from_its_beginning(storage: RDBStorage, tmp_path: Path) -> None:
    """Else two workers would read that a trial waits, and both take it."""
    begun(storage, 1)
    other = sqlite3.connect(tmp_path / "study.db", timeout=0)
    with studies.transaction(storage) as session:
        session.execute(text("SELECT 1"))
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
    other.close()


def test_a_claim_is_one_workers_and_may_be_repeated(storage: RDBStorage) -> None:
    study, me = begun(storage, 2), this_worker()
    first, again, second = study.claim(me, "a"), study.claim(me, "a"), study.claim(me, "b")
    assert first is not None and second is not None
    assert first == again and (first.number, second.number) == (0, 1)
    assert study.claim(me, "c") is None


def test_a_trial_that_is_given_back_keeps_its_number(storage: RDBStorage) -> None:
    study, me = begun(storage, 2), this_worker()
    claim = study.claim(me, "a")
    assert claim is not None and study.release(claim) and not study.release(claim)
    again = study.claim(me, "b")
    assert again is not None and again.number == 0
    assert not study.finish(claim, TrialState.COMPLETE, [1.0], {}), "the old claim is worth nothing any more"
    assert not study.beat(claim) and study.beat(again)


def test_a_result_is_told_once(storage: RDBStorage) -> None:
    study = begun(storage, 1)
    claim = study.claim(this_worker(), "a")
    assert claim is not None
    assert study.finish(claim, TrialState.COMPLETE, [0.5], {"scores": [0.4, 0.6]})
    assert study.finish(claim, TrialState.COMPLETE, [0.7], {}), "told again, since the answer may have been lost"
    (trial,) = study.trials()
    assert (trial.values, trial.user_attrs["scores"]) == ([0.5], [0.4, 0.6])
    assert not study.release(claim) and study.counts()[TrialState.COMPLETE] == 1


def test_a_dead_workers_trial_waits_again_and_only_once(storage: RDBStorage) -> None:
    study, me = begun(storage, 1), this_worker()
    dead = replace(me, pid=2**22 + 1)  # beyond the greatest number that Linux gives
    claim = study.claim(dead, "a")
    assert claim is not None
    assert [each.number for each in study.requeue_dead(me, None)] == [0]
    assert study.requeue_dead(me, None) == []
    again = study.claim(me, "b")
    assert again is not None and (again.number, again.deaths) == (0, 1)
    assert not study.finish(claim, TrialState.COMPLETE, [1.0], {})


def test_a_trial_that_kills_its_workers_is_given_up(storage: RDBStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studies, "MOST_DEATHS", 2)
    study, me = begun(storage, 1), this_worker()
    for given_up in (False, True):
        assert study.claim(replace(me, pid=2**22 + 1), "a") is not None
        assert [dead.given_up for dead in study.requeue_dead(me, None)] == [given_up]
    (trial,) = study.trials()
    assert (trial.state, trial.user_attrs["error"]) == (TrialState.FAIL, "2 workers died of it")


def test_deaths_in_between_which_there_were_epochs_do_not_add_up(
    storage: RDBStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(studies, "MOST_DEATHS", 2)
    study, me = begun(storage, 1), this_worker()
    for epoch, given_up in ((1, False), (2, False), (None, True)):
        claim = study.claim(replace(me, pid=2**22 + 1), "a")
        assert claim is not None
        if epoch is not None:
            storage.set_trial_intermediate_value(claim.trial_id, epoch, 0.5)
        assert [dead.given_up for dead in study.requeue_dead(me, None)] == [given_up]
    assert study.trials()[0].user_attrs["deaths"] == 3


def test_a_trial_may_be_given_its_parameters(storage: RDBStorage) -> None:
    study = begun(storage, 2)
    study.preset({1: {"x": 0.25, "option": "b"}, 7: {"x": 0.5}}, stress.SPACE.distributions())
    assert stress.work(storage) == "done"
    assert study.trials()[1].params == {"x": 0.25, "option": "b"}


def test_a_study_that_is_gone_is_one_line(storage: RDBStorage) -> None:
    with pytest.raises(ConfigError, match=r"^storage: the database has no study study any more; give the command"):
        open_study(storage, "study")


def test_a_worker_stays_while_a_trial_waits(storage: RDBStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another one may give its trial back between our two questions."""
    study = begun(storage, 1)
    claim, answers = Study.claim, iter([None])

    def blind(self: Study, *arguments: Any) -> Any:
        return next(answers, "ask") and claim(self, *arguments)

    monkeypatch.setattr(Study, "claim", blind)
    monkeypatch.setattr("dltips.sweep.search.trial_loop.POLL", (0.0, 0.0))
    assert stress.work(storage) == "done"
    assert study.counts()[TrialState.COMPLETE] == 1


def test_a_worker_that_lost_its_trial_reports_no_epoch(storage: RDBStorage) -> None:
    study = begun(storage, 1)
    seen = []

    def lost(asked: Any) -> TrialResult:
        seen.append(asked.number)
        asked.loop.lost = len(seen) == 1
        asked.report(1, 0.5)
        assert len(study.trials()[0].intermediate_values) == len(seen) - 1
        if asked.loop.lost:
            study.requeue_dead(replace(this_worker(), machine="another"), -1.0)
        return TrialResult("complete", [1.0])

    assert stress.work(storage, objective=lost) == "done"


def test_on_another_machine_a_worker_dies_of_silence(storage: RDBStorage) -> None:
    study, me = begun(storage, 1), this_worker()
    assert study.claim(replace(me, machine="another"), "a") is not None
    assert study.requeue_dead(me, 60.0) == [], "it has just given a sign of life"
    assert study.requeue_dead(me, None) == [], "nobody could give one"
    assert [each.number for each in study.requeue_dead(me, -1.0)] == [0]


def test_a_process_is_told_from_another_of_the_same_number() -> None:
    me = this_worker()
    assert not is_dead(asdict(me), me, 1e9, 1.0), "on this machine the table of processes decides"
    assert is_dead(asdict(replace(me, started="1")), me, 0.0, None)
    assert is_dead(asdict(replace(me, machine="")), replace(me, machine=""), 2.0, 1.0), "no table: silence decides"


def test_one_workers_search_can_be_repeated(tmp_path: Path) -> None:
    found = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        storage = connect(url_of(None, tmp_path / name), 30)
        study = begun(storage, 14)
        assert stress.work(storage, "tpe") == "done"
        found.append([trial.params for trial in study.trials()])
        storage.engine.dispose()
    assert found[0] == found[1]


def test_an_objective_that_raises_gives_its_trial_back(storage: RDBStorage) -> None:
    def raises(asked: TrialHandle) -> TrialResult:
        raise KeyboardInterrupt

    study = begun(storage, 1)
    with pytest.raises(KeyboardInterrupt):
        stress.work(storage, objective=raises)
    assert study.counts()[TrialState.WAITING] == 1


def test_a_trial_goes_on_with_the_parameters_it_had(storage: RDBStorage) -> None:
    seen: list[tuple[int, float]] = []

    def stopped_once(asked: TrialHandle) -> TrialResult:
        seen.append((asked.number, float(asked.values["x"])))
        asked.report(1, 0.5)
        return TrialResult("complete", [0.0]) if len(seen) > 1 else TrialResult(None)

    begun(storage, 1)
    assert stress.work(storage, objective=stopped_once) == "interrupted"
    assert stress.work(storage, objective=stopped_once) == "done"
    assert seen[0] == seen[1]


def test_a_worker_that_lost_its_trial_tells_nothing(storage: RDBStorage) -> None:
    study = begun(storage, 1)
    stolen = []

    def suspended(asked: TrialHandle) -> TrialResult:
        if not stolen:  # while we slept, we were thought dead
            stolen.append(study.requeue_dead(replace(this_worker(), machine="another"), -1.0))
            return TrialResult("complete", [1.0])
        return TrialResult("complete", [2.0])

    assert stress.work(storage, objective=suspended) == "done"
    (trial,) = study.trials()
    assert trial.values == [2.0] and trial.user_attrs["deaths"] == 1


def test_a_failure_is_recorded_and_the_others_go_on(storage: RDBStorage) -> None:
    study = begun(storage, 3)
    stress.work(
        storage,
        objective=lambda asked: (
            TrialResult("failed", (), "out of memory") if asked.number == 1 else TrialResult("complete", [1.0])
        ),
    )
    states = [trial.state for trial in study.trials()]
    assert states == [TrialState.COMPLETE, TrialState.FAIL, TrialState.COMPLETE]
    assert study.trials()[1].user_attrs["error"] == "out of memory"


@pytest.mark.slow
def test_two_workers_on_sqlite_killed_at_random_lose_and_double_nothing(tmp_path: Path) -> None:
    storage = connect(url_of(None, tmp_path), 60)
    study = begun(storage, 120)
    storage.engine.dispose()
    stress.killed_at_random("", tmp_path, workers=2, kills=5)
    stress.assert_whole(study, 120)
    assert sum(trial.user_attrs.get("deaths", 0) for trial in study.trials()) >= 1
