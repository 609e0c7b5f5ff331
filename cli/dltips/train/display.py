"""Displays a run's progress on stderr: a live line in a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dltips.feed.batches import Batch
from dltips.formatting import clock
from dltips.train.loop import Training


def epoch_line(record: Mapping[str, Any], epochs: int, seconds_left: float) -> str:
    """Returns one epoch in one line, of at most 100 columns; the rate is in samples per second."""
    parts = [f"epoch {record['epoch']:>{len(str(epochs))}}/{epochs}"]
    for split in ("train", "val"):
        if f"{split}/loss" in record:
            parts.append(f"{split} loss {record[f'{split}/loss']:.4f} accuracy {record[f'{split}/accuracy']:.4f}")
    parts.append(f"lr {record['lr']:.3g}")
    if "samples_per_second" in record:
        parts.append(f"{record['samples_per_second']:,.0f}/s")
    if seconds_left >= 1:
        parts.append(f"{clock(seconds_left)} left")
    return "  ".join(parts)


class Display:
    """Prints epochs as plain lines on stderr and in run.log."""

    def __init__(self, log: Path, epochs: int) -> None:
        self.log = log.open("a", encoding="utf-8", buffering=1)
        self.epochs = epochs
        self.started = time.perf_counter()
        self.first_epoch: int | None = None

    def say(self, text: str, *, reported: bool = False) -> None:
        """Prints a line, unless it was printed before, and writes it to run.log."""
        if not reported:
            self.write(text)
        self.log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")

    def note(self, text: str, *, reported: bool) -> None:
        """Prints a note before the run starts, once."""
        self.say(text, reported=reported)

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError):  # stderr is closed; the run goes on
            print(text, file=sys.stderr, flush=True)

    def epoch(self, record: Mapping[str, Any]) -> None:
        if self.first_epoch is None:
            self.first_epoch = record["epoch"] - 1
        done = record["epoch"] - self.first_epoch
        left = (time.perf_counter() - self.started) / max(1, done) * (self.epochs - record["epoch"])
        self.say(epoch_line(record, self.epochs, left))

    def stop_live(self) -> None:
        """Ends the live display; later lines are plain."""

    def close(self) -> None:
        with contextlib.suppress(OSError):  # of a full disk; writing the line has reported it already
            self.log.close()


class LiveDisplay(Display):
    """The same, with a progress bar that a thread of rich's draws: the loop does no work for it."""

    def __init__(self, log: Path, epochs: int, training: Training) -> None:
        super().__init__(log, epochs)
        from rich.console import Console
        from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
        from rich.text import Text

        total = epochs * training.steps_per_epoch
        start, begin = training.progress.step, time.perf_counter()

        class Speed(ProgressColumn):
            def render(self, task: Task) -> Text:
                elapsed = time.perf_counter() - begin
                done = training.progress.step - start
                rate = done / elapsed if elapsed > 0 else 0.0
                left = clock((total - training.progress.step) / rate) if rate > 0 else "-:--"
                return Text(f"{rate * training.batch_size:,.0f} samples/s  {left} left")

        class Follow(Progress):
            def get_renderables(self) -> Any:
                for task in self.tasks:
                    epoch = min(epochs, training.progress.step // training.steps_per_epoch + 1)
                    task.completed = training.progress.step
                    task.fields["position"] = f"epoch {epoch}/{epochs}  step {training.progress.step}/{total}"
                return super().get_renderables()

        columns = (TextColumn("{task.fields[position]}"), BarColumn(), TextColumn("{task.fields[score]}"), Speed())
        self.progress = Follow(*columns, console=Console(stderr=True), transient=True, refresh_per_second=5)
        self.task = self.progress.add_task("", total=total, position="", score="")
        self.progress.start()

    def write(self, text: str) -> None:
        self.progress.console.print(text, highlight=False, markup=False)

    def epoch(self, record: Mapping[str, Any]) -> None:
        super().epoch(record)
        self.progress.update(self.task, score=f"loss {record['val/loss']:.3f}  accuracy {record['val/accuracy']:.3f}")

    def stop_live(self) -> None:
        self.progress.stop()


class QuietDisplay(Display):
    """For one run of many: epochs go to run.log only, notes are still printed."""

    def note(self, text: str, *, reported: bool) -> None:
        if not reported:
            super().write(text)
        self.say(text)

    def write(self, text: str) -> None:
        """Writes to run.log only; the caller reports how each run ended."""


def display_for(log: Path, epochs: int, training: Training, *, quiet: bool = False) -> Display:
    """Returns the live display in a terminal, the plain one elsewhere, the quiet one for one run of many."""
    if quiet:
        return QuietDisplay(log, epochs)
    return LiveDisplay(log, epochs, training) if sys.stderr.isatty() else Display(log, epochs)


def with_progress(batches: Iterable[Batch], total: int, what: str) -> Iterator[Batch]:
    """Yields the batches; in a terminal, after one second, a temporary line shows the number of samples done."""
    started, done, shown = time.perf_counter(), 0, False
    for inputs, targets in batches:
        yield inputs, targets
        done += len(targets)
        if sys.stderr.isatty() and time.perf_counter() - started > 1:
            shown = True
            sys.stderr.write(f"\r{what}: {done:,} of {total:,} samples ")
            sys.stderr.flush()
    if shown:
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()
