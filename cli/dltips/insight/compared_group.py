"""Records of one group of a comparison, which comparison.py computes: seeds, spread, difference to the reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from dltips.insight.groups import RunGroup
from dltips.insight.statistics import Spread
from dltips.runs.past_runs import PastRun


@dataclass(frozen=True)
class ComparedGroup:
    """One group. `spread` is over its seeds, None without a finished run; `difference` is to the reference.

    `lost` are the runs that diverged or failed, or did not reach the compared goal, unless another run of their seed
    and settings replaces them.
    """

    group: RunGroup
    used: Sequence[PastRun]
    by_seed: Mapping[int | str, float] = field(repr=False)
    spread: Spread | None
    seconds: float | None
    size_mb: float | None
    left_out: Mapping[str, int]
    lost: Sequence[PastRun] = ()
    difference: float | None = None
    pairs: int = 0
    p_alone: float | None = None
    p: float | None = None
    reference: bool = False

    @property
    def n(self) -> str:
        """The number of seeds, `4/8` if some were lost; if seeds were lost in part (--by), of runs."""
        if not self.lost:
            return str(len(self.by_seed))
        seeds = set(replace(self.group, runs=self.lost).seeds())
        if seeds & set(self.by_seed):
            return f"{len(self.used)}/{len(self.used) + len(self.lost)}"
        return f"{len(self.by_seed)}/{len(self.by_seed) + len(seeds)}"
