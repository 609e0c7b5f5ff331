"""The context of a run: what was typed and reported, its folder, what it shares with others, what may end it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from dltips.feed.dataset_cache import DatasetCache

Ending = Literal["finished", "pruned", "interrupted"]


def finished() -> Ending:
    """Returns how a run ends if no watcher ends it."""
    return "finished"


@dataclass
class Stop:
    """Set once a stop was requested, even too late to affect the current run; no further run may start."""

    requested: bool = False


@dataclass
class RunContext:
    """One run's context; the runs of a process share `reported`, `datasets` and `stop`."""

    typed: Sequence[str] = ()  # keys that were set on the command line
    notes: Sequence[str] = ()  # for the user, before the run starts
    reported: set[str] = field(default_factory=set)  # notes printed by earlier runs; repeated only in run.log
    path: Path | None = None  # the run's folder, not made yet; None: a new one under outputs
    quiet: bool = False  # one of many runs: epochs go to run.log only, pictures wait until it is the best
    prints_report: bool = True  # at the end, on stdout
    datasets: DatasetCache = field(default_factory=DatasetCache)
    stop: Stop = field(default_factory=Stop)
    # each gets an epoch's line of metrics.jsonl and may end the run by returning True; `ended_as` then names the reason
    watchers: Sequence[Callable[[Mapping[str, Any]], bool]] = ()
    ended_as: Callable[[], Ending] = finished

    def draws(self, pictures: str) -> bool:
        """Returns whether to draw pictures, by the setting log.pictures."""
        return pictures == "all" or (pictures == "best" and not self.quiet)
