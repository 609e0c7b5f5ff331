"""The loop of a worker: claim a trial, ask the sampler, run it, tell its result, until none is left."""

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

BEAT = 10.0  # seconds between two signs of life
POLL = (0.2, 5.0)  # seconds between two looks for a trial while others run the last ones: at first, and at the most


@dataclass(frozen=True)
class TrialResult:
    """How a trial went; `state` None: it was stopped and waits to be gone on with."""

    state: Literal["complete", "pruned", "failed"] | None
    values: Sequence[float] = ()
    error: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)


class TrialHandle(Protocol):
    """A trial as an objective sees it."""

    number: int
    values: Mapping[str, Any]

    def report(self, epoch: int, score: float) -> bool:
        """Tell an epoch's score; whether the pruner would end the trial."""

    def stop(self) -> bool:
        """Whether to stop where we are: the time is over, or the trial is no longer ours."""


Objective = Callable[[TrialHandle], TrialResult]
STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}


@dataclass
class Loop:
    """What one worker needs; a database that goes away is waited for up to `patience` seconds."""

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
    away: float = float("-inf")  # when the database could not be reached last, by time.monotonic()
    stopped: Callable[[], bool] = lambda: False  # whether someone asked to stop when a trial was all but over
    lost: bool = False
    opened: optuna.Study | None = None  # with the ended trials, which are read once

    def run(self, objective: Objective) -> Ending:
        """Until all trials are told, the time is over, or the person stops us. Errors: DatabaseGone, ConfigError."""
        pause = POLL[0]
        while not self.is_over():
            self.requeue()
            token = uuid.uuid4().hex
            claim = self.ask(lambda token=token: self.study.claim(self.me, token))  # type: ignore[misc]
            if claim is None:
                counts = self.ask(self.study.counts)
                # one may wait again by now: its worker gave it back after we had asked
                if not counts[TrialState.RUNNING] + counts[TrialState.WAITING]:
                    return "done"
                # whoever runs the last ones may die: then they are ours
                time.sleep(pause)
                pause = min(2 * pause, POLL[1])
                continue
            pause = POLL[0]
            if self.stopped():
                self.ask(lambda claim=claim: self.study.release(claim))  # type: ignore[misc]
                return "interrupted"
            if self.one(claim, objective) is None and not self.lost and not self.is_over():
                return "interrupted"
        return "timeout"

    def one(self, claim: ClaimedTrial, objective: Objective) -> str | None:
        """One trial, told or given back; how it ended, None if it was stopped."""
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
            pass  # another worker has told its result
        except BaseException as error:
            if not isinstance(error, DatabaseGone):
                with contextlib.suppress(SQLAlchemyError, StorageInternalError):
                    self.study.release(claim)
            raise
        self.lost = True
        self.say(f"trial {claim.number}: another worker has taken it over, since we gave no sign of life")
        return None

    def ask(self, question: Callable[[], Answer]) -> Answer:
        """Errors: DatabaseGone after `patience` seconds."""

        def asked() -> Answer:
            try:
                return question()
            except (SQLAlchemyError, StorageInternalError):
                self.away = time.monotonic()
                raise

        return with_retry(asked, self.patience, self.say)

    def requeue(self) -> None:
        """Give back the trials of workers that died. While the database was away nobody could give a sign of life."""
        grace = self.grace if time.monotonic() - self.away > self.grace else None
        for dead in self.ask(lambda: self.study.requeue_dead(self.me, grace)):
            how = "is given up: its workers keep dying" if dead.given_up else "waits again"
            self.say(f"trial {dead.number}: its worker died ({dead.worker}); it {how}")

    def is_over(self) -> bool:
        return self.deadline is not None and time.monotonic() >= self.deadline

    def _sampled(self, claim: ClaimedTrial) -> optuna.Trial:
        """The trial, every parameter set: those that it has keep their values."""
        sampler = make_sampler(self.sampler, self.space.distributions(), self.seed, claim.number)
        if self.opened is None:
            self.opened = optuna.load_study(
                study_name=self.study.name, storage=self.database.optuna, sampler=sampler, pruner=self.pruner
            )
        # a copy shares the ended trials that were read, and looks for new ones: samplers remember, per study object,
        # the trials that they saw first, until Study.ask or tell
        study = copy.copy(self.opened)
        study.sampler = sampler
        study.get_trials(deepcopy=False)  # Optuna wants to know a trial before it is written to
        self._preset(claim)
        trial = optuna.Trial(study, claim.trial_id)
        for dimension in self.space.dimensions:
            dimension.suggest(trial)
        return trial

    def _preset(self, claim: ClaimedTrial) -> None:
        """Write the parameters that the trial is to have, save those that it has."""
        storage = self.database.optuna
        known, distributions = storage.get_trial(claim.trial_id).params, self.space.distributions()
        for key, value in claim.preset.items():
            if key not in known:
                inner = distributions[key].to_internal_repr(value)
                storage.set_trial_param(claim.trial_id, key, inner, distributions[key])

    @contextlib.contextmanager
    def _pulse(self, claim: ClaimedTrial) -> Iterator[None]:
        """Within, a thread gives signs of life."""
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(BEAT):
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
            thread.join(timeout=BEAT)


class _Trial:
    def __init__(self, loop: Loop, claim: ClaimedTrial, trial: optuna.Trial) -> None:
        self.loop, self.trial, self.number = loop, trial, claim.number
        self.values: Mapping[str, Any] = trial.params
        self.reported = set(loop.database.optuna.get_trial(claim.trial_id).intermediate_values)

    def report(self, epoch: int, score: float) -> bool:
        # epochs of the worker that died and had the trial before us; and those that are no longer ours to tell
        if epoch in self.reported or self.loop.lost:
            return False
        self.reported.add(epoch)
        try:
            self.loop.ask(lambda: self.trial.report(score, epoch))
            return self.loop.ask(self.trial.should_prune)
        except UpdateFinishedTrialError:  # another worker has told its result
            self.loop.lost = True
            return False

    def stop(self) -> bool:
        return self.loop.lost or self.loop.is_over()
