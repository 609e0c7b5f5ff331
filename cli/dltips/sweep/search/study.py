"""A study in Optuna's database: each trial claimed by one worker, given back, or told once; none lost or doubled.

Every change of a trial's state is one transaction that locks its row first (SELECT FOR UPDATE; in SQLite the whole
file, BEGIN IMMEDIATE) and looks at who holds the trial afterwards. Each may be repeated: a worker that does not know
whether its transaction reached the database just asks again.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from optuna.storages._rdb import models as optuna_models
from optuna.study import StudyDirection
from optuna.trial import TrialState
from sqlalchemy import func, insert
from sqlalchemy.exc import IntegrityError

from dltips.errors import ConfigError
from dltips.sweep.search.worker_id import WorkerId, is_dead

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial
    from sqlalchemy.orm import Session

models: Any = optuna_models  # their columns' types are those of the table, not of a row

CONTENT, WORKER, DEATHS, ERROR = "dltips", "worker", "deaths", "error"  # keys of user attributes
IN_VAIN = "deaths_in_vain"  # [how many, epochs at the last one]
MOST_DEATHS = 10  # so many workers in a row that died of a trial without an epoch: it is likely to be what kills them


@dataclass(frozen=True)
class ClaimedTrial:
    """A trial that is ours while its row says so."""

    trial_id: int
    number: int
    token: str
    deaths: int  # how many workers died of it before


@dataclass(frozen=True)
class Requeued:
    """A trial whose worker died."""

    number: int
    worker: str
    given_up: bool


class Study:
    """One study by its name: what its workers ask of the database. Errors: sqlalchemy's, if it cannot be reached."""

    def __init__(self, storage: RDBStorage, name: str, study_id: int) -> None:
        self.storage, self.name, self.study_id = storage, name, study_id

    def content(self) -> dict[str, Any] | None:
        """What the study was made with; None if another program made it."""
        found = self.storage.get_study_user_attrs(self.study_id).get(CONTENT)
        return found if isinstance(found, dict) else None

    def set_content(self, content: Mapping[str, Any]) -> None:
        self.storage.set_study_user_attr(self.study_id, CONTENT, dict(content))

    def grow(self, count: int) -> int:
        """Have at least so many trials; how many there are now."""
        with transaction(self.storage) as session:
            models.StudyModel.find_or_raise_by_id(self.study_id, session, for_update=True)
            there = int(session.query(func.count(models.TrialModel.trial_id)).filter(self._mine()).scalar())
            _add_trials(session, self.study_id, there, count)
            return max(there, count)

    def preset(self, values: Mapping[int, Mapping[str, Any]], distributions: Mapping[str, BaseDistribution]) -> None:
        """Give waiting trials, by number, the parameters that they are to have."""
        for trial in self.trials():
            for key, value in values.get(trial.number, {}).items():
                if trial.state is TrialState.WAITING and key not in trial.params:
                    inner = distributions[key].to_internal_repr(value)
                    self.storage.set_trial_param(trial._trial_id, key, inner, distributions[key])

    def claim(self, worker: WorkerId, token: str) -> ClaimedTrial | None:
        """The first waiting trial, now ours; None if none waits. Asked again with its token, it is the same trial."""
        with transaction(self.storage) as session:
            for row in self._running(session):
                if _token(_attribute(session, row.trial_id, WORKER)) == token:
                    return ClaimedTrial(
                        row.trial_id, row.number, token, int(_attribute(session, row.trial_id, DEATHS) or 0)
                    )
            waiting = session.query(models.TrialModel).filter(self._mine())
            row = (
                waiting.filter(models.TrialModel.state == TrialState.WAITING)
                .order_by(models.TrialModel.number)
                .limit(1)
                .with_for_update(skip_locked=True)
                .one_or_none()
            )
            if row is None:
                return None
            row.state, row.datetime_start = TrialState.RUNNING, datetime.now()
            _set_attribute(session, row.trial_id, WORKER, asdict(worker) | {"token": token})
            _beat(session, row.trial_id)
            return ClaimedTrial(row.trial_id, row.number, token, int(_attribute(session, row.trial_id, DEATHS) or 0))

    def beat(self, claim: ClaimedTrial) -> bool:
        """A sign of life; False if the trial is no longer ours."""
        with transaction(self.storage) as session:
            if self._owned(session, claim) is None:
                return False
            _beat(session, claim.trial_id)
            return True

    def release(self, claim: ClaimedTrial) -> bool:
        """Give the trial back to those who wait, as it is; False if it was no longer ours."""
        with transaction(self.storage) as session:
            row = self._owned(session, claim)
            if row is None:
                return False
            row.state = TrialState.WAITING
            _set_attribute(session, claim.trial_id, WORKER, None)
            return True

    def finish(
        self, claim: ClaimedTrial, state: TrialState, values: Sequence[float] | None, attributes: Mapping[str, Any]
    ) -> bool:
        """Tell the result; False if the trial is not ours (any more). Told again, nothing changes, and it is True."""
        with transaction(self.storage) as session:
            row = self._owned(session, claim, state)
            if row is None:
                return False
            if row.state != state:
                for objective, value in enumerate(values or ()):
                    stored, kind = models.TrialValueModel.value_to_stored_repr(value)
                    session.add(
                        models.TrialValueModel(
                            trial_id=row.trial_id, objective=objective, value=stored, value_type=kind
                        )
                    )
                for key, attribute in attributes.items():
                    _set_attribute(session, row.trial_id, key, attribute)
                row.state, row.datetime_complete = state, datetime.now()
            return True

    def requeue_dead(self, me: WorkerId, grace: float | None) -> list[Requeued]:
        """Give back the trials whose workers died, each once, however many ask at the same time.

        On this machine a death is seen at once; elsewhere a worker is dead that gave no sign of life for `grace`
        seconds by the database's clock, or never if grace is None.
        """
        with transaction(self.storage) as session:
            suspects = [row.trial_id for row in self._running(session) if self._dead(session, row.trial_id, me, grace)]
        found, model = [], models.TrialIntermediateValueModel
        for trial_id in suspects:
            with transaction(self.storage) as session:
                row = models.TrialModel.find_or_raise_by_id(trial_id, session, for_update=True)
                # looked at again, now that nobody else can change it: someone may have been faster
                worker = self._dead(session, trial_id, me, grace) if row.state == TrialState.RUNNING else None
                if worker is None:
                    continue
                deaths = int(_attribute(session, trial_id, DEATHS) or 0) + 1
                _set_attribute(session, trial_id, DEATHS, deaths)
                _set_attribute(session, trial_id, WORKER, None)
                epochs = int(session.query(model.trial_id).filter(model.trial_id == trial_id).count())
                count, before = _attribute(session, trial_id, IN_VAIN) or (0, epochs)
                count = count + 1 if epochs == before else 1
                _set_attribute(session, trial_id, IN_VAIN, [count, epochs])
                given_up = count >= MOST_DEATHS
                row.state = TrialState.FAIL if given_up else TrialState.WAITING
                if given_up:
                    row.datetime_complete = datetime.now()
                    _set_attribute(session, trial_id, ERROR, f"{count} workers died of it")
                found.append(Requeued(row.number, f"{worker['host']}, process {worker['pid']}", given_up))
        return found

    def counts(self) -> dict[TrialState, int]:
        with transaction(self.storage) as session:
            query = session.query(models.TrialModel.state, func.count(models.TrialModel.trial_id))
            rows = query.filter(self._mine()).group_by(models.TrialModel.state).all()
            return dict.fromkeys(TrialState, 0) | {row[0]: int(row[1]) for row in rows}

    def trials(self) -> list[FrozenTrial]:
        """All trials, by number."""
        return sorted(self.storage.get_all_trials(self.study_id, deepcopy=False), key=lambda trial: trial.number)

    def _mine(self) -> Any:
        return models.TrialModel.study_id == self.study_id

    def _running(self, session: Session) -> list[Any]:
        query = session.query(models.TrialModel).filter(self._mine())
        return list(query.filter(models.TrialModel.state == TrialState.RUNNING).order_by(models.TrialModel.number))

    def _dead(self, session: Session, trial_id: int, me: WorkerId, grace: float | None) -> dict[str, Any] | None:
        """The dead worker that holds a trial."""
        worker = _attribute(session, trial_id, WORKER)
        if not isinstance(worker, dict):
            return None  # of another program
        beat = models.TrialHeartbeatModel.where_trial_id(trial_id, session)
        age = (_now(session) - beat.heartbeat).total_seconds() if beat is not None else 0.0
        return worker if is_dead(worker, me, age, grace) else None

    def _owned(self, session: Session, claim: ClaimedTrial, *told: TrialState) -> Any:
        """The trial's row, locked, if it runs by our claim, or was told by it."""
        row = models.TrialModel.find_or_raise_by_id(claim.trial_id, session, for_update=True)
        ours = _token(_attribute(session, claim.trial_id, WORKER)) == claim.token
        return row if ours and row.state in (TrialState.RUNNING, *told) else None


