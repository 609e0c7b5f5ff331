"""Runs a search's workers: one in this process, or `--workers N` on one study; replaces killed ones."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from sqlalchemy import URL

from dltips.errors import ConfigError, OutputError
from dltips.exit_codes import EXIT_INTERNAL, EXIT_INTERRUPTED, EXIT_OK, EXIT_USAGE, fail
from dltips.feed.dataset_cache import DatasetCache
from dltips.signals import handling, install, interrupt, signals_blocked, unblock
from dltips.sweep.search import ranking, samplers, search_report
from dltips.sweep.search.objective import Runs
from dltips.sweep.search.storage import Database, DatabaseGone, in_one_line, opened
from dltips.sweep.search.study import Study, open_study
from dltips.sweep.search.trial_loop import Loop
from dltips.sweep.worker_process import init_worker
from dltips.train.context import RunContext

if TYPE_CHECKING:
    from dltips.sweep.search.plan import SearchPlan

MOST_REPLACED = 20  # deaths in one command: a machine that kills more lacks the memory for the sweep


@dataclass
class Work:
    """The work of one worker, in this process or in another one."""

    plan: SearchPlan
    place: Path
    url: URL
    deadline: float | None
    count: int
    store: DatasetCache | None = None

    def __call__(self, slot: int) -> int:
        """Runs trials until none is left; returns the exit code."""
        patience = self.plan.settings.patience
        try:
            with in_one_line(self.url), opened(self.url, patience) as database:
                study = open_study(database, self.plan.study)
                loop = self.loop(database, study)
                objective = self.objective(loop, study, slot)
                loop.stopped = lambda: objective.context.stop.requested
                ended = loop.run(objective)
        except KeyboardInterrupt:
            return EXIT_INTERRUPTED
        except (DatabaseGone, ConfigError) as error:
            # a full disk is not an error in the command
            mistake = isinstance(error, ConfigError) and not isinstance(error, OutputError)
            return fail(str(error), EXIT_USAGE if mistake else EXIT_INTERNAL)
        return EXIT_INTERRUPTED if ended == "interrupted" else EXIT_OK

    def loop(self, database: Database, study: Study) -> Loop:
        settings = self.plan.settings
        epochs = self.plan.space.most("epochs")
        pruner = samplers.make_pruner(settings.pruner, epochs, settings.reduction, settings.min_epochs)
        loop = Loop(
            database=database,
            study=study,
            space=self.plan.space,
            sampler=settings.sampler,
            pruner=pruner,
            seed=int(self.plan.space.base["seed"]),
            say=search_report.say,
            patience=settings.patience,
            grace=settings.grace,
            deadline=self.deadline,
        )
        loop.after = search_report.SearchProgress(self.plan, lambda: loop.ask(lambda: ranking.done(study)), self.count)
        return loop

    def objective(self, loop: Loop, study: Study, slot: int) -> Runs:
        plan = self.plan
        return Runs(
            space=plan.space,
            objectives=plan.objectives,
            directions=plan.directions,
            seeds=plan.settings.seeds,
            prunes=plan.settings.pruner != "none",
            place=self.place,
            best=lambda: ranking.best_scores(plan, loop.ask(study.trials)),
            code=plan.code,
            slot=slot,
            context=RunContext(plan.typed, datasets=self.store or DatasetCache()),
        )


def run(count: int, work: Callable[[int], int], say: Callable[[str], None]) -> int:
    """Starts the workers and waits for them; returns the largest exit code, or 1 if all of them were killed.

    `work` takes a slot and can be pickled.
    """
    # a process with CUDA cannot be forked; a spawned one loads the data itself
    context = multiprocessing.get_context("spawn" if torch.cuda.is_available() else "fork")
    processes: dict[int, Any] = {}
    codes: list[int] = []
    told: set[int] = set()
    replaced, stopping = 0, False

    def start(slot: int) -> None:
        process: Any = context.Process(target=_serve, args=(work, slot, count, os.getpid()))  # type: ignore[attr-defined]
        with signals_blocked():
            process.start()
            processes[slot] = process
        if stopping:  # another thread may have received the signal while this one blocked it
            end(process, again=False)

    def end(process: Any, again: bool = True) -> None:
        if process.is_alive() and (again or process.pid not in told):
            told.add(process.pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGTERM)

    def stop(number: int, frame: object) -> None:
        nonlocal stopping
        stopping = True
        for process in list(processes.values()):
            end(process)

    with handling(stop):
        for slot in range(count):
            if not stopping:
                start(slot)
        while processes:
            ready = wait([process.sentinel for process in processes.values()])
            for slot, process in list(processes.items()):
                if process.sentinel not in ready:
                    continue
                process.join()
                del processes[slot]
                code = process.exitcode
                if code >= 0:
                    codes.append(code)
                    continue
                say(f"worker {slot}: killed by {signal.Signals(-code).name}; its trial goes on where it was")
                if stopping:
                    continue
                replaced += 1
                if replaced > MOST_REPLACED:
                    say(f"worker {slot}: is not replaced, since {replaced} were killed; is there memory enough?")
                else:
                    start(slot)
    return EXIT_INTERRUPTED if stopping else max(codes, default=EXIT_INTERNAL)


def _serve(work: Callable[[int], int], slot: int, count: int, parent: int) -> None:
    init_worker(slot, count, parent)
    os._exit(_guarded(work, slot))


def _guarded(work: Callable[[int], int], slot: int) -> int:
    import sys
    import traceback

    code = EXIT_INTERNAL
    try:
        install(interrupt, (signal.SIGTERM,))
        unblock()  # signals that came since the start are delivered here
        code = work(slot)
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    except BaseException:
        traceback.print_exc()
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    return code
