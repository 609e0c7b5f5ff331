"""How long a grid takes: 16 seeds of the digits mlp, by dltips train -m, the tight loop, and Lightning with Hydra's -m.

    python benchmarks/sweep.py                            # all contenders, 3 rounds
    python benchmarks/sweep.py --only ours,tight,workers,lightning --rounds 5

The contenders take turns as those of speed.py do, with one thread per process. A cell holds the median over the rounds
and, in brackets, the smallest and the largest; a ratio is taken within its round, to the tight loop that ran beside it.

wall      from the start of the command to its exit, with everything written
training  the sum over the runs, of the same in each: from just before the first epoch to the end of the last one, with
          each epoch's order, steps, means, validation and its line in a file. Before it lie reading data and building
          the net, after it TensorBoard's events (the tight loop and short runs of dltips write them at the end).
          dltips: `seconds` of summary.json, where default settings measure each epoch's layers besides, `bare` not.
          Lightning: from on_train_start to on_train_end, with its logger and checkpoints. Workers: both at once.
cpu       user and system seconds of the command with its workers: what other processes disturb least
peak      largest resident memory of any one process of the command
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from speed import acquire, names_among, one_thread, spread
from task import DIGITS, Run

HERE = Path(__file__).resolve().parent
REFERENCE = "tight"
SEEDS = 16


@dataclass(frozen=True)
class Contender:
    """How a sweep is started, and what it says of its training."""

    title: str
    command: Callable[[Path, Path, int], list[str]]  # data, an empty folder, seeds
    training: Callable[[str, Path, int], float]  # seconds, of its output and its folder
    needs: str = "torch"
    remedy: str = "pip install -e ."


@dataclass(frozen=True)
class Measurement:
    """One sweep: seconds, and the peak in MB."""

    wall: float
    training: float
    cpu: float
    peak: float


def script(name: str) -> Callable[[Path, Path, int], list[str]]:
    """A sweep of the peers: one script, one process."""

    def command(data: Path, output: Path, seeds: int) -> list[str]:
        arguments = ["--data", str(data), "--output", str(output), "--seeds", str(seeds)]
        return [sys.executable, str(HERE / name), DIGITS.name, *arguments]

    return command


def dltips(*options: str) -> Callable[[Path, Path, int], list[str]]:
    """The task of speed.py on dltips' command line."""

    def command(data: Path, output: Path, seeds: int) -> list[str]:
        from ours import overrides

        settings = [text for text in overrides(Run(DIGITS, data, output, 0)) if not text.startswith("seed=")]
        return [sys.executable, "-m", "dltips", "train", "-m", *settings, f"seed=range({seeds})", *options]

    return command


def answered(text: str, output: Path, seeds: int) -> float:
    """From the last line of a peer's output."""
    training = json.loads(text.splitlines()[-1])["training"]
    assert len(training) == seeds
    return float(sum(training))


def summed_up(text: str, output: Path, seeds: int) -> float:
    """From the summaries of dltips' runs, each of them whole."""
    summaries = [json.loads(file.read_text()) for file in output.glob("outputs/*/*/summary.json")]
    assert [summary["status"] for summary in summaries] == ["finished"] * seeds
    return float(sum(summary["seconds"] for summary in summaries))


BARE = ("log.layers=false", "log.images=false", "log.pictures=none")
CONTENDERS = {
    REFERENCE: Contender("the tight loop, seed by seed in one process", script("tight_sweep.py"), answered),
    "ours": Contender("dltips train -m", dltips(), summed_up, "dltips"),
    "bare": Contender("dltips train -m, validation and scalars only", dltips(*BARE), summed_up, "dltips"),
    "workers": Contender("dltips train -m --workers 2", dltips("--workers", "2"), summed_up, "dltips"),
    "lightning": Contender(
        "Lightning with Hydra's -m", script("lightning_sweep.py"), answered, "lightning", "pip install -e '.[bench]'"
    ),
}


