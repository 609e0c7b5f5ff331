"""Stores a study: each trial is claimed by one worker, given back, or reported once, wherever a worker dies.

The claims are the authority: tables of our own (`claims`), changed by compare and set, one transaction each. Optuna's
tables follow by its public API. Every write there may be repeated with the same effect, so that a worker that dies
between the two leaves nothing that the next one does not repair:

- A study: first our row and its waiting claims, then Optuna's study, then Optuna's id in our row. A row without an id
  is an unfinished study: the next command that joins it makes the rest.
- A claim: first our row is taken, then Optuna's trial of that number is made if it is missing, RUNNING. If the worker
  dies in between, the next one to take the claim does the same.
- Given back: our row alone. Optuna's trial stays RUNNING while it waits, until it has a result; `trials` and `counts`
  learn from our rows which trials wait.
- A result: first into our row, which decides whose result counts; then attributes, and then values and state, into
  Optuna's trial; then our row is closed. Until then it counts as running, so that no worker ends. A worker that
  requeues dead workers' trials copies their reported results, which no longer change; Optuna refuses a second copy.
- A dead worker: our row alone. If the trial is given up, that is its result, copied as above.

A worker that does not know whether a transaction reached the database repeats it with its token.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from optuna.exceptions import UpdateFinishedTrialError
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from dltips.errors import ConfigError
from dltips.sweep.search import claims
from dltips.sweep.search.claims import Claims
from dltips.sweep.search.worker_id import WorkerId

if TYPE_CHECKING:
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial

    from dltips.sweep.search.storage import Database

WORKER, DEATHS, ERROR = "worker", "deaths", claims.ERROR  # keys of attributes
ATTRIBUTES = "dltips"  # the user attribute of Optuna's trials that holds all of them: one transaction, not five
OLDER = "dltips"  # the study's user attribute in which versions before these tables stored its content


@dataclass(frozen=True)
class ClaimedTrial:
    """A trial that this worker holds while its row says so."""

    trial_id: int
    number: int
    token: str
    deaths: int  # the number of workers that died in it before
    preset: Mapping[str, Any] = field(default_factory=dict)  # parameters that it must have


@dataclass(frozen=True)
class Requeued:
    """A trial whose worker died."""

    number: int
    worker: str
    given_up: bool


class Study:
    """One study by its name: the operations of its workers on the database.

    Raises SQLAlchemyError or Optuna's StorageInternalError if it cannot be reached.
    """

    def __init__(self, database: Database, name: str, study_id: int) -> None:
        self.database, self.name, self.study_id = database, name, study_id
        self.claims = Claims(database.engine, name)

    @property
    def storage(self) -> RDBStorage:
        return self.database.optuna

    def content(self) -> dict[str, Any] | None:
        """Returns the content that the study was made with; None if another program made it.

        Raises ConfigError if a version of dltips made it that kept claims in Optuna's own tables.
        """
        row = self.claims.row()
        if row is not None and row.study_id == self.study_id:
            return dict(json.loads(row.content))
        if OLDER in self.storage.get_study_user_attrs(self.study_id):
            raise ConfigError(
                f"name: the study {self.name} was made by an older dltips, whose claims this one does not read; go on"
                " with that version, or search anew with name=ANOTHER"
            )
        return None

    def grow(self, count: int) -> int:
        """Adds trials up to this number; returns how many there are now."""
        return self.claims.grow(count)

    def preset(self, values: Mapping[int, Mapping[str, Any]]) -> None:
        """Gives waiting trials, by number, their preset parameters."""
        self.claims.preset(values)

    def claim(self, worker: WorkerId, token: str) -> ClaimedTrial | None:
        """Claims the first waiting trial; None if none waits. The same token gets the same trial."""
        row = self.claims.take(worker, token)
        if row is None:
            return None
        preset = json.loads(row.params or "{}")
        return ClaimedTrial(self._trial_id(row.number), row.number, token, row.deaths, preset)

    def beat(self, claim: ClaimedTrial) -> bool:
        """Sends a heartbeat. Returns False if this worker no longer holds the trial."""
        return self.claims.beat(claim.number, claim.token)

    def release(self, claim: ClaimedTrial) -> bool:
        """Gives the trial back as it is. Returns False if this worker no longer held it."""
        return self.claims.release(claim.number, claim.token)

    def finish(
        self, claim: ClaimedTrial, state: TrialState, values: Sequence[float] | None, attributes: Mapping[str, Any]
    ) -> bool:
        """Reports the result, once. Returns False if this worker no longer holds the trial; True again if repeated."""
        row = self.claims.tell(claim.number, claim.token, state.name, values or (), attributes)
        if row is None:
            return False
        self._copy(row)
        return True

    def requeue_dead(self, me: WorkerId, grace: float | None) -> list[Requeued]:
        """Gives back the trials of dead workers, each once, however many workers ask at the same time.

        On this machine a death is recognized at once; elsewhere a worker counts as dead after `grace` seconds without a
        heartbeat by the database's clock, or never if grace is None. Results that dead workers reported are copied.
        """
        found = []
        for row in self.claims.of_dead_workers(claims.RUNNING, me, grace):
            given_up = self.claims.requeue(row, self._epochs(row.number))
            if given_up is not None:
                worker = json.loads(row.worker)
                found.append(Requeued(row.number, f"{worker['host']}, process {worker['pid']}", given_up))
        for row in self.claims.of_dead_workers(claims.TOLD, me, grace):
            self._copy(row)
        return found

    def counts(self) -> dict[TrialState, int]:
        found = dict.fromkeys(TrialState, 0)
        for status, outcome, count in self.claims.counts():
            waits = TrialState.WAITING if status == claims.WAITING else TrialState.RUNNING
            found[TrialState[str(outcome)] if status == claims.CLOSED else waits] += count
        return found

    def trials(self) -> list[FrozenTrial]:
        """Returns all trials, by number, with their reported values as user attributes."""
        statuses = self.claims.statuses()
        made = {trial.number: trial for trial in self.storage.get_all_trials(self.study_id, deepcopy=False)}
        found = []
        for number, status in statuses.items():
            trial = made.get(number) or create_trial(state=TrialState.WAITING)
            trial.number = number
            trial.user_attrs = dict(trial.user_attrs.get(ATTRIBUTES, {}))
            if status == claims.WAITING and not trial.state.is_finished():
                trial.state = TrialState.WAITING
            found.append(trial)
        return found

    def _copy(self, row: Any) -> None:
        """Copies a reported result into Optuna's tables."""
        result = json.loads(row.result)
        attributes = {**result["attributes"], WORKER: json.loads(row.worker)}
        if row.deaths:
            attributes[DEATHS] = row.deaths
        trial_id = self._trial_id(row.number)
        # refused if the trial is finished: another worker has copied all of it, the state last
        with contextlib.suppress(UpdateFinishedTrialError):
            self.storage.set_trial_user_attr(trial_id, ATTRIBUTES, attributes)
            self.storage.set_trial_state_values(trial_id, TrialState[row.outcome], result["values"] or None)
        self.claims.close(row.number)

    def _trial_id(self, number: int) -> int:
        """Returns Optuna's id of a trial; makes it if it is missing, with those before it."""
        with contextlib.suppress(KeyError):
            return self.storage.get_trial_id_from_study_id_trial_number(self.study_id, number)
        with self.database.one_at_a_time():
            while True:
                with contextlib.suppress(KeyError):
                    return self.storage.get_trial_id_from_study_id_trial_number(self.study_id, number)
                self.storage.create_new_trial(self.study_id)

    def _epochs(self, number: int) -> int:
        """Returns the number of epochs that a trial has reported."""
        with contextlib.suppress(KeyError):
            trial_id = self.storage.get_trial_id_from_study_id_trial_number(self.study_id, number)
            return len(self.storage.get_trial(trial_id).intermediate_values)
        return 0


