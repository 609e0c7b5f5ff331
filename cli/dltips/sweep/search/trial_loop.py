"""A worker's loop: claims a trial, samples its parameters, runs it, reports the result, until none is left."""

from __future__ import annotations

import contextlib
import copy
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

import optuna
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.trial import TrialState
from sqlalchemy.exc import SQLAlchemyError

from dltips.sweep.search.samplers import make_sampler
from dltips.sweep.search.storage import DatabaseGone, with_retry
from dltips.sweep.search.study import ERROR, ClaimedTrial, Study
from dltips.sweep.search.worker_id import WorkerId, this_worker

if TYPE_CHECKING:
    from optuna.pruners import BasePruner

    from dltips.sweep.search.space import Space
    from dltips.sweep.search.storage import Database

Answer = TypeVar("Answer")
Ending = Literal["done", "timeout", "interrupted"]

HEARTBEAT_SECONDS = 10.0  # between two heartbeats
POLL_SECONDS = (0.2, 5.0)  # first and longest pause between two looks for a trial, while others run the last ones


@dataclass(frozen=True)
class TrialResult:
    """A trial's result; `state` None: it was stopped and can be resumed."""

    state: Literal["complete", "pruned", "failed"] | None
    values: Sequence[float] = ()
    error: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)


class TrialHandle(Protocol):
    """A trial as the objective uses it."""

    number: int
    values: Mapping[str, Any]

    def report(self, epoch: int, score: float) -> bool:
        """Reports an epoch's score; returns whether the pruner would end the trial."""

    def stop(self) -> bool:
        """Returns whether to stop: the time is over, or this worker no longer holds the trial."""


Objective = Callable[[TrialHandle], TrialResult]
STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}


