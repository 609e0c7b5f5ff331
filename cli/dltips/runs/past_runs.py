"""Finds runs, the newest or the best, and reads them from summary.json, without torch. Writes and executes nothing."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dltips import metrics, paths
from dltips.errors import ConfigError
from dltips.files import read_json
from dltips.runs.file_names import CONFIG, SUMMARY, SWEEP, read_metrics

USED = "finished"  # the only runs that are averaged
MAX_DEPTH = 4  # levels below the given folder: outputs/SWEEP/RUN takes two


@dataclass(frozen=True)
class PastRun:
    """One run folder. `status` is `unfinished` without a complete summary.json: cut off, or still running.

    `settings` are flat, {"init": "he", "optimizer.lr": 0.1}, and empty if neither summary.json nor config.yaml can
    be read.
    """

    path: Path
    status: str
    settings: Mapping[str, Any] = field(repr=False)
    summary: Mapping[str, Any] = field(repr=False)
    seed: int | None

    def value(self, metric: str) -> float | None:
        """Returns a score or a layer's statistic of the best epoch, or a figure of the run (seconds, size_mb).

        None if there is no number, and for a goal (epochs_to:val/accuracy:0.95) that was not reached.
        """
        if (goal := metrics.goal(metric)) is not None:
            better = self.better(goal.score)
            return goal.reached(self.records(), better) if better else None
        scores = self.summary.get("best")
        best = scores if isinstance(scores, dict) else {}
        if metric.startswith("layers/"):
            of_best = (record for record in self.records() if record["epoch"] == best.get("epoch"))
            found = next(of_best, {}).get(metric)
        else:
            found = best[metric] if metric in best else self.summary.get(metric)
        return float(found) if found is not None and is_number(found) else None

    def better(self, metric: str) -> metrics.Better | None:
        """Returns which way is better; None if neither is, or if it is unknown.

        The run itself records this of a user's metric, so that nothing need be imported.
        """
        told = self.summary.get("better")
        found = told.get(metric) if isinstance(told, dict) else None
        return found if found in ("higher", "lower") else metrics.better(metric)

    def records(self) -> list[dict[str, Any]]:
        """Returns the lines of metrics.jsonl up to the first torn one; reads them anew with each call."""
        try:
            return read_metrics(self.path)
        except OSError:
            return []


def runs_in(places: Sequence[str] = ()) -> list[PastRun]:
    """Returns the runs of run folders, sweep folders, folders of both and glob patterns; of ./outputs by default.

    `last` is the newest run, or all runs of the grid or search that it belongs to.

    Sorted by path, without duplicates. Raises ConfigError for a path that does not exist, a pattern that matches
    nothing, and if there is no run at all.
    """
    found: dict[str, Path] = {}
    for place in places or [str(paths.OUTPUTS)]:
        folders = [folder for start in _matching_folders(place) for folder in _run_folders(start)]
        if not folders:
            raise ConfigError(f"{place}: has no run in it; give a run, a sweep, or a folder of them")
        for folder in folders:
            found.setdefault(os.path.realpath(folder), folder)
    return [read(folder) for folder in sorted(found.values())]


def find(chosen: str) -> PastRun:
    """Reads the run that `locate` finds."""
    return read(locate(chosen))


def locate(chosen: str) -> Path:
    """Returns the named run's folder, or the best run's of a grid or search; `last` is the newest under ./outputs.

    Raises ConfigError.
    """
    folder = _newest() if _is_last(chosen) else Path(os.path.expanduser(chosen))
    if chosen.strip() and is_sweep(folder):
        return best_of(folder)
    if not is_run(folder) or not chosen.strip():
        why = "is not a run folder: it has no config.yaml" if os.path.lexists(folder) else "does not exist"
        raise ConfigError(f"{chosen or repr(chosen)}: {why}; give one of the folders under {paths.OUTPUTS}")
    return folder


def _is_last(chosen: str) -> bool:
    return chosen == "last" and not os.path.lexists(chosen)


def _newest() -> Path:
    """Returns the folder of the newest run under ./outputs, or of its grid or search. Raises ConfigError."""
    folders = list(_run_folders(paths.OUTPUTS))
    if not folders:
        raise ConfigError(f"last: there is no run under {paths.OUTPUTS.absolute()}; give a run folder")
    newest = max(folders)
    return newest.parent if is_sweep(newest.parent) else newest


def best_of(sweep: Path) -> Path:
    """Returns a sweep's best run in the deciding metric, the first of equals. Raises ConfigError."""
    best: tuple[Path, float] | None = None
    for folder in sorted(_run_folders(sweep)):
        run = read(folder)
        metric = run.summary.get("metric")
        value = run.value(metric) if run.status == USED and isinstance(metric, str) else None
        better = run.better(str(metric)) or metrics.direction(str(metric))
        if value is not None and (best is None or metrics.improves(better, value, best[1])):
            best = folder, value
    if best is None:
        raise ConfigError(f"{sweep}: none of its runs is finished; give one of the folders in it")
    return best[0]


