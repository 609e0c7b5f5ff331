"""Opens a search's database, SQLite in the sweep's folder or PostgreSQL, and waits for it when it is away."""

from __future__ import annotations

import contextlib
import re
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from dltips.config.redaction import redact
from dltips.errors import ConfigError
from dltips.files import locked

if TYPE_CHECKING:
    from optuna.storages import RDBStorage
    from sqlalchemy import URL, Engine, Pool

Answer = TypeVar("Answer")

DATABASE_FILE = "study.db"
ADVISORY_LOCK = 0x646C7469  # PostgreSQL's advisory lock: one worker at a time makes tables, studies and trials
SQLITE_WAIT = 10  # seconds that SQLite itself waits for another transaction, which takes milliseconds


class DatabaseGone(Exception):
    """The database was unreachable for the whole waiting time, or its disk is full: one line.

    Exit code 1; nothing is lost.
    """


def url_of(storage: str | None, folder: Path) -> URL:
    """Returns the database's URL for SQLAlchemy. Raises ConfigError."""
    from sqlalchemy import URL, make_url
    from sqlalchemy.exc import ArgumentError

    if storage is None:
        return URL.create("sqlite", database=str(folder.absolute() / DATABASE_FILE))
    remedy = "it takes postgresql://USER@HOST/DATABASE, or nothing: a file in the sweep's folder"
    try:
        url = make_url(storage)
    except (ArgumentError, ValueError) as error:
        raise ConfigError(f"storage: is not an address of a database; {remedy}") from error
    if url.drivername.split("+")[0] not in ("postgresql", "postgres"):
        raise ConfigError(f"storage: {url.drivername} is not a database for a search; {remedy}")
    if not url.database:
        raise ConfigError(f"storage: {url.render_as_string()} names no database; {remedy}")
    return url.set(drivername="postgresql+psycopg")


def without_password(storage: str | None) -> str | None:
    """Returns the address without its password."""
    return None if storage is None else redact(re.sub(r"(?<=://)([^/\s:@]*):[^@]*(?=@)", r"\1", storage))


@dataclass(frozen=True)
class Database:
    """An open database: Optuna's storage, and an engine for our own tables beside Optuna's."""

    url: URL
    engine: Engine
    optuna: RDBStorage
    pool: Pool  # of Optuna's connections

    @contextlib.contextmanager
    def one_at_a_time(self) -> Iterator[None]:
        """Locks out other workers that make tables, studies or trials. The lock ends with its process."""
        with _locked(self.url, self.engine):
            yield

    def close(self) -> None:
        self.optuna.remove_session()
        self.pool.dispose()
        self.engine.dispose()


def connect(url: URL, patience: float) -> Database:
    """Opens the database and makes missing tables. Raises ConfigError or DatabaseGone, in one line."""
    import optuna
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return with_retry(lambda: _open(url), patience, None)
    except (SQLAlchemyError, StorageInternalError, RuntimeError, LookupError, ValueError) as error:
        raise unusable(url, error) from error
    except ImportError as error:
        raise ConfigError("storage: PostgreSQL needs psycopg; pip install 'dltips[postgresql]'") from error


