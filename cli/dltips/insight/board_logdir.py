"""Makes the folder that TensorBoard reads: runs under readable names, and the groups' means as further runs."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dltips.insight.groups import ALL, IGNORED, IGNORED_SECTIONS, RunGroup, differing, groups, text
from dltips.insight.mean_curves import Point, common_epochs, mean_curve
from dltips.metrics import is_score
from dltips.runs.events import EventFile, Setting, trial_name
from dltips.runs.layout import CONFIG, METRICS, SWEEP
from dltips.runs.past_runs import PastRun, is_number, runs_in

CURVES = ("val/accuracy", "val/loss", "train/accuracy", "train/loss")
BANDS = "mean and 95 % interval over seeds"  # the heading in the Custom Scalars tab
LONGEST = 60  # characters of a part of a name: TensorBoard's legend shows about so many
# The tags of a band. Their own heading in Time Series, which ~ sorts last; and tags that no run has: for a run with
# only the first one TensorBoard would report the others as missing.
BAND = ("~interval/{}/mean", "~interval/{}/low", "~interval/{}/high")


@dataclass(frozen=True)
class BoardLayout:
    """The runs and the groups of at least two seeds that TensorBoard shows, by their names there."""

    runs: Mapping[str, PastRun]
    means: Mapping[str, RunGroup]

    def metrics(self) -> list[str]:
        """Returns the deciding metrics, and the curves that every run has."""
        told = (run.settings.get("metric") for run in self.runs.values())
        return list(
            dict.fromkeys([*(metric for metric in told if isinstance(metric, str) and is_score(metric)), *CURVES])
        )

    def without_events(self) -> list[PastRun]:
        """Returns the runs without events, whose curves are taken from metrics.jsonl."""
        return [run for run in self.runs.values() if lacks_events(run)]


def arrange(runs: Sequence[PastRun]) -> BoardLayout:
    """Names runs by their differences: `init=he lr=0.1/seed 0`, and `init=he lr=0.1/mean` for the group.

    A sweep's runs are compared only with one another; with more than the one sweep, its folder's name comes first. A
    run on its own, whose settings make no short name, is called by its folder.
    """
    sweeps: dict[Path | None, list[PastRun]] = defaultdict(list)
    for run in runs:
        sweeps[run.path.parent if (run.path.parent / SWEEP).is_file() else None].append(run)
    named: dict[str, PastRun] = {}
    means: dict[str, RunGroup] = {}
    for sweep, members in sweeps.items():
        prefix = f"{_part(sweep.name)}/" if sweep is not None and len(sweeps) > 1 else ""
        found = groups(members, _keys(sweep, members))
        for group, label in zip(found, _labels(found), strict=True):
            if len(group.runs) == 1:
                called = label if label != ALL and len(label) <= LONGEST else group.runs[0].path.name
                named[_free(prefix + _part(called), named)] = group.runs[0]
                continue
            place = _free(prefix + _part(label), {os.path.dirname(name) for name in (*named, *means)})
            for run in sorted(group.runs, key=lambda run: (run.seed is None, run.seed or 0, run.path)):
                called = run.path.name if run.seed is None else f"seed {run.seed}"
                named[_free(f"{place}/{_part(called)}", named)] = run
            means[f"{place}/mean"] = group
        for run in members:
            if not run.settings:
                named[_free(prefix + _part(run.path.name), named)] = run
    return BoardLayout(named, means)


def _keys(sweep: Path | None, runs: Sequence[PastRun]) -> list[str] | None:
    """Returns the keys that a sweep varies, from its first run on, and further differences."""
    if sweep is None:
        return None
    try:
        varied = json.loads((sweep / SWEEP).read_bytes())["varied"]
        keys = [key for key in varied if key not in IGNORED and not key.startswith(IGNORED_SECTIONS)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    known = {key for run in runs for key in run.settings}
    return list(dict.fromkeys([*(key for key in keys if key in known), *differing(runs)]))


def _labels(found: Sequence[RunGroup]) -> list[str]:
    """Returns the groups' settings, `optimizer.lr` as `lr` if no other key ends so."""
    keys = {key for group in found for key in group.settings}
    ends: dict[str, set[str]] = defaultdict(set)
    for key in keys:
        ends[key.rpartition(".")[2]].add(key)
    short = {key: end for end, those in ends.items() for key in those if len(those) == 1}
    return [
        " ".join(f"{short.get(key, key)}={text(value)}" for key, value in group.settings.items()) or group.label
        for group in found
    ]


