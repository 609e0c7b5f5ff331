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

from dltips.formatting import setting_text
from dltips.insight.groups import ALL, IGNORED, IGNORED_SECTIONS, RunGroup, differing_settings, group_runs
from dltips.insight.mean_curves import Point, common_epochs, mean_curve
from dltips.metrics import is_score
from dltips.runs.events import EventFile, Setting, trial_name
from dltips.runs.file_names import CONFIG, METRICS, SWEEP
from dltips.runs.past_runs import PastRun, is_number, runs_in

CURVES = ("val/accuracy", "val/loss", "train/accuracy", "train/loss")
BANDS_HEADING = "mean and 95 % interval over seeds"  # the heading in the Custom Scalars tab
LONGEST_NAME = 60  # characters of a part of a name: TensorBoard's legend shows about so many
# The tags of a band. Their own heading in Time Series, which ~ sorts last; and tags that no run has: for a run with
# only the first one TensorBoard would report the others as missing.
BAND_TAGS = ("~interval/{}/mean", "~interval/{}/low", "~interval/{}/high")


@dataclass(frozen=True)
class BoardLayout:
    """The runs and the groups of at least two seeds that TensorBoard shows, by their names there."""

    runs: Mapping[str, PastRun]
    means: Mapping[str, RunGroup]

    def metrics(self) -> list[str]:
        """Returns the deciding metrics, and the curves that every run has."""
        configured = (run.settings.get("metric") for run in self.runs.values())
        return list(
            dict.fromkeys([*(metric for metric in configured if isinstance(metric, str) and is_score(metric)), *CURVES])
        )

    def without_events(self) -> list[PastRun]:
        """Returns the runs without events, whose curves are taken from metrics.jsonl."""
        return [run for run in self.runs.values() if lacks_events(run)]


def arrange_runs(runs: Sequence[PastRun]) -> BoardLayout:
    """Names runs by their differences: `init=he lr=0.1/seed 0`, and `init=he lr=0.1/mean` for the group.

    A sweep's runs are compared only with one another; with more than the one sweep, its folder's name comes first. A
    run on its own, whose settings make no short name, is called by its folder.
    """
    sweeps: dict[Path | None, list[PastRun]] = defaultdict(list)
    for run in runs:
        sweeps[run.path.parent if (run.path.parent / SWEEP).is_file() else None].append(run)
    runs_by_name: dict[str, PastRun] = {}
    means: dict[str, RunGroup] = {}
    for sweep, members in sweeps.items():
        prefix = f"{_folder_name(sweep.name)}/" if sweep is not None and len(sweeps) > 1 else ""
        compared_groups = group_runs(members, _compared_settings(sweep, members))
        for group, label in zip(compared_groups, _short_labels(compared_groups), strict=True):
            if len(group.runs) == 1:
                name = label if label != ALL and len(label) <= LONGEST_NAME else group.runs[0].path.name
                runs_by_name[_unique_name(prefix + _folder_name(name), runs_by_name)] = group.runs[0]
                continue
            folder = _unique_name(
                prefix + _folder_name(label), {os.path.dirname(name) for name in (*runs_by_name, *means)}
            )
            for run in sorted(group.runs, key=lambda run: (run.seed is None, run.seed or 0, run.path)):
                name = run.path.name if run.seed is None else f"seed {run.seed}"
                runs_by_name[_unique_name(f"{folder}/{_folder_name(name)}", runs_by_name)] = run
            means[f"{folder}/mean"] = group
        for run in members:
            if not run.settings:
                runs_by_name[_unique_name(prefix + _folder_name(run.path.name), runs_by_name)] = run
    return BoardLayout(runs_by_name, means)