def join(storage: RDBStorage, name: str, directions: Sequence[str], count: int, content: Mapping[str, Any]) -> bool:
    """Make a study with so many waiting trials, whole or not at all; False if there is one of that name already."""
    try:
        with transaction(storage) as session:
            if models.StudyModel.find_by_name(name, session) is not None:
                return False
            sides = [
                models.StudyDirectionModel(objective=index, direction=StudyDirection[direction.upper()])
                for index, direction in enumerate(directions)
            ]
            study = models.StudyModel(study_name=name, directions=sides)
            session.add(study)
            session.flush()  # whoever comes second waits here until we have committed
            text = json.dumps(dict(content))
            session.add(models.StudyUserAttributeModel(study_id=study.study_id, key=CONTENT, value_json=text))
            _add_trials(session, study.study_id, 0, count)
    except IntegrityError:
        return False
    return True


def open_study(storage: RDBStorage, name: str) -> Study:
    """Errors: ConfigError if there is none, or none any more."""
    try:
        return Study(storage, name, storage.get_study_id_from_name(name))
    except KeyError as error:
        raise ConfigError(f"storage: the database has no study {name} any more; give the command again") from error


@contextlib.contextmanager
def transaction(storage: RDBStorage) -> Iterator[Session]:
    """All or nothing."""
    session = storage.scoped_session()
    try:
        yield session
        session.commit()
    except BaseException:
        session.rollback()
        raise
    finally:
        session.close()


