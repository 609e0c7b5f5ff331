"""What surrounds a run: what was typed and reported, where it lies, what it shares with others, what may end it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from dltips.feed.dataset_cache import DatasetCache

Ending = Literal["finished", "pruned", "interrupted"]


def finished() -> Ending:
    """How a run ends that no watcher has ended."""
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
    reported: set[str] = field(default_factory=set)  # notes that were printed before: they go to run.log alone
    path: Path | None = None  # the run's folder, yet to be made; None: one of its own under outputs
    quiet: bool = False  # one of many: its epochs go to run.log alone, its pictures wait until it is the best
    prints_report: bool = True  # at the end, on stdout
    datasets: DatasetCache = field(default_factory=DatasetCache)
    stop: Stop = field(default_factory=Stop)
    # each gets an epoch's line of metrics.jsonl, and ends the run by returning True; `ended_as` then says how
    watchers: Sequence[Callable[[Mapping[str, Any]], bool]] = ()
    ended_as: Callable[[], Ending] = finished

    def draws(self, pictures: str) -> bool:
        """Whether pictures are made, by the setting log.pictures."""
        return pictures == "all" or (pictures == "best" and not self.quiet)
