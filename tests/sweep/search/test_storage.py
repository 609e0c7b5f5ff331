"""The database of a search: damaged, locked, full, gone."""

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from dltips.main import main
from dltips.sweep.search.storage import (
    Database,
    DatabaseGone,
    is_passing,
    opened,
    unusable,
    url_of,
    with_retry,
    without_password,
)
from dltips.sweep.search.study import join

Refused = Callable[..., str]


QUICK = ("+recipe=quickstart", "epochs=1", "log.tensorboard=false", "log.pictures=none", "log.layers=false")


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refused:
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> str:
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        capsys.readouterr()
        code = main(["sweep", *arguments])
        out, err = capsys.readouterr()
        assert (code, out) == (2, ""), err
        assert err.startswith("dltips: ") and err.count("\n") == 1 and "Traceback" not in err, err
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
        return err.removeprefix("dltips: ").rstrip("\n")

    return call


def begun(*more: str) -> Path:
    assert main(["sweep", *QUICK, "init=he,xavier", "trials=1", *more]) == 0
    (file,) = Path("outputs").glob("*/sweep.json")
    return file.parent


def test_a_damaged_database(refused: Refused) -> None:
    place = begun()
    (place / "study.db").write_bytes(b"this is not a database, " * 100)
    message = refused(f"resume={place}", "patience=0.1")
    assert message == (
        f"storage: {(place / 'study.db').absolute()} cannot be used (file is not a database); move it away, or name"
        " another sweep with name=NAME"
    )


def test_a_locked_database(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dltips.sweep.search.storage.SQLITE_WAIT", 0.05)
    place = begun()
    other = sqlite3.connect(place / "study.db")
    other.execute("BEGIN EXCLUSIVE")
    message = refused(f"resume={place}", "patience=0.1")
    other.close()
    assert message == (
        f"storage: {(place / 'study.db').absolute()} cannot be used (database is locked); another program holds it:"
        " end that, and run the same command again"
    )


def test_a_database_that_is_damaged_in_part(refused: Refused) -> None:
    place = begun()
    content = bytearray((place / "study.db").read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    (place / "study.db").write_bytes(content)
    assert refused(f"resume={place}", "patience=0.1") == (
        f"storage: {(place / 'study.db').absolute()} cannot be used (database disk image is malformed); move it away,"
        " or name another sweep with name=NAME"
    )


def test_a_full_disk_is_said_at_once() -> None:
    """It is not a database that went away, and no mistake: exit code 1."""
    error = OperationalError("INSERT", None, sqlite3.OperationalError("database or disk is full"))
    assert not is_passing(error)
    found = unusable(url_of(None, Path("here")), error)
    assert isinstance(found, DatabaseGone) and str(found) == (
        f"storage: {Path('here/study.db').absolute()} cannot be written (database or disk is full); make room, then"
        " run the same command again"
    )


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with opened(url_of(None, tmp_path), 30) as found:
        yield found


def test_in_sqlite_a_transaction_holds_the_file_from_its_beginning(database: Database, tmp_path: Path) -> None:
    """Else two workers would read that a trial waits, and both take it."""
    assert join(database, "study", ["maximize"], 1, {"kind": "test"})
    other = sqlite3.connect(tmp_path / "study.db", timeout=0)
    with database.engine.begin() as connection:
        connection.execute(text("SELECT 1"))
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
    other.close()


def test_waiting_grows_longer_and_ends() -> None:
    pauses: list[float] = []

    def ask() -> None:
        raise OperationalError("SELECT 1", None, Exception("server closed the connection unexpectedly"))

    with pytest.raises(DatabaseGone):
        with_retry(ask, 0.5, lambda text: None, pauses.append)  # which does not sleep
    assert pauses[:6] == [0.1, 0.2, 0.4] or pauses == sorted(pauses)


def test_an_address_is_shown_without_its_password() -> None:
    assert without_password("postgresql://me:hunter2@host/db") == "postgresql://me@host/db"
    assert without_password("postgresql://me@host/db") == "postgresql://me@host/db" and without_password(None) is None