def _part(name: str) -> str:
    """Returns a folder's name: no slash, no unprintable character, not hidden, not too long."""
    shown = "".join("_" if char in '/\\:*?"<>|' or not char.isprintable() else char for char in name).strip(" .")
    return (shown if len(shown) <= LONGEST else f"{shown[: LONGEST - 1]}…") or "_"


def _free(name: str, taken: Iterable[str]) -> str:
    """Returns the name, with a number if it is taken."""
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name} ({number})"
    return free


def hyperparameters(runs: Sequence[PastRun]) -> tuple[dict[str, Setting], list[dict[str, Setting]], list[str]]:
    """Returns HParams' columns (each key of any run with an example), each run's values, and the differing keys.

    A key whose values are of more than one type is text.
    """
    # text() of a key and a text is readable for TensorBoard, whatever they contain
    settings = [{text(key): value for key, value in run.settings.items() if value is not None} for run in runs]
    kinds: dict[str, set[type]] = defaultdict(set)
    for one in settings:
        for key, value in one.items():
            kinds[key].add(_kind(value))
    kind_of = {key: next(iter(kinds[key])) if len(kinds[key]) == 1 else str for key in sorted(kinds)}
    columns: dict[str, Setting] = {key: kind() for key, kind in kind_of.items()}
    values = [
        {key: text(value) if kind_of[key] is str else kind_of[key](value) for key, value in one.items()}
        for one in settings
    ]
    seeds = ["seed"] if len({run.seed for run in runs}) > 1 else []
    return columns, values, [*differing(runs), *seeds]


def _kind(value: Any) -> type:
    if isinstance(value, bool):
        return bool
    return float if is_number(value) or isinstance(value, float) else str


def lacks_events(run: PastRun) -> bool:
    """Returns whether a run has no events and will have none: log.tensorboard is off, or the run is over."""
    told = run.settings.get("log.tensorboard") is False
    return (told or run.status != "unfinished") and not _event_files(run.path)


def _event_files(folder: Path) -> list[str]:
    try:
        return [name for name in os.listdir(folder) if "tfevents" in name]
    except OSError:
        return []


@dataclass(frozen=True)
class _Read(PastRun):
    """A run with its records, reduced to the curves."""

    kept: list[dict[str, Any]] = field(repr=False)

    def records(self) -> list[dict[str, Any]]:
        return self.kept


@dataclass
class _Written:
    """The content of one folder: our event file, its source, and its points."""

    source: Any
    file: EventFile
    points: dict[int, dict[str, float]] = field(default_factory=dict)
    seen: Any = None
    ended: bool = False