def cut_off(sweep: Path) -> str | None:
    """Returns the command that resumes a grid or search, if one of its trials is unfinished."""
    trials = (read_json(sweep / SWEEP) or {}).get("trials")
    names = [trial.get("folder") for trial in trials if isinstance(trial, dict)] if isinstance(trials, list) else []
    folders = {sweep / name for name in names if isinstance(name, str)} | {*_run_folders(sweep)}
    is_open = any(read(folder).status in ("unfinished", "interrupted") for folder in folders)
    return command_of(sweep) if is_open else None


def command_of(sweep: Path) -> str:
    """Returns the command as it was typed; typing it again resumes the sweep."""
    return str((read_json(sweep / SWEEP) or {}).get("command", "the one that began it"))


def is_sweep(folder: Path) -> bool:
    """Returns whether a folder is a grid's or a search's."""
    return os.path.isfile(f"{folder}/{SWEEP}")


def is_run(folder: Path) -> bool:
    """Returns whether a folder is a run's: it has config.yaml, a run's first file, or summary.json."""
    return any(os.path.isfile(f"{folder}/{name}") for name in (CONFIG, SUMMARY))


def read(folder: Path) -> PastRun:
    """Reads one run folder; leaves out what is missing or damaged."""
    summary = read_json(folder / SUMMARY) or {}
    status = summary.get("status")
    settings = summary.get("settings")
    if not isinstance(settings, dict) or not settings:
        settings = _settings_of_config(folder)
    seeds = [seed for seed in (settings.get("seed"), summary.get("seed")) if type(seed) is int]
    return PastRun(
        folder, status if isinstance(status, str) else "unfinished", settings, summary, seeds[0] if seeds else None
    )


def _matching_folders(pattern: str) -> list[Path]:
    """Returns the folders of an argument: itself, or the matches of a pattern. Raises ConfigError."""
    if not pattern.strip():
        raise ConfigError(f"'' is not a folder; give one of those under {paths.OUTPUTS}, or none for all of them")
    start = _newest() if _is_last(pattern) else Path(os.path.expanduser(pattern))
    if start.is_dir():
        return [start]
    if os.path.lexists(start):
        raise ConfigError(f"{pattern}: is not a folder; give a run, a sweep, or a folder of them")
    if not glob.has_magic(pattern):
        hint = "make a run with dltips train, or give" if pattern == str(paths.OUTPUTS) else "give"
        raise ConfigError(f"{pattern}: does not exist; {hint} a run, a sweep, or a folder of them")
    matched = [Path(name) for name in sorted(glob.glob(str(start), recursive=True)) if os.path.isdir(name)]
    if not matched:
        raise ConfigError(f"{pattern}: the pattern matches no folder; try ls -d {pattern}")
    return matched


def _run_folders(start: Path) -> Iterator[Path]:
    """Yields the run folders in a folder or below it, breadth first, following symbolic links, each folder once."""
    seen: set[str] = set()
    level = [start]
    for _ in range(MAX_DEPTH + 1):
        below: list[Path] = []
        for folder in level:
            true = os.path.realpath(folder)
            if true in seen:
                continue
            seen.add(true)
            if is_run(folder):
                yield folder
            else:
                below += _inside(folder)
        level = below


def _inside(folder: Path) -> list[Path]:
    """Returns the sub-folders, and the folders of finished runs elsewhere that a sweep has taken over."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.path for entry in entries if entry.name[0] != ".")
    except OSError:
        return []
    inside = [Path(name) for name in names if os.path.isdir(name)]  # a link to itself is not a folder, and not an error
    trials = (read_json(folder / SWEEP) or {}).get("trials")
    for trial in trials if isinstance(trials, list) else []:
        name = trial.get("folder") if isinstance(trial, dict) else None
        if isinstance(name, str) and "/" in name:
            elsewhere = Path(os.path.normpath(folder / name))
            if is_run(elsewhere):
                inside.append(elsewhere)
    return inside


def _settings_of_config(folder: Path) -> dict[str, Any]:
    """Returns the settings from config.yaml: of a run that was cut off or predates summary.json's `settings`."""
    import yaml

    from dltips.config.plain import flat  # late: it imports Hydra, 0.15 s

    try:
        # the C loader takes 4 ms a config, the other one 30
        plain = yaml.load((folder / CONFIG).read_bytes(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        return flat(plain) if isinstance(plain, dict) else {}
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return {}


def is_number(value: Any) -> bool:
    """Returns whether it is a number, not a boolean or NaN, whose square does not overflow."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e100 < value < 1e100