def _open(url: URL) -> Database:
    from optuna.storages import RDBStorage
    from sqlalchemy import create_engine, event

    from dltips.sweep.search import claims

    sqlite = url.drivername == "sqlite"
    options: dict[str, Any] = {"timeout": SQLITE_WAIT}
    if not sqlite:
        options = {"connect_timeout": 10, "options": "-c timezone=utc", "application_name": "dltips sweep"}
        options |= {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
    engine = create_engine(url, connect_args=options, pool_pre_ping=not sqlite)
    if sqlite:
        # pysqlite begins a transaction at its first write: two workers would read that a trial waits, and both take it
        event.listen(engine, "connect", _no_transactions_of_its_own)
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    # Optuna's connections come from our pool: RDBStorage has no public way to close them
    pool = create_engine(url, connect_args=options, pool_pre_ping=not sqlite).pool
    try:
        with _locked(url, engine):
            storage = RDBStorage(url.render_as_string(hide_password=False), {"pool": pool})
            claims.METADATA.create_all(engine)
        engine.dispose()  # one connection was for the lock: a server allows a hundred, for all workers
    except BaseException:
        pool.dispose()
        engine.dispose()
        raise
    return Database(url, engine, storage, pool)


@contextlib.contextmanager
def opened(url: URL, patience: float) -> Iterator[Database]:
    """Yields the database and closes its connections at the end. Raises ConfigError."""
    database = connect(url, patience)
    try:
        yield database
    finally:
        database.close()


def _no_transactions_of_its_own(connection: Any, record: Any) -> None:
    connection.isolation_level = None


@contextlib.contextmanager
def _locked(url: URL, engine: Engine) -> Iterator[None]:
    """Locks a file beside SQLite's, or holds one of PostgreSQL's advisory locks."""
    from sqlalchemy import func, select

    if url.drivername == "sqlite":
        assert url.database is not None
        with locked(Path(url.database).with_name(f".{DATABASE_FILE}.lock"), wait=-1):
            yield
        return
    with engine.begin() as connection:
        connection.execute(select(func.pg_advisory_xact_lock(ADVISORY_LOCK)))
        yield


@contextlib.contextmanager
def in_one_line(url: URL) -> Iterator[None]:
    """Turns the database errors that waiting does not fix into one line. Raises ConfigError, DatabaseGone."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, StorageInternalError) as error:
        raise unusable(url, error) from error


def unusable(url: URL, error: BaseException) -> ConfigError | DatabaseGone:
    if _is_full(error):
        return DatabaseGone(
            f"storage: {name_of(url)} cannot be written ({reason(error)}); make room, then run the same command again"
        )
    return ConfigError(f"storage: {name_of(url)} cannot be used ({reason(error)}); {_remedy(url, error)}")


def _is_full(error: BaseException) -> bool:
    text = reason(error).casefold()
    return any(words in text for words in ("disk is full", "disk i/o error", "no space left"))


def name_of(url: URL) -> str:
    return str(url.database) if url.drivername == "sqlite" else url.set(drivername="postgresql").render_as_string()


def reason(error: BaseException) -> str:
    """Returns the database's own message, in one line, without SQLAlchemy's additions and without secrets."""
    origin: BaseException = error
    while (inner := getattr(origin, "orig", None) or origin.__cause__) is not None and inner is not origin:
        origin = inner
    lines = [line.strip() for line in str(origin).splitlines() if line.strip()]
    said = [line.removeprefix("- ") for line in lines if not line.startswith(("Multiple", "Is the server"))]
    text = next((line for line in said if "failed:" in line or "FATAL" in line), said[0] if said else "")
    text = re.sub(r"^connection failed: ", "", text)
    return redact(
        re.sub(r"connection to server at \"[^\"]*\"(, port \d+| \([^)]*\), port \d+)? failed: ", "", text)
    ).replace("FATAL:  ", "")


def _remedy(url: URL, error: BaseException) -> str:
    text = reason(error).casefold()
    if url.drivername == "sqlite":
        if "locked" in text:
            return "another program holds it: end that, and run the same command again"
        return "move it away, or name another sweep with name=NAME"
    if "password" in text:
        return "give it in PGPASSWORD, or as ${oc.env:NAME} in the address"
    if "does not exist" in text:
        return "make it with createdb, or name another"
    return "start it, or fix the address"


def is_passing(error: BaseException) -> bool:
    """Returns whether waiting may help after this error: the database went away, or is locked."""
    from sqlalchemy.exc import DBAPIError, InterfaceError, InternalError, OperationalError, PendingRollbackError
    from sqlalchemy.exc import TimeoutError as NoConnection

    seen: BaseException | None = error
    while seen is not None:
        # a session with a broken connection asks for a rollback, which its owner does: the next one is new
        if isinstance(seen, NoConnection | InterfaceError | PendingRollbackError):
            return True
        if isinstance(seen, DBAPIError):
            text = str(seen.orig).casefold()
            refused = ("password authentication", "does not exist", "no password supplied", "not permitted", "pg_hba")
            if any(words in text for words in refused) or "unable to open" in text or "readonly" in text:
                return False
            if _is_full(seen):  # a full disk does not fix itself: report it at once
                return False
            return isinstance(seen, OperationalError | InternalError) or seen.connection_invalidated
        seen = seen.__cause__ or seen.__context__
    return False


def with_retry(
    ask: Callable[[], Answer],
    patience: float,
    say: Callable[[str], None] | None,
    sleep: Callable[[float], None] = time.sleep,
) -> Answer:
    """Calls again while the database is away, ever more slowly. Raises the last error after `patience` seconds.

    With `say`, one line reports the wait, and the last error becomes a DatabaseGone.
    """
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    begun, pause, told = time.monotonic(), 0.1, False
    while True:
        try:
            answer = ask()
        except (SQLAlchemyError, StorageInternalError) as error:
            if not is_passing(error):
                raise
            waited = time.monotonic() - begun
            if waited + pause > patience:
                if say is None:
                    raise
                raise DatabaseGone(
                    f"storage: the database is gone ({reason(error)}), and was not back after {waited:.0f} s; what is"
                    " done is kept: run the same command again when it is there"
                ) from error
            if say is not None and not told and waited > 1:
                say(f"storage: the database is away ({reason(error)}); waiting for it up to {patience:.0f} s")
                told = True
            sleep(pause)
            pause = min(2 * pause, 5.0)
        else:
            if told and say is not None:
                say("storage: the database is back")
            return answer
