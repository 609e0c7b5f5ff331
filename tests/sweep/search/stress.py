"""Workers of one study, some of them killed at random. Run by itself, it is one such worker."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from optuna.trial import TrialState
from sqlalchemy import select

from dltips.sweep.search.claims import CLAIMS, CLOSED, RUNNING, TOLD
from dltips.sweep.search.samplers import make_pruner
from dltips.sweep.search.space import Dimension, Space
from dltips.sweep.search.storage import Database, opened, url_of
from dltips.sweep.search.study import Study, open_study
from dltips.sweep.search.trial_loop import Loop, TrialHandle, TrialResult

SPACE = Space(
    {},
    (
        Dimension("x", "float", "interval(0,1)", 0.0, 1.0),
        Dimension("option", "choice", "a,b", labels=("a", "b"), values=("a", "b")),
    ),
)


def simple(asked: TrialHandle) -> TrialResult:
    """An objective that says what a run says: a score after each epoch, and the end."""
    for epoch in range(1, 4):
        time.sleep(random.random() * 0.02)
        asked.report(epoch, float(asked.values["x"]) * epoch)
        if asked.stop():
            return TrialResult(None)
    return TrialResult("complete", [float(asked.values["x"])])


def work(database: Database, sampler: str = "random", objective: Callable[[TrialHandle], TrialResult] = simple) -> str:
    pruner = make_pruner("none", 3, 3, None)
    loop = Loop(database, open_study(database, "study"), SPACE, sampler, pruner, 0, lambda text: None)
    return loop.run(objective)


def killed_at_random(url: str, folder: Path, workers: int, kills: int) -> None:
    """Start the workers, kill some that are at a trial, replace them; done when all have ended by themselves.

    The kills lie at random numbers of ended trials: as many at one trial would be taken for its fault.
    """
    chance = random.Random()

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, __file__, url, str(folder)], stderr=subprocess.DEVNULL)

    executor = [start() for _ in range(workers)]
    with opened(url_of(url or None, folder), 60) as database:
        kill_at = sorted(chance.sample(range(len(open_study(database, "study").trials()) * 3 // 4), kills))
        while any(process.poll() is None for process in executor):
            time.sleep(0.05)
            with database.engine.begin() as connection:
                claims = connection.execute(select(CLAIMS.c.status, CLAIMS.c.worker)).all()
            busy = {json.loads(claim.worker)["pid"] for claim in claims if claim.status in (RUNNING, TOLD)}
            ended = sum(claim.status == CLOSED for claim in claims)
            victims = [process for process in executor if process.poll() is None and process.pid in busy]
            if kill_at and ended >= kill_at[0] and victims:
                victim = chance.choice(victims)
                victim.send_signal(signal.SIGKILL)
                victim.wait()
                kill_at.pop(0)
                executor[executor.index(victim)] = start()
    assert [process.returncode for process in executor] == [0] * workers
    assert not kill_at, "the study ended before all were killed: give it more trials"


def assert_whole(study: Study, count: int) -> None:
    trials = study.trials()
    assert [trial.number for trial in trials] == list(range(count))
    assert Counter(trial.state for trial in trials) == {TrialState.COMPLETE: count}
    assert all(trial.values == [trial.params["x"]] for trial in trials)
    assert len({trial.params["x"] for trial in trials}) == count, "two trials drew the same"
    # and both tables say so
    told = study.database.optuna.get_all_trials(study.study_id)
    assert [(trial.number, trial.state) for trial in told] == [(n, TrialState.COMPLETE) for n in range(count)]
    with study.database.engine.begin() as connection:
        statuses = connection.execute(select(CLAIMS.c.status).where(CLAIMS.c.study == study.name)).scalars()
        assert Counter(statuses) == {CLOSED: count}


if __name__ == "__main__":
    random.seed(os.getpid())
    with opened(url_of(sys.argv[1] or None, Path(sys.argv[2])), 60) as opened_database:
        work(opened_database)
