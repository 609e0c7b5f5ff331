"""The same study on PostgreSQL: many workers, some of them killed, a server that goes away and comes back."""

import importlib.util
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from optuna.trial import TrialState

from dltips.errors import ConfigError
from dltips.main import main
from dltips.sweep.search.samplers import make_pruner
from dltips.sweep.search.storage import DatabaseGone, connect, opened, url_of
from dltips.sweep.search.study import join, open_study
from dltips.sweep.search.trial_loop import Loop, TrialHandle, TrialResult
from dltips.sweep.search.worker_id import this_worker


def beside(name: str) -> ModuleType:
    """A module of this folder: pytest's importlib mode makes no package of it."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
        assert spec is not None and spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


postgres, stress = beside("postgres"), beside("stress")
pytestmark = pytest.mark.skipif(postgres.missing() is not None, reason=postgres.missing() or "")


@pytest.fixture(scope="module")
def cluster() -> Iterator[object]:
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    with postgres.running() as running:
        yield running


def test_a_study_lives_there_as_in_a_file(cluster, tmp_path: Path) -> None:
    database = connect(url_of(cluster.url(), tmp_path), 30)
    assert join(database, "plain", ["maximize", "minimize"], 3, {"kind": "test"})
    assert not join(database, "plain", ["maximize"], 3, {})
    study = open_study(database, "plain")
    claim = study.claim(this_worker(), "a")
    assert claim is not None and study.beat(claim)
    assert study.finish(claim, TrialState.COMPLETE, [0.5, 7.0], {"scores": [0.5]})
    assert study.trials()[0].values == [0.5, 7.0] and study.grow(5) == 5
    database.close()


@pytest.mark.slow
def test_four_workers_killed_at_random_lose_and_double_nothing(cluster, tmp_path: Path) -> None:
    with opened(url_of(cluster.url(), tmp_path), 60) as database:
        assert join(database, "study", ["maximize"], 200, {})
        stress.killed_at_random(cluster.url(), tmp_path, workers=4, kills=10)
        study = open_study(database, "study")
        stress.assert_whole(study, 200)
        assert sum(trial.user_attrs.get("deaths", 0) for trial in study.trials()) >= 5


def test_a_server_that_comes_back_is_waited_for(cluster, tmp_path: Path) -> None:
    database = connect(url_of(cluster.url(), tmp_path), 30)
    assert join(database, "back", ["maximize"], 3, {})
    said: list[str] = []
    stopped = []

    def objective(asked: TrialHandle) -> TrialResult:
        if not stopped:
            stopped.append(cluster.stop())
        return TrialResult("complete", [1.0])

    def say(text: str) -> None:
        said.append(text)
        if "is away" in text:
            cluster.start()

    loop = Loop(database, open_study(database, "back"), stress.SPACE, "random", make_pruner("none", 3, 3, None), 0, say)
    assert loop.run(objective) == "done"
    assert open_study(database, "back").counts()[TrialState.COMPLETE] == 3
    assert [text.split(":")[0] for text in said] == ["storage", "storage"] and said[
        1
    ] == "storage: the database is back"
    database.close()


def test_a_server_that_stays_away_stops_the_worker_with_nothing_lost(cluster, tmp_path: Path) -> None:
    database = connect(url_of(cluster.url(), tmp_path), 30)
    assert join(database, "gone", ["maximize"], 2, {})

    def objective(asked: TrialHandle) -> TrialResult:
        cluster.stop()
        return TrialResult("complete", [1.0])

    pruner = make_pruner("none", 3, 3, None)
    loop = Loop(
        database, open_study(database, "gone"), stress.SPACE, "random", pruner, 0, lambda text: None, patience=0.5
    )
    with pytest.raises(DatabaseGone, match=r"^storage: the database is gone \(.*\), and was not back after \d s; what"):
        loop.run(objective)
    cluster.start()
    study = open_study(database, "gone")
    dead = study.requeue_dead(replace(loop.me, machine="another"), -1.0)
    assert [each.number for each in dead] == [0]
    assert study.counts()[TrialState.WAITING] == 2
    database.close()


@pytest.mark.parametrize(
    ("password", "database", "message"),
    [
        ("wrong", "postgres", 'password authentication failed for user "dltips"); give it in PGPASSWORD, or as ${oc'),
        (None, "postgres", "fe_sendauth: no password supplied); give it in PGPASSWORD, or as ${oc.env:NAME} in the"),
        ("right", "nowhere", 'database "nowhere" does not exist); make it with createdb, or name another'),
    ],
)
def test_what_a_server_refuses_is_one_line(cluster, tmp_path: Path, password, database: str, message: str) -> None:
    url = cluster.url(postgres.PASSWORD if password == "right" else password, database)
    with pytest.raises(ConfigError) as caught:
        connect(url_of(url, tmp_path), 30)
    text = str(caught.value)
    assert message in text and "\n" not in text
    assert postgres.PASSWORD not in text and "wrong" not in text


def test_the_password_of_a_command_reaches_no_file(
    cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["sweep", "+recipe=quickstart", "epochs=1", "init=he,xavier", "trials=2", "log.tensorboard=false"]
    assert main([*command, f"storage={cluster.url()}", "name=quiet"]) == 0
    out, err = capsys.readouterr()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.name == "sweep.json" for path in files) and not any(path.name == "study.db" for path in files)
    assert not [path for path in files if postgres.PASSWORD.encode() in path.read_bytes()]
    assert postgres.PASSWORD not in out + err
    monkeypatch.setenv("PGPASSWORD", postgres.PASSWORD)
    assert main([*command, f"storage={cluster.url(None)}", "name=quiet"]) == 0
    assert "2 of 2 trials are done" in capsys.readouterr().err


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    begun = time.monotonic()
    with pytest.raises(
        ConfigError, match=r"cannot be used \(.*[Cc]onnection refused.*\); start it, or fix the address$"
    ):
        connect(url_of("postgresql://me:secret@127.0.0.1:1/db", tmp_path), 0.2)
    assert time.monotonic() - begun < 60