def _add_trials(session: Session, study_id: int, there: int, count: int) -> None:
    rows = [{"number": number, "study_id": study_id, "state": TrialState.WAITING} for number in range(there, count)]
    if rows:
        session.execute(insert(models.TrialModel), rows)


def _attribute(session: Session, trial_id: int, key: str) -> Any:
    """A user attribute as it is in the database now, whatever this session has read before."""
    model = models.TrialUserAttributeModel
    text = session.query(model.value_json).filter(model.trial_id == trial_id, model.key == key).scalar()
    return json.loads(text) if text is not None else None


def _set_attribute(session: Session, trial_id: int, key: str, value: Any) -> None:
    """Of a trial whose row is locked."""
    model = models.TrialUserAttributeModel
    row = session.query(model).filter(model.trial_id == trial_id, model.key == key).one_or_none()
    if row is None:
        session.add(model(trial_id=trial_id, key=key, value_json=json.dumps(value)))
    else:
        row.value_json = json.dumps(value)


def _token(worker: Any) -> Any:
    return worker.get("token") if isinstance(worker, dict) else None


def _beat(session: Session, trial_id: int) -> None:
    row = models.TrialHeartbeatModel.where_trial_id(trial_id, session)
    if row is None:
        session.add(models.TrialHeartbeatModel(trial_id=trial_id, heartbeat=_now(session)))
    else:
        row.heartbeat = _now(session)


def _now(session: Session) -> datetime:
    """By the database's clock, in UTC, as naive as Optuna's columns."""
    now = session.execute(func.now()).scalar()
    assert isinstance(now, datetime)
    return now.replace(tzinfo=None)
