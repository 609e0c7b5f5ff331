"""What stands for n in a comparison's table: the seeds, and how many of them were lost."""

from pathlib import Path

import pytest

from dltips.insight.compared_group import ComparedGroup
from dltips.insight.groups import RunGroup
from dltips.runs.past_runs import PastRun


def run(name: str, seed: int | None) -> PastRun:
    return PastRun(Path(name), "finished", {"seed": seed}, {}, seed)


@pytest.mark.parametrize(
    ("used", "lost", "shown"),
    [
        ([0, 1, 2], [], "3"),
        ([0, 1, 2], [3], "3/4"),
        ([0, 1], [2, 2], "2/3"),  # two runs of one seed were lost
        ([0, 0, 1], [1], "3/4"),  # a seed was lost in part: runs are counted
        ([None], [None], "1/2"),  # runs whose seed is not known stand for themselves
    ],
)
def test_n_counts_seeds(used: list[int | None], lost: list[int | None], shown: str) -> None:
    runs = [run(f"used{number}", seed) for number, seed in enumerate(used)]
    gone = [run(f"lost{number}", seed) for number, seed in enumerate(lost)]
    group = RunGroup("all", {}, [*runs, *gone])
    by_seed = {str(one.path) if one.seed is None else one.seed: 0.5 for one in runs}
    assert ComparedGroup(group, runs, by_seed, None, None, None, {}, lost=gone).n == shown
