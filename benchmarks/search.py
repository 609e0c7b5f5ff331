"""TPE with ASHA beside plain random search on Fashion-MNIST: trial-epochs until the same best score.

    DLTIPS_DATA=... python benchmarks/search.py
    python benchmarks/search.py --data digits --searches 2 --trials 6 --epochs 3    # a try, in a minute

Both search the same space by `dltips sweep`: learning rate and weight decay by orders of magnitude, momentum,
activation, init and batch size of a small mlp. Random search trains all of its trials to the end; its best validation
accuracy is the goal. TPE with ASHA gets as many trial-epochs at the most, in as many trials as they last for, and is
asked when a trial that ran to its end first reached the goal. The first ten trials of both draw alike. Repeated with
several seeds, since a single search is luck; where the goal was not reached, the whole budget counts, marked by a >.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dltips.main import main as dltips
from dltips.runs import folder

SPACE = (
    "optimizer.lr=tag(log,interval(1e-4,1))",
    "optimizer.momentum=interval(0,0.99)",
    "regularization=[weight_decay]",
    "regularization.weight_decay.strength=tag(log,interval(1e-6,1e-2))",
    "activation=relu,tanh,gelu",
    "init=he,xavier,small_random",
    "batch_size=64,128,256",
)


@dataclass(frozen=True)
class Told:
    """A trial: the epochs that it took, and its best score, nan if it was pruned or failed."""

    epochs: int
    score: float


def searched(arguments: argparse.Namespace, seed: int, trials: int, *own: str) -> list[Told]:
    """One search, its trials in order."""
    runs = [f"data={arguments.data}", "model=mlp", f"model.widths=[{arguments.width}]", "schedule=cosine"]
    runs += [f"epochs={arguments.epochs}", f"seed={seed}", "log.tensorboard=false", "log.layers=false"]
    command = ["sweep", *runs, "log.pictures=none", *SPACE, *own, f"trials={trials}", f"--workers={arguments.workers}"]
    if arguments.subset is not None:
        command.append(f"data.subset={arguments.subset}")
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        try:
            code = dltips(command)
            assert code in (0, 5), code
            return [told(run.parent) for run in sorted(Path("outputs").glob("*/*/config.yaml"))]
        finally:
            os.chdir(here)


def told(run: Path) -> Told:
    summary = folder.read_summary(run) or {}
    whole = summary.get("status") == "finished"
    score = float(summary["best"]["val/accuracy"]) if whole else float("nan")
    return Told(len(folder.read_metrics(run)), score)


def spent_until(trials: Sequence[Told], goal: float, budget: int) -> tuple[int, bool]:
    """Trial-epochs until a trial reached the goal, and whether one did within the budget."""
    spent = 0
    for trial in trials:
        spent += trial.epochs
        if spent > budget:
            break
        if trial.score >= goal:
            return spent, True
    return budget, False


def best(trials: Sequence[Told], budget: int) -> float:
    """Within the budget."""
    spent, found = 0, float("-inf")
    for trial in trials:
        spent += trial.epochs
        if spent <= budget and trial.score > found:
            found = trial.score
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", default="fashion_mnist")
    parser.add_argument("--subset", type=int, default=None, help="samples, as data.subset takes them")
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--searches", type=int, default=5)
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument(
        "--workers", type=int, default=1, help="with 2, TPE knows one trial less when it draws the next"
    )
    arguments = parser.parse_args()
    rows = []
    for seed in range(arguments.searches):
        # the seeds of the searches, and so of their runs, are the same for both
        random = searched(arguments, seed, arguments.trials, "sampler=random")
        budget = sum(trial.epochs for trial in random)
        goal = best(random, budget)
        first, _ = spent_until(random, goal, budget)
        # an ASHA trial takes an epoch at the least: with three times the trials the budget is spent
        guided = searched(arguments, seed, 3 * arguments.trials, "sampler=tpe", "pruner=asha")
        spent, reached = spent_until(guided, goal, budget)
        rows.append((seed, goal, first, budget, spent, reached, best(guided, budget)))
        print(f"search {seed}: {rows[-1]}", file=sys.stderr, flush=True)
    print("search  random's best  reached after  of all  tpe+asha reaches it after  its best in as many")
    for seed, goal, first, budget, spent, reached, other in rows:
        after = f"{spent}" if reached else f">{spent}"
        print(f"{seed:>6}  {goal:>13.4f}  {first:>13}  {budget:>6}  {after:>26}  {other:>22.4f}")
    reached_in = sum(row[5] for row in rows)
    for name, counts in (
        ("random search took to its best", [row[2] for row in rows]),
        ("random search took in all", [row[3] for row in rows]),
    ):
        ratios = [count / row[4] for count, row in zip(counts, rows, strict=True)]
        print(
            f"{name} {statistics.median(ratios):.1f} times as many trial-epochs as TPE with ASHA to the same score"
            f" (median; {min(ratios):.1f} to {max(ratios):.1f})"
        )
    print(f"the goal was reached in {reached_in} of {len(rows)} searches")


if __name__ == "__main__":
    main()