class Board:
    """Keeps a folder up to date with the runs at some paths; TensorBoard reads `logs` in it.

    A run is a folder of links to its event files, and a small file of ours in front of them, whose columns for HParams
    win: TensorBoard takes the first that it reads. So all runs agree on the columns, whatever their versions and
    options, and what differs here comes first. Nothing is written into the runs.
    """

    def __init__(self, places: Sequence[str], folder: Path) -> None:
        self.places = list(places)
        self.logs = folder / "logs"
        self.logs.mkdir()
        self._new = folder / "new"
        self._written: dict[str, _Written] = {}
        self._records: dict[Path, tuple[tuple[int, int], list[dict[str, Any]]]] = {}

    def refresh(self) -> BoardLayout:
        """Scans the runs again: adds new ones, removes lost ones, updates means. Raises ConfigError, OSError."""
        layout = arrange(runs_in(self.places))
        metrics = layout.metrics()
        sources: dict[str, Any] = {name: run.path for name, run in layout.runs.items()}
        for name in layout.means:
            sources[name] = "mean"
        for name in [name for name, written in self._written.items() if sources.get(name) != written.source]:
            shutil.rmtree(self.logs / name, ignore_errors=True)
            del self._written[name]
        columns, values, varied = hyperparameters(list(layout.runs.values()))
        for (name, run), own in zip(layout.runs.items(), values, strict=True):
            if name not in self._written:
                self._add_run(name, run, (columns, own, metrics, varied))
            self._follow(name, run, metrics)
        for name, group in layout.means.items():
            if name not in self._written:
                self._add_mean(name, metrics, min(filter(None, map(_began, layout.runs.values())), default=None))
            self._average(self._written[name], group, metrics)
        return layout

    def _add_run(self, name: str, run: PastRun, line: tuple[Any, Any, list[str], list[str]]) -> None:
        folder = self._empty()
        columns, values, metrics, varied = line
        trial = trial_name(run.path.name)
        file = EventFile(
            folder, "0", trial, _began(run)
        )  # sorts before the run's own files, which are named by their time
        if lacks_events(run):
            file.start(columns, values, metrics, _text_of(run.path / CONFIG), varied=varied)
        else:
            file.line(columns, values, metrics, varied)
        self._place(name, folder, _Written(run.path, file))

    def _add_mean(self, name: str, metrics: Sequence[str], began: float | None) -> None:
        folder = self._empty()
        # before the first run: the Custom Scalars tab lists runs by their start
        file = EventFile(folder, "0", started=None if began is None else began - 1)
        file.bands(BANDS, {metric: _tags(metric) for metric in metrics})
        self._place(name, folder, _Written("mean", file))

    def _empty(self) -> Path:
        shutil.rmtree(self._new, ignore_errors=True)
        self._new.mkdir()
        return self._new

    def _place(self, name: str, folder: Path, written: _Written) -> None:
        """Moves a complete folder to where TensorBoard reads it."""
        place = self.logs / name
        place.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(place)
        written.file.moved_to(place)
        self._written[name] = written

    def _follow(self, name: str, run: PastRun, metrics: Sequence[str]) -> None:
        """Links the present event files; of a run without any, writes its curves from metrics.jsonl."""
        place, written = self.logs / name, self._written[name]
        for file in _event_files(run.path):
            if not (place / file).is_symlink():
                (place / file).symlink_to((run.path / file).absolute())
        for link in place.iterdir():
            if link.is_symlink() and not link.exists():
                link.unlink()
        if not lacks_events(run):
            return
        read = self._read(run, metrics)
        _update(written, {record["epoch"]: _scalars(record) for record in read.records() if "epoch" in record})
        if run.status != "unfinished" and not written.ended:
            written.file.finish(run.status)
            written.ended = True

    def _average(self, written: _Written, group: RunGroup, metrics: Sequence[str]) -> None:
        runs = [self._read(run, metrics) for run in group.runs]
        seen = [(run.path, run.status, self._records[run.path][0]) for run in runs]
        if seen == written.seen:
            return
        written.seen = seen
        points: dict[int, dict[str, float]] = defaultdict(dict)
        for metric in metrics:
            for point in common_epochs(mean_curve(RunGroup(group.label, group.settings, runs), metric)):
                points[point.epoch] |= _values(metric, point)
        _update(written, points)

    def _read(self, run: PastRun, metrics: Sequence[str]) -> _Read:
        """Returns a run with its records, which are read again only if their file has changed."""
        try:
            found = (run.path / METRICS).stat()
            state = (found.st_size, found.st_mtime_ns)
        except OSError:
            state = (0, 0)
        if run.path not in self._records or self._records[run.path][0] != state:
            keys = {"epoch", "lr", *metrics}
            kept = [{key: record[key] for key in keys & record.keys()} for record in run.records()]
            self._records[run.path] = (state, kept)
        return _Read(run.path, run.status, run.settings, run.summary, run.seed, self._records[run.path][1])


def _update(written: _Written, points: Mapping[int, dict[str, float]]) -> None:
    """Writes the steps from the first new or changed one on."""
    steps = sorted({*points, *written.points})
    changed = next((step for step in steps if points.get(step) != written.points.get(step)), None)
    if changed is None:
        return
    if changed in written.points:
        written.file.begin_anew()
    for step in sorted(step for step in points if step >= changed):
        written.file.scalars(step, points[step])
    written.points = dict(points)


def _tags(metric: str) -> tuple[str, str, str]:
    mean, low, high = (tag.format(metric) for tag in BAND)
    return mean, low, high


def _values(metric: str, point: Point) -> dict[str, float]:
    """Returns the mean, under the tag of a run's metric, and the band."""
    return {metric: point.mean} | dict(zip(_tags(metric), (point.mean, point.low, point.high), strict=True))


def _scalars(record: Mapping[str, Any]) -> dict[str, float]:
    """Returns the numbers; null, which stands for a value that is not finite, and anything else become NaN."""
    return {key: float(value) if is_number(value) else math.nan for key, value in record.items() if key != "epoch"}


def _began(run: PastRun) -> float | None:
    """Returns when the run wrote its config, its first file; TensorBoard sorts runs by it."""
    try:
        return (run.path / CONFIG).stat().st_mtime
    except OSError:
        return None


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
