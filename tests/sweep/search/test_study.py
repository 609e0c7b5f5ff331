"""A study's trials: each claimed by one worker, given back or told once, whoever dies."""

import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState

from dltips.errors import ConfigError
from dltips.sweep.search import claims
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


def test_a_study_is_made_once_with_all_its_trials(database: Database) -> None:
    study = begun(database, 5)
    assert not join(database, "study", ["maximize"], 7, {})
    assert [trial.number for trial in study.trials()] == [0, 1, 2, 3, 4]
    assert study.counts()[TrialState.WAITING] == 5
    assert study.content() == {"kind": "test"}


def test_it_grows_to_what_is_asked_for_and_never_shrinks(database: Database) -> None:
    study = begun(database, 3)
    assert [study.grow(count) for count in (5, 5, 2)] == [5, 5, 5]
    assert [trial.number for trial in study.trials()] == [0, 1, 2, 3, 4]


def test_a_claim_is_one_workers_and_may_be_repeated(database: Database) -> None:
    study, me = begun(database, 2), this_worker()
    first, again, second = study.claim(me, "a"), study.claim(me, "a"), study.claim(me, "b")
    assert first is not None and second is not None
    assert first == again and (first.number, second.number) == (0, 1)
    assert study.claim(me, "c") is None


def test_a_trial_that_is_given_back_keeps_its_number(database: Database) -> None:
    study, me = begun(database, 2), this_worker()
    claim = study.claim(me, "a")
    assert claim is not None and study.release(claim) and not study.release(claim)
    again = study.claim(me, "b")
    assert again is not None and again.number == 0
    assert not study.finish(claim, TrialState.COMPLETE, [1.0], {}), "the old claim is worth nothing any more"
    assert not study.beat(claim) and study.beat(again)


def test_a_result_is_told_once(database: Database) -> None:
    study = begun(database, 1)
    claim = study.claim(this_worker(), "a")
    assert claim is not None
    assert study.finish(claim, TrialState.COMPLETE, [0.5], {"scores": [0.4, 0.6]})
    assert study.finish(claim, TrialState.COMPLETE, [0.7], {}), "told again, since the answer may have been lost"
    (trial,) = study.trials()
    assert (trial.values, trial.user_attrs["scores"]) == ([0.5], [0.4, 0.6])
    assert not study.release(claim) and study.counts()[TrialState.COMPLETE] == 1


def test_a_dead_workers_trial_waits_again_and_only_once(database: Database) -> None:
    study, me = begun(database, 1), this_worker()
    dead = replace(me, pid=2**22 + 1)  # beyond the greatest number that Linux gives
    claim = study.claim(dead, "a")
    assert claim is not None
    assert [each.number for each in study.requeue_dead(me, None)] == [0]
    assert study.requeue_dead(me, None) == []
    again = study.claim(me, "b")
    assert again is not None and (again.number, again.deaths) == (0, 1)
    assert not study.finish(claim, TrialState.COMPLETE, [1.0], {})


def test_a_trial_that_kills_its_workers_is_given_up(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "MOST_DEATHS", 2)
    study, me = begun(database, 1), this_worker()
    for given_up in (False, True):
        assert study.claim(replace(me, pid=2**22 + 1), "a") is not None
        assert [dead.given_up for dead in study.requeue_dead(me, None)] == [given_up]
    (trial,) = study.trials()
    assert (trial.state, trial.user_attrs["error"]) == (TrialState.FAIL, "2 workers died of it")


def test_deaths_in_between_which_there_were_epochs_do_not_add_up(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "MOST_DEATHS", 2)
    study, me = begun(database, 1), this_worker()
    for epoch, given_up in ((1, False), (2, False), (None, True)):
        claim = study.claim(replace(me, pid=2**22 + 1), "a")
        assert claim is not None
        if epoch is not None:
            database.optuna.set_trial_intermediate_value(claim.trial_id, epoch, 0.5)
        assert [dead.given_up for dead in study.requeue_dead(me, None)] == [given_up]
    assert study.trials()[0].user_attrs["deaths"] == 3