def join(database: Database, name: str, directions: Sequence[str], count: int, content: Mapping[str, Any]) -> bool:
    """Makes a study with so many waiting trials, completely or not at all. Returns False if the name is taken."""
    ours = Claims(database.engine, name)
    with database.one_at_a_time():
        row, theirs = ours.row(), _study_id(database.optuna, name)
        made = theirs is None and (row is None or row.study_id is not None)  # not None: Optuna's study is gone
        if made:
            ours.begin(directions, content, count)
            row = ours.row()
        if row is not None and row.study_id is None:
            if theirs is None:
                sides = [StudyDirection[side.upper()] for side in json.loads(row.directions)]
                theirs = database.optuna.create_new_study(sides, name)
            ours.set_study_id(theirs)
    return made


def open_study(database: Database, name: str) -> Study:
    """Opens a study. Raises ConfigError if it does not exist (any more)."""
    study_id = _study_id(database.optuna, name)
    if study_id is None:
        raise ConfigError(f"storage: the database has no study {name} any more; give the command again")
    return Study(database, name, study_id)


def _study_id(storage: RDBStorage, name: str) -> int | None:
    """Returns Optuna's id of a study; None if there is none of that name."""
    try:
        return storage.get_study_id_from_name(name)
    except KeyError:
        return None