@dataclass
class Loop:
    """One worker's loop; waits up to `patience` seconds for a lost database."""

    database: Database
    study: Study
    space: Space
    sampler: str
    pruner: BasePruner
    seed: int
    say: Callable[[str], None]
    patience: float = 120.0
    grace: float = 60.0
    deadline: float | None = None  # of time.monotonic()
    after: Callable[[ClaimedTrial, Mapping[str, Any], TrialResult], None] = lambda claim, values, told: None
    me: WorkerId = field(default_factory=this_worker)
    away: float = float("-inf")  # time.monotonic() when the database was last unreachable
    stopped: Callable[[], bool] = lambda: False  # whether a stop was requested too late to affect the last trial
    lost: bool = False
    opened: optuna.Study | None = None  # with the ended trials, which are read once

    def run(self, objective: Objective) -> Ending:
        """Runs until all trials are reported, the time is over, or a stop comes. Raises DatabaseGone, ConfigError."""
        pause = POLL_SECONDS[0]
        while not self.is_over():
            self.requeue()
            token = uuid.uuid4().hex
            claim = self.ask(lambda token=token: self.study.claim(self.me, token))  # type: ignore[misc]
            if claim is None:
                counts = self.ask(self.study.counts)
                # one may wait again: its worker gave it back after our last query
                if not counts[TrialState.RUNNING] + counts[TrialState.WAITING]:
                    return "done"
                # if the last workers die, their trials are ours
                time.sleep(pause)
                pause = min(2 * pause, POLL_SECONDS[1])
                continue
            pause = POLL_SECONDS[0]
            if self.stopped():
                self.ask(lambda claim=claim: self.study.release(claim))  # type: ignore[misc]
                return "interrupted"
            if self.one(claim, objective) is None and not self.lost and not self.is_over():
                return "interrupted"
        return "timeout"

    def one(self, claim: ClaimedTrial, objective: Objective) -> str | None:
        """Runs one trial, which is reported or given back; returns its outcome, None if it was stopped."""
        self.lost = False
        try:
            with self._pulse(claim):
                trial = self.ask(lambda: self._sampled(claim))
                told = objective(self.ask(lambda: _Trial(self, claim, trial)))
                if told.state is None:
                    if not self.lost:
                        self.ask(lambda: self.study.release(claim))
                    return None
                attributes = dict(told.attributes) | ({ERROR: told.error} if told.error else {})
                state, values = STATES[told.state], list(told.values)
                if self.ask(lambda: self.study.finish(claim, state, values, attributes)):
                    self.after(claim, trial.params, told)
                    return told.state
        except UpdateFinishedTrialError:
            pass  # another worker has reported its result
        except BaseException as error:
            if not isinstance(error, DatabaseGone):
                with contextlib.suppress(SQLAlchemyError, StorageInternalError):
                    self.study.release(claim)
            raise
        self.lost = True
        self.say(f"trial {claim.number}: another worker has taken it over, since we gave no sign of life")
        return None

    def ask(self, question: Callable[[], Answer]) -> Answer:
        """Queries the database. Raises DatabaseGone after `patience` seconds."""

        def asked() -> Answer:
            try:
                return question()
            except (SQLAlchemyError, StorageInternalError):
                self.away = time.monotonic()
                raise

        return with_retry(asked, self.patience, self.say)

    def requeue(self) -> None:
        """Gives back the trials of dead workers. While the database was away, no worker could send a heartbeat."""
        grace = self.grace if time.monotonic() - self.away > self.grace else None
        for dead in self.ask(lambda: self.study.requeue_dead(self.me, grace)):
            how = "is given up: its workers keep dying" if dead.given_up else "waits again"
            self.say(f"trial {dead.number}: its worker died ({dead.worker}); it {how}")

    def is_over(self) -> bool:
        return self.deadline is not None and time.monotonic() >= self.deadline

    def _sampled(self, claim: ClaimedTrial) -> optuna.Trial:
        """Returns the trial with every parameter set; preset ones keep their values."""
        sampler = make_sampler(self.sampler, self.space.distributions(), self.seed, claim.number)
        if self.opened is None:
            self.opened = optuna.load_study(
                study_name=self.study.name, storage=self.database.optuna, sampler=sampler, pruner=self.pruner
            )
        # a copy shares the ended trials and looks for new ones: per study object, samplers remember the trials that
        # they saw first, until Study.ask or tell
        study = copy.copy(self.opened)
        study.sampler = sampler
        study.get_trials(deepcopy=False)  # Optuna must have read a trial before it is written to
        self._preset(claim)
        trial = optuna.Trial(study, claim.trial_id)
        for dimension in self.space.dimensions:
            dimension.suggest(trial)
        return trial

    def _preset(self, claim: ClaimedTrial) -> None:
        """Writes the preset parameters of the trial, except those that it has."""
        storage = self.database.optuna
        known, distributions = storage.get_trial(claim.trial_id).params, self.space.distributions()
        for key, value in claim.preset.items():
            if key not in known:
                inner = distributions[key].to_internal_repr(value)
                storage.set_trial_param(claim.trial_id, key, inner, distributions[key])

    @contextlib.contextmanager
    def _pulse(self, claim: ClaimedTrial) -> Iterator[None]:
        """Sends heartbeats from a thread during the block."""
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(HEARTBEAT_SECONDS):
                try:
                    if not self.study.beat(claim):
                        self.lost = True
                        break
                except (SQLAlchemyError, StorageInternalError):
                    self.away = time.monotonic()

        thread = threading.Thread(target=beat, name="signs of life", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join(timeout=HEARTBEAT_SECONDS)


class _Trial:
    def __init__(self, loop: Loop, claim: ClaimedTrial, trial: optuna.Trial) -> None:
        self.loop, self.trial, self.number = loop, trial, claim.number
        self.values: Mapping[str, Any] = trial.params
        self.reported = set(loop.database.optuna.get_trial(claim.trial_id).intermediate_values)

    def report(self, epoch: int, score: float) -> bool:
        # epochs of the dead worker that had the trial before; or epochs that are no longer ours to report
        if epoch in self.reported or self.loop.lost:
            return False
        self.reported.add(epoch)
        try:
            self.loop.ask(lambda: self.trial.report(score, epoch))
            return self.loop.ask(self.trial.should_prune)
        except UpdateFinishedTrialError:  # another worker has reported its result
            self.loop.lost = True
            return False

    def stop(self) -> bool:
        return self.loop.lost or self.loop.is_over()