def test_a_trial_may_be_given_its_parameters(database: Database) -> None:
    study = begun(database, 2)
    study.preset({1: {"x": 0.25, "option": "b"}, 7: {"x": 0.5}})
    assert stress.work(database) == "done"
    assert study.trials()[1].params == {"x": 0.25, "option": "b"}


def test_a_study_that_is_gone_is_one_line(database: Database) -> None:
    with pytest.raises(ConfigError, match=r"^storage: the database has no study study any more; give the command"):
        open_study(database, "study")


@pytest.mark.slow
def test_two_workers_on_sqlite_killed_at_random_lose_and_double_nothing(database: Database, tmp_path: Path) -> None:
    study = begun(database, 120)
    stress.killed_at_random("", tmp_path, workers=2, kills=5)
    stress.assert_whole(study, 120)
    assert sum(trial.user_attrs.get("deaths", 0) for trial in study.trials()) >= 1


class Killed(BaseException):
    """A worker that is gone: it does nothing more."""


def killed_at(patch: pytest.MonkeyPatch, owner: type, name: str, after: bool) -> None:
    """Have the process end before or after its next call of a method."""
    method = getattr(owner, name)

    def dies(*arguments: Any, **options: Any) -> None:
        if after:
            method(*arguments, **options)
        raise Killed

    patch.setattr(owner, name, dies)


AT = pytest.mark.parametrize("after", [False, True])
BETWEEN_THE_WRITES = [
    *((RDBStorage, name) for name in ("create_new_trial", "set_trial_user_attr", "set_trial_state_values")),
    *((claims.Claims, name) for name in ("take", "tell", "close")),
]


@AT
@pytest.mark.parametrize(("owner", "name"), BETWEEN_THE_WRITES)
def test_a_worker_that_dies_between_two_writes_loses_and_doubles_nothing(
    database: Database, owner: type, name: str, after: bool
) -> None:
    study, dead = begun(database, 3), replace(this_worker(), pid=2**22 + 1)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        killed_at(patch, owner, name, after)
        claim = study.claim(dead, "a")
        assert claim is not None
        for parameter, value in {"x": 0.25, "option": 0}.items():
            database.optuna.set_trial_param(claim.trial_id, parameter, value, stress.SPACE.distributions()[parameter])
        study.finish(claim, TrialState.COMPLETE, [0.25], {"scores": [0.2, 0.3]})
    assert study.counts()[TrialState.COMPLETE] == int((owner, name, after) == (claims.Claims, "close", True))
    assert stress.work(database) == "done"
    stress.assert_whole(study, 3)
    told = name in ("set_trial_user_attr", "set_trial_state_values", "close") or (name, after) == ("tell", True)
    first = study.trials()[0]
    assert first.user_attrs.get("scores") == ([0.2, 0.3] if told else None), "a result that was told is not run again"
    assert first.user_attrs["worker"]["pid"] == (dead.pid if told else this_worker().pid)
    assert first.user_attrs.get("deaths", 0) == int(not told and (name, after) != ("take", False))


@AT
@pytest.mark.parametrize(
    ("owner", "name"), [(claims.Claims, "begin"), (RDBStorage, "create_new_study"), (claims.Claims, "set_study_id")]
)
def test_a_study_whose_maker_died_is_made_whole_by_the_next(
    database: Database, owner: type, name: str, after: bool
) -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        killed_at(patch, owner, name, after)
        begun(database, 3)
    kept = (owner, name, after) != (claims.Claims, "begin", False)
    assert join(database, "study", ["minimize", "minimize"], 5, {"kind": "other"}) is not kept
    study = open_study(database, "study")
    assert study.content() == {"kind": "test" if kept else "other"}
    assert len(study.trials()) == (3 if kept else 5)
    assert len(database.optuna.get_study_directions(study.study_id)) == (1 if kept else 2)