def measure(contender: Contender, data: Path, seeds: int) -> Measurement:
    """Start a sweep and wait for its end; stop with its complaint when it fails."""
    with (
        tempfile.TemporaryDirectory() as folder,
        tempfile.TemporaryFile("w+") as output,
        tempfile.TemporaryFile("w+") as errors,
    ):
        command = contender.command(data, Path(folder), seeds)
        environment = {**one_thread(), "DLTIPS_DATA": str(data)}
        started = time.perf_counter()
        child = subprocess.Popen(command, stdout=output, stderr=errors, env=environment, cwd=folder)
        # wait4, for it alone tells this child's memory apart from that of earlier ones
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.perf_counter() - started
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode != 0:
            errors.seek(0)
            raise SystemExit(f"{' '.join(command)}\nexit {child.returncode}\n{errors.read()}")
        output.seek(0)
        training = contender.training(output.read(), Path(folder), seeds)
    peak = usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    return Measurement(wall, training, usage.ru_utime + usage.ru_stime, peak)


def measure_all(names: list[str], data: Path, rounds: int) -> dict[str, list[Measurement]]:
    """A measurement per contender and round, after a sweep over one seed each; round r starts with contender r."""
    results: dict[str, list[Measurement]] = {name: [] for name in names}
    for name in names:
        print(f"warm-up: {name} ...", file=sys.stderr)
        measure(CONTENDERS[name], data, 1)
    for round_ in range(rounds):
        first = round_ % len(names)
        for name in names[first:] + names[:first]:
            print(f"round {round_ + 1} of {rounds}: {name} ...", file=sys.stderr)
            results[name].append(measure(CONTENDERS[name], data, SEEDS))
    return results


def print_table(names: list[str], results: dict[str, list[Measurement]]) -> None:
    """A markdown table with a row per contender, those that are not installed too."""
    columns = ["wall s", "ratio", "training s", "ratio", "cpu s", "ratio", "peak MB"]
    print(f"\n| {SEEDS} seeds of the {DIGITS.title} | {' | '.join(columns)} |")
    print("|---" * (len(columns) + 1) + "|")
    for name in names:
        contender = CONTENDERS[name]
        if name not in results:
            print(f"| {contender.title} | not installed ({contender.remedy})" + " |" * len(columns))
            continue
        cells = []
        for column in ("wall", "training", "cpu"):
            values = [getattr(measurement, column) for measurement in results[name]]
            references = [getattr(measurement, column) for measurement in results[REFERENCE]]
            ratios = [value / reference for value, reference in zip(values, references, strict=True)]
            cells += [spread(values, 1), spread(ratios, 2)]
        cells.append(spread([measurement.peak for measurement in results[name]], 0))
        print(f"| {contender.title} | {' | '.join(cells)} |")
    for name in ("workers", "lightning"):
        if name in results and "ours" in results:
            pairs = zip(results[name], results["ours"], strict=True)
            print(f"\nwall of {name} / wall of ours: {spread([one.wall / ours.wall for one, ours in pairs], 2)}")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=3, help="sweeps of each contender (default: 3)")
    options.add_argument(
        "--only",
        type=names_among(CONTENDERS),
        default=list(CONTENDERS),
        help=f"comma-separated contenders (default: {','.join(CONTENDERS)})",
    )
    options.add_argument(
        "--data",
        type=Path,
        default=Path(os.environ.get("DLTIPS_DATA", "~/.cache/dltips/data")).expanduser(),
        help="folder of the data sets (default: DLTIPS_DATA, else ~/.cache/dltips/data)",
    )
    options.add_argument("--json", type=Path, help="file for every single measurement")
    arguments = options.parse_args()
    data = arguments.data.resolve()
    acquire(DIGITS, data)
    results = measure_all(
        [name for name in arguments.only if importlib.util.find_spec(CONTENDERS[name].needs)], data, arguments.rounds
    )
    print_table(arguments.only, results)
    print(
        f"\nmedians of {arguments.rounds} (smallest-largest), one thread per process, {os.cpu_count()} cores,"
        f" Python {platform.python_version()}, torch {version('torch')}"
    )
    if arguments.json:
        rows = {name: [vars(one) for one in many] for name, many in results.items()}
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
