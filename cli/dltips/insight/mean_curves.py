"""Averages a group's curves over its seeds, epoch by epoch, with an interval."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from dltips.insight.groups import RunGroup
from dltips.insight.statistics import mean, spread
from dltips.runs.past_runs import USED, is_number


class Point(NamedTuple):
    """One epoch: the mean over n seeds and its 95 % t interval; low = high = mean where n = 1."""

    epoch: int
    n: int
    mean: float
    low: float
    high: float


def mean_curve(group: RunGroup, metric: str) -> list[Point]:
    """Returns the mean and interval of a metric over the seeds that have that epoch, by epoch.

    Only over finished runs, as in the table of `compare`, once there is one: a lost seed would make the curve jump at
    its end. Repeats of one seed are averaged first; values that are not finite are left out.
    """
    finished = [run for run in group.runs if run.status == USED]
    values: dict[int, list[float]] = defaultdict(list)
    for runs in replace(group, runs=finished or group.runs).seeds().values():
        of_seed: dict[int, list[float]] = defaultdict(list)
        for run in runs:
            for record in run.records():
                if is_number(record.get(metric)):
                    of_seed[record["epoch"]].append(float(record[metric]))
        for epoch, repeats in of_seed.items():
            values[epoch].append(mean(repeats))
    return [_point(epoch, values[epoch]) for epoch in sorted(values)]


def common_epochs(points: Sequence[Point]) -> Sequence[Point]:
    """Returns the curve up to the last epoch of all its seeds; early stopping ends some of them sooner."""
    most = max((point.n for point in points), default=0)
    return points[: max((number for number, point in enumerate(points, 1) if point.n == most), default=0)]


def _point(epoch: int, values: list[float]) -> Point:
    found = spread(values)
    low, high = (found.mean if bound is None else bound for bound in (found.low, found.high))
    return Point(epoch, found.n, found.mean, low, high)