@AT
@pytest.mark.parametrize("name", ["set_trial_user_attr", "set_trial_state_values"])
def test_a_trial_is_given_up_though_the_worker_that_says_so_dies(
    database: Database, monkeypatch: pytest.MonkeyPatch, name: str, after: bool
) -> None:
    monkeypatch.setattr(claims, "MOST_DEATHS", 1)
    study, me = begun(database, 1), this_worker()
    assert study.claim(replace(me, pid=2**22 + 1), "a") is not None
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        killed_at(patch, RDBStorage, name, after)
        study.requeue_dead(me, None)
    assert study.counts()[TrialState.RUNNING] == 1, "a worker that looks now stays, to copy it"
    assert study.requeue_dead(me, None) == []
    (trial,) = study.trials()
    assert (trial.state, trial.user_attrs["error"]) == (TrialState.FAIL, "1 workers died of it")
    assert study.counts()[TrialState.FAIL] == 1


def test_a_result_that_is_told_wins_over_a_worker_that_comes_later(database: Database) -> None:
    """The first died with its result in our table alone; it is not run again."""
    study, me = begun(database, 1), this_worker()
    claim = study.claim(replace(me, pid=2**22 + 1), "a")
    assert claim is not None
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        killed_at(patch, RDBStorage, "set_trial_state_values", after=False)
        study.finish(claim, TrialState.COMPLETE, [0.5], {})
    assert study.claim(me, "b") is None and study.requeue_dead(me, None) == []
    assert study.trials()[0].values == [0.5] and study.counts()[TrialState.COMPLETE] == 1


def test_a_worker_that_wakes_up_after_its_trial_was_told_gives_way(database: Database) -> None:
    """Another one took it over, and told it, before it reported its first epoch."""
    study = begun(database, 2)
    seen: list[int] = []

    def suspended(asked: TrialHandle) -> TrialResult:
        seen.append(asked.number)
        if len(seen) == 1:
            study.requeue_dead(replace(this_worker(), machine="another"), -1.0)
            again = study.claim(this_worker(), "other")
            assert again is not None and study.finish(again, TrialState.COMPLETE, [2.0], {})
            assert not asked.report(1, 0.5) and asked.stop()
            return TrialResult(None)
        return TrialResult("complete", [1.0])

    assert stress.work(database, objective=suspended) == "done"
    assert seen == [0, 1] and [trial.values for trial in study.trials()] == [[2.0], [1.0]]


def test_a_sampler_looks_at_every_result_that_was_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two searches of one seed whose scores are opposite: they draw alike only until two trials are told."""
    monkeypatch.setattr("dltips.sweep.search.samplers.STARTUP", 2)
    found = []
    for sign in (1.0, -1.0):
        (tmp_path / str(sign)).mkdir()
        with opened(url_of(None, tmp_path / str(sign)), 30) as database:
            study = begun(database, 5)
            objective = lambda asked, sign=sign: TrialResult("complete", [sign * float(asked.values["x"])])  # noqa: E731
            assert stress.work(database, "tpe", objective) == "done"
            found.append([trial.params["x"] for trial in study.trials()])
    assert found[0][:2] == found[1][:2] and found[0][2:] != found[1][2:]


def test_a_study_that_optuna_lost_is_begun_again(database: Database) -> None:
    study = begun(database, 3)
    assert stress.work(database) == "done"
    database.optuna.delete_study(study.study_id)
    again = begun(database, 2)
    assert again.counts()[TrialState.WAITING] == 2 and again.content() == {"kind": "test"}
    assert stress.work(database) == "done"
    stress.assert_whole(again, 2)


def test_a_study_of_another_program_is_told_from_one_of_an_older_version(database: Database) -> None:
    database.optuna.create_new_study([StudyDirection.MAXIMIZE], "theirs")
    assert not join(database, "theirs", ["maximize"], 3, {})
    assert open_study(database, "theirs").content() is None
    study_id = database.optuna.create_new_study([StudyDirection.MAXIMIZE], "old")
    database.optuna.set_study_user_attr(study_id, "dltips", {"kind": "search"})
    assert not join(database, "old", ["maximize"], 3, {})
    with pytest.raises(ConfigError, match=r"^name: the study old was made by an older dltips.* name=ANOTHER$"):
        open_study(database, "old").content()
