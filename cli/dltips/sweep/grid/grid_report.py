"""Reports a grid: a label for each trial, and at the end the table and the best one."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from dltips.formatting import columns, label, override_text
from dltips.metrics import direction
from dltips.sweep.trial import ENDED, Trial, TrialOutcome

SHOWN = 30  # rows; dltips compare shows all of a larger grid


def ranked(outcomes: Mapping[int, TrialOutcome], metric: str) -> list[int]:
    """Returns the numbers of the trials, best first; failed ones and those without a score last."""
    sign = -1.0 if direction(metric) == "higher" else 1.0

    def rank(number: int) -> tuple[bool, float, int]:
        outcome = outcomes[number]
        score = outcome.score if outcome.status in ENDED else None
        return (score is None, math.inf if score is None else sign * score, number)

    return sorted(outcomes, key=rank)


def report(
    trials: Sequence[Trial], outcomes: Mapping[int, TrialOutcome], metric: str, best: TrialOutcome | None, place: Path
) -> str:
    """Returns the report: the trials, best first, those not run, the best one, and the next commands."""
    varied = list(trials[0].varied)
    order = ranked(outcomes, metric)
    rows = [("trial", *varied, metric, "epoch", "seconds", "")]
    for number in order[:SHOWN]:
        outcome, trial = outcomes[number], trials[number]
        note = "" if outcome.status == "finished" else outcome.status
        score = "-" if outcome.score is None else f"{outcome.score:.4f}"
        epoch = "-" if outcome.epoch is None else str(outcome.epoch)
        cells = [override_text(trial.varied[key]) for key in varied]
        rows.append((str(number), *cells, score, epoch, f"{outcome.seconds:.1f}", note))
    lines = ["", *columns(rows)]
    if len(order) > SHOWN:
        lines.append(f"... and {len(order) - SHOWN} more: dltips compare {place}")
    counts = Counter(outcome.status for outcome in outcomes.values())
    counts["not run"] = len(trials) - len(outcomes)
    lines += ["", ", ".join(f"{count} {status}" for status, count in counts.items() if count)]
    failed = [outcomes[number] for number in sorted(outcomes) if outcomes[number].error]
    lines += [f"trial {outcome.number}  {outcome.status}: {outcome.error}" for outcome in failed[:5]]
    if len(failed) > 5:
        lines.append(f"... and {len(failed) - 5} more: see {place}/*/summary.json")
    if best is not None:
        what = label(trials[best.number].varied)
        lines.append(f"best      trial {best.number}: {what}, {metric} {best.score:.4f} at epoch {best.epoch}")
        lines.append(f"folder    {best.path}")
    if counts["failed"] + counts["diverged"]:
        lines.append("retry     the same command with --retry runs what failed again")
    if counts["interrupted"] + counts["not run"]:
        lines.append("resume    the same command goes on: what is finished stays as it is")
    lines.append(f"compare   dltips compare {place}")
    lines.append(f"board     dltips board {place}")
    return "\n".join(lines)
