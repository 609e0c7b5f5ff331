"""Records which worker holds which trial of a study, in tables of our own beside Optuna's, in the same database.

A claim waits, runs (held by one worker, known by a token), is told (its result is in its row), and is closed
(its result is in Optuna's tables too). Every change is one transaction whose UPDATE names the expected status and
token: it changes one row, or none if another worker was faster. Study says how Optuna's tables follow.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    Column,
    DateTime,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    delete,
    func,
    insert,
    null,
    select,
    update,
)

from dltips.sweep.search.worker_id import WorkerId, is_dead

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, Engine, Update

METADATA = MetaData()
STUDIES = Table(
    "dltips_studies",
    METADATA,
    Column("name", String(512), primary_key=True),
    Column("study_id", Integer),  # Optuna's; NULL until Optuna has made the study
    Column("directions", Text, nullable=False),  # of the objectives
    Column("content", Text, nullable=False),
)
CLAIMS = Table(
    "dltips_claims",
    METADATA,
    Column("study", String(512), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("status", String(8), nullable=False),
    Column("token", String(64)),  # of the worker that holds the trial, or reported its result
    Column("worker", Text),
    Column("heartbeat", DateTime),  # by the database's clock, in UTC
    Column("deaths", Integer, nullable=False),
    Column("deaths_in_vain", Integer, nullable=False),  # consecutive ones, without a new epoch
    Column("epochs", Integer),  # at the last death
    Column("params", Text),  # parameters that the trial must have, whatever the sampler would draw
    Column("outcome", String(8)),  # COMPLETE, PRUNED or FAIL, once it is reported
    Column("result", Text),  # values and attributes
    Index("dltips_claims_by_status", "study", "status", "number"),
)
WAITING, RUNNING, TOLD, CLOSED = "waiting", "running", "told", "closed"
ERROR = "error"  # an attribute's key
MOST_DEATHS = 10  # consecutive workers that died in a trial without completing an epoch: the trial probably kills them


class Claims:
    """The claims of one study, by its name. Raises SQLAlchemyError if the database cannot be reached."""

    def __init__(self, engine: Engine, study: str) -> None:
        self.engine, self.study = engine, study

    def row(self) -> Any:
        """Returns the study's own row; None if it has none."""
        with self.engine.begin() as connection:
            return connection.execute(select(STUDIES).where(STUDIES.c.name == self.study)).one_or_none()

    def begin(self, directions: Sequence[str], content: Mapping[str, Any], count: int) -> None:
        """Writes the study's row and its waiting claims in one transaction, replacing existing ones."""
        with self.engine.begin() as connection:
            connection.execute(delete(CLAIMS).where(CLAIMS.c.study == self.study))
            connection.execute(delete(STUDIES).where(STUDIES.c.name == self.study))
            values = {"directions": json.dumps(list(directions)), "content": json.dumps(dict(content))}
            connection.execute(insert(STUDIES).values(name=self.study, **values))
            self._add(connection, 0, count)

    def set_study_id(self, study_id: int) -> None:
        with self.engine.begin() as connection:
            connection.execute(update(STUDIES).where(STUDIES.c.name == self.study).values(study_id=study_id))

    def grow(self, count: int) -> int:
        """Adds claims up to this number; returns how many there are now."""
        with self.engine.begin() as connection:
            # the study's row is the lock for concurrent calls
            connection.execute(select(STUDIES).where(STUDIES.c.name == self.study).with_for_update())
            query = select(func.count()).select_from(CLAIMS).where(CLAIMS.c.study == self.study)
            there = int(connection.execute(query).scalar_one())
            self._add(connection, there, count)
            return max(there, count)

    def preset(self, values: Mapping[int, Mapping[str, Any]]) -> None:
        """Gives waiting trials, by number, their preset parameters."""
        with self.engine.begin() as connection:
            for number, params in values.items():
                connection.execute(self._update(number, WAITING).values(params=json.dumps(dict(params))))

    def take(self, worker: WorkerId, token: str) -> Any:
        """Returns the row of the first waiting claim, as it was before, now the worker's; None if none waits.

        Called again with the same token, it returns the same row.
        """
        with self.engine.begin() as connection:
            held = select(CLAIMS).where(*self._where(RUNNING), CLAIMS.c.token == token)
            if (row := connection.execute(held).one_or_none()) is not None:
                return row
            waiting = select(CLAIMS).where(*self._where(WAITING)).order_by(CLAIMS.c.number).limit(1)
            row = connection.execute(waiting.with_for_update(skip_locked=True)).one_or_none()
            if row is not None:
                holder = {"token": token, "worker": json.dumps(asdict(worker)), "heartbeat": _now(connection)}
                connection.execute(self._update(row.number, WAITING).values(status=RUNNING, **holder))
            return row

    def beat(self, number: int, token: str) -> bool:
        with self._held(number, token) as (connection, held):
            return connection.execute(held.values(heartbeat=_now(connection))).rowcount == 1

    def release(self, number: int, token: str) -> bool:
        with self._held(number, token) as (connection, held):
            return connection.execute(held.values(status=WAITING, token=null(), worker=null())).rowcount == 1

    def tell(
        self, number: int, token: str, outcome: str, values: Sequence[float], attributes: Mapping[str, Any]
    ) -> Any:
        """Writes the result, once. Returns the row as it is now; None if the token no longer holds it."""
        with self._held(number, token) as (connection, held):
            connection.execute(held.values(status=TOLD, outcome=outcome, result=_result(values, attributes)))
            told = select(CLAIMS).where(*self._where(), CLAIMS.c.number == number, CLAIMS.c.token == token)
            return connection.execute(told.where(CLAIMS.c.outcome == outcome)).one_or_none()

    def close(self, number: int) -> None:
        with self.engine.begin() as connection:
            connection.execute(self._update(number, TOLD).values(status=CLOSED))

    def of_dead_workers(self, status: str, me: WorkerId, grace: float | None) -> list[Any]:
        """Returns the rows whose workers died: recognized at once on this machine, after `grace` seconds elsewhere."""
        with self.engine.begin() as connection:
            now = _now(connection)
            rows = connection.execute(select(CLAIMS).where(*self._where(status)).order_by(CLAIMS.c.number)).all()
        return [
            row for row in rows if is_dead(json.loads(row.worker), me, (now - row.heartbeat).total_seconds(), grace)
        ]

    def requeue(self, row: Any, epochs: int) -> bool | None:
        """Takes a dead worker's trial back. Returns whether it is given up; None if another worker was faster."""
        in_vain = row.deaths_in_vain + 1 if row.epochs in (None, epochs) else 1
        given_up = bool(in_vain >= MOST_DEATHS)
        values = {"token": None, "deaths": row.deaths + 1, "deaths_in_vain": in_vain, "epochs": epochs}
        if given_up:
            values |= {"status": TOLD, "outcome": "FAIL"}
            values["result"] = _result((), {ERROR: f"{in_vain} workers died of it"})
        else:
            values |= {"status": WAITING, "worker": None}
        with self._held(row.number, row.token) as (connection, held):
            # a worker that was only silent may have sent a heartbeat since the row was read
            taken = connection.execute(held.where(CLAIMS.c.heartbeat == row.heartbeat).values(values)).rowcount
        return given_up if taken == 1 else None

    def counts(self) -> list[tuple[str, str | None, int]]:
        """Returns the number of claims by status and outcome."""
        query = select(CLAIMS.c.status, CLAIMS.c.outcome, func.count()).where(*self._where())
        with self.engine.begin() as connection:
            rows = connection.execute(query.group_by(CLAIMS.c.status, CLAIMS.c.outcome)).all()
        return [(row[0], row[1], int(row[2])) for row in rows]

    def statuses(self) -> dict[int, str]:
        """Returns the status by number."""
        query = select(CLAIMS.c.number, CLAIMS.c.status).where(*self._where()).order_by(CLAIMS.c.number)
        with self.engine.begin() as connection:
            return {int(row[0]): row[1] for row in connection.execute(query)}

    def _add(self, connection: Connection, there: int, count: int) -> None:
        fresh = {"study": self.study, "status": WAITING, "deaths": 0, "deaths_in_vain": 0}
        if rows := [{**fresh, "number": number} for number in range(there, count)]:
            connection.execute(insert(CLAIMS), rows)

    def _where(self, status: str | None = None) -> list[ColumnElement[bool]]:
        mine = [CLAIMS.c.study == self.study]
        return mine if status is None else [*mine, CLAIMS.c.status == status]

    def _update(self, number: int, status: str) -> Update:
        return update(CLAIMS).where(*self._where(status), CLAIMS.c.number == number)

    @contextmanager
    def _held(self, number: int, token: str) -> Iterator[tuple[Connection, Update]]:
        """Opens a transaction, and yields the UPDATE of a row that this token holds."""
        with self.engine.begin() as connection:
            yield connection, self._update(number, RUNNING).where(CLAIMS.c.token == token)


def _result(values: Sequence[float], attributes: Mapping[str, Any]) -> str:
    return json.dumps({"values": list(values), "attributes": dict(attributes)})


def _now(connection: Connection) -> datetime:
    """Returns the database's time, in UTC, without a time zone, as in the column."""
    now = connection.execute(select(func.now())).scalar_one()
    assert isinstance(now, datetime)
    return now.replace(tzinfo=None)