def _compared_settings(sweep: Path | None, runs: Sequence[PastRun]) -> list[str] | None:
    """Returns the keys that a sweep varies, from its first run on, and further differences."""
    if sweep is None:
        return None
    try:
        varied = json.loads((sweep / SWEEP).read_bytes())["varied"]
        varied = [key for key in varied if key not in IGNORED and not key.startswith(IGNORED_SECTIONS)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    known = {key for run in runs for key in run.settings}
    return list(dict.fromkeys([*(key for key in varied if key in known), *differing_settings(runs)]))


def _short_labels(compared_groups: Sequence[RunGroup]) -> list[str]:
    """Returns the groups' settings, `optimizer.lr` as `lr` if no other key ends so."""
    keys = {key for group in compared_groups for key in group.settings}
    keys_by_ending: dict[str, set[str]] = defaultdict(set)
    for key in keys:
        keys_by_ending[key.rpartition(".")[2]].add(key)
    short_keys = {
        key: ending for ending, same_ending in keys_by_ending.items() for key in same_ending if len(same_ending) == 1
    }
    return [
        " ".join(f"{short_keys.get(key, key)}={setting_text(value)}" for key, value in group.settings.items())
        or group.label
        for group in compared_groups
    ]


def _folder_name(name: str) -> str:
    """Returns a folder's name: no slash, no unprintable character, not hidden, not too long."""
    printable = "".join("_" if char in '/\\:*?"<>|' or not char.isprintable() else char for char in name).strip(" .")
    return (printable if len(printable) <= LONGEST_NAME else f"{printable[: LONGEST_NAME - 1]}…") or "_"


def _unique_name(name: str, taken: Iterable[str]) -> str:
    """Returns the name, with a number if it is taken."""
    number, unique = 1, name
    while unique in taken:
        number += 1
        unique = f"{name} ({number})"
    return unique


def hparams_table(runs: Sequence[PastRun]) -> tuple[dict[str, Setting], list[dict[str, Setting]], list[str]]:
    """Returns HParams' columns (each key of any run with an example), each run's values, and the differing keys.

    A key whose values are of more than one type is text.
    """
    # setting_text() of a key and a text is readable for TensorBoard, whatever they contain
    settings = [{setting_text(key): value for key, value in run.settings.items() if value is not None} for run in runs]
    types: dict[str, set[type]] = defaultdict(set)
    for run_settings in settings:
        for key, value in run_settings.items():
            types[key].add(_type_of(value))
    type_of = {key: next(iter(types[key])) if len(types[key]) == 1 else str for key in sorted(types)}
    columns: dict[str, Setting] = {key: type_() for key, type_ in type_of.items()}
    values = [
        {
            key: setting_text(value) if type_of[key] is str else type_of[key](value)
            for key, value in run_settings.items()
        }
        for run_settings in settings
    ]
    seeds = ["seed"] if len({run.seed for run in runs}) > 1 else []
    return columns, values, [*differing_settings(runs), *seeds]


def _type_of(value: Any) -> type:
    if isinstance(value, bool):
        return bool
    return float if is_number(value) or isinstance(value, float) else str


def lacks_events(run: PastRun) -> bool:
    """Returns whether a run has no events and will have none: log.tensorboard is off, or the run is over."""
    switched_off = run.settings.get("log.tensorboard") is False
    return (switched_off or run.status != "unfinished") and not _event_files(run.path)


def _event_files(folder: Path) -> list[str]:
    try:
        return [name for name in os.listdir(folder) if "tfevents" in name]
    except OSError:
        return []


@dataclass(frozen=True)
class _CachedRun(PastRun):
    """A run with its records, reduced to the curves."""

    cached_records: list[dict[str, Any]] = field(repr=False)

    def records(self) -> list[dict[str, Any]]:
        return self.cached_records


@dataclass
class _BoardFolder:
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
        self._unpublished = folder / "new"
        self._folders: dict[str, _BoardFolder] = {}
        self._cache: dict[Path, tuple[tuple[int, int], list[dict[str, Any]]]] = {}

    def refresh(self) -> BoardLayout:
        """Scans the runs again: adds new ones, removes lost ones, updates means. Raises ConfigError, OSError."""
        layout = arrange_runs(runs_in(self.places))
        metrics = layout.metrics()
        sources: dict[str, Any] = {name: run.path for name, run in layout.runs.items()}
        for name in layout.means:
            sources[name] = "mean"
        for name in [name for name, folder in self._folders.items() if sources.get(name) != folder.source]:
            shutil.rmtree(self.logs / name, ignore_errors=True)
            del self._folders[name]
        columns, values, varied = hparams_table(list(layout.runs.values()))
        for (name, run), run_values in zip(layout.runs.items(), values, strict=True):
            if name not in self._folders:
                self._add_run(name, run, (columns, run_values, metrics, varied))
            self._update_run(name, run, metrics)
        for name, group in layout.means.items():
            if name not in self._folders:
                self._add_mean(name, metrics, min(filter(None, map(_start_time, layout.runs.values())), default=None))
            self._update_mean(self._folders[name], group, metrics)
        return layout

    def _add_run(self, name: str, run: PastRun, hparams: tuple[Any, Any, list[str], list[str]]) -> None:
        folder = self._empty_folder()
        columns, values, metrics, varied = hparams
        trial = trial_name(run.path.name)
        # sorts before the run's own files, which are named by their time
        file = EventFile(folder, "0", trial, _start_time(run))
        if lacks_events(run):
            file.start(columns, values, metrics, _read_text(run.path / CONFIG), varied=varied)
        else:
            file.line(columns, values, metrics, varied)
        self._publish(name, folder, _BoardFolder(run.path, file))

    def _add_mean(self, name: str, metrics: Sequence[str], began: float | None) -> None:
        folder = self._empty_folder()
        # before the first run: the Custom Scalars tab lists runs by their start
        file = EventFile(folder, "0", started=None if began is None else began - 1)
        file.bands(BANDS_HEADING, {metric: _band_tags(metric) for metric in metrics})
        self._publish(name, folder, _BoardFolder("mean", file))

    def _empty_folder(self) -> Path:
        shutil.rmtree(self._unpublished, ignore_errors=True)
        self._unpublished.mkdir()
        return self._unpublished

    def _publish(self, name: str, folder: Path, board_folder: _BoardFolder) -> None:
        """Moves a complete folder to where TensorBoard reads it."""
        target = self.logs / name
        target.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(target)
        board_folder.file.moved_to(target)
        self._folders[name] = board_folder

    def _update_run(self, name: str, run: PastRun, metrics: Sequence[str]) -> None:
        """Links the present event files; of a run without any, writes its curves from metrics.jsonl."""
        folder, board_folder = self.logs / name, self._folders[name]
        for file in _event_files(run.path):
            if not (folder / file).is_symlink():
                (folder / file).symlink_to((run.path / file).absolute())
        for link in folder.iterdir():
            if link.is_symlink() and not link.exists():
                link.unlink()
        if not lacks_events(run):
            return
        cached = self._cached(run, metrics)
        _write_points(
            board_folder, {record["epoch"]: _numbers(record) for record in cached.records() if "epoch" in record}
        )
        if run.status != "unfinished" and not board_folder.ended:
            board_folder.file.finish(run.status)
            board_folder.ended = True

    def _update_mean(self, board_folder: _BoardFolder, group: RunGroup, metrics: Sequence[str]) -> None:
        runs = [self._cached(run, metrics) for run in group.runs]
        seen = [(run.path, run.status, self._cache[run.path][0]) for run in runs]
        if seen == board_folder.seen:
            return
        board_folder.seen = seen
        points: dict[int, dict[str, float]] = defaultdict(dict)
        for metric in metrics:
            for point in common_epochs(mean_curve(RunGroup(group.label, group.settings, runs), metric)):
                points[point.epoch] |= _band_values(metric, point)
        _write_points(board_folder, points)

    def _cached(self, run: PastRun, metrics: Sequence[str]) -> _CachedRun:
        """Returns a run with its records, which are read again only if their file has changed."""
        try:
            stat = (run.path / METRICS).stat()
            state = (stat.st_size, stat.st_mtime_ns)
        except OSError:
            state = (0, 0)
        if run.path not in self._cache or self._cache[run.path][0] != state:
            keys = {"epoch", "lr", *metrics}
            records = [{key: record[key] for key in keys & record.keys()} for record in run.records()]
            self._cache[run.path] = (state, records)
        return _CachedRun(run.path, run.status, run.settings, run.summary, run.seed, self._cache[run.path][1])


def _write_points(board_folder: _BoardFolder, points: Mapping[int, dict[str, float]]) -> None:
    """Writes the steps from the first new or changed one on."""
    steps = sorted({*points, *board_folder.points})
    changed = next((step for step in steps if points.get(step) != board_folder.points.get(step)), None)
    if changed is None:
        return
    if changed in board_folder.points:
        board_folder.file.begin_anew()
    for step in sorted(step for step in points if step >= changed):
        board_folder.file.scalars(step, points[step])
    board_folder.points = dict(points)


def _band_tags(metric: str) -> tuple[str, str, str]:
    mean, low, high = (tag.format(metric) for tag in BAND_TAGS)
    return mean, low, high


def _band_values(metric: str, point: Point) -> dict[str, float]:
    """Returns the mean, under the tag of a run's metric, and the band."""
    return {metric: point.mean} | dict(zip(_band_tags(metric), (point.mean, point.low, point.high), strict=True))


def _numbers(record: Mapping[str, Any]) -> dict[str, float]:
    """Returns the numbers; null, which stands for a value that is not finite, and anything else become NaN."""
    return {key: float(value) if is_number(value) else math.nan for key, value in record.items() if key != "epoch"}


def _start_time(run: PastRun) -> float | None:
    """Returns when the run wrote its config, its first file; TensorBoard sorts runs by it."""
    try:
        return (run.path / CONFIG).stat().st_mtime
    except OSError:
        return None


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
