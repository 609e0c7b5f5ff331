"""How fast dltips trains, beside the tightest PyTorch loop, a tutorial's loop and Lightning: one command, one table.

    python benchmarks/speed.py                            # all contenders, both tasks, 5 rounds
    python benchmarks/speed.py --only digits --peers dltips,dltips-bare --repeats 9

Every start is a process of its own with one thread. Each round starts every contender once, in an order that shifts
from round to round, so that a busy moment of the machine meets all alike. A cell holds the median over the rounds and,
in brackets, the smallest and the largest; a ratio is taken within its round, to the tight loop that ran beside it.

process     from the start of the process to its exit
first step  from the start of the process to the end of its first optimizer step
steady      from there to the end of the last epoch, with validation and the writing of curves
peak        the process's largest resident memory, its exit included (C++ destructors alone touch 110 MB)

The standard library alone, for a child's peak memory starts at what the process that forks it has held.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from task import TASKS, Task

HERE = Path(__file__).resolve().parent
REFERENCE = "tight"
HELP_REPEATS = 10
# one short start of each before the rounds: fills the caches of the disk, and dltips acquires its data
WARM_UP = ("--epochs", "1", "--training-images", "512")


@dataclass(frozen=True)
class Contender:
    """A script that trains a task, and the package it cannot do without."""

    title: str
    script: str
    options: tuple[str, ...] = ()
    needs: str = "torch"
    remedy: str = "pip install -e ."


CONTENDERS = {
    REFERENCE: Contender("the tightest eager PyTorch loop", "tight.py"),
    "dltips-bare": Contender("dltips, validation and scalars only", "ours.py", ("--mode", "bare"), "dltips"),
    "dltips": Contender("dltips, everything a run does", "ours.py", ("--mode", "everything"), "dltips"),
    "tutorial": Contender("a tutorial's loop with DataLoader", "tutorial.py"),
    "lightning": Contender("Lightning, lean", "lightning_loop.py", (), "lightning", "pip install -e '.[bench]'"),
}


@dataclass(frozen=True)
class Measurement:
    """One start of a contender: seconds, megabytes, and validation accuracy in 0..1.

    `cpu`, in the JSON file alone, is what other processes disturb least: user and system seconds of the whole process.
    """

    process: float
    first_step: float
    steady: float
    peak: float
    accuracy: float
    cpu: float


def one_thread() -> dict[str, str]:
    """The environment of a child process."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def measure(contender: Contender, task: Task, data: Path, seed: int, options: tuple[str, ...] = ()) -> Measurement:
    """Start a contender and wait for its end; stop with its complaint when it fails."""
    with tempfile.TemporaryDirectory() as output, tempfile.TemporaryFile("w+") as errors:
        command = [sys.executable, str(HERE / contender.script), task.name, *contender.options, *options]
        command += ["--data", str(data), "--output", output, "--seed", str(seed)]
        started = time.time()
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, env=one_thread(), text=True)
        assert child.stdout is not None
        lines = child.stdout.read().splitlines()
        # wait4, for it alone tells this child's memory apart from that of earlier ones
        _, status, usage = os.wait4(child.pid, 0)
        finished = time.time()
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode != 0:
            errors.seek(0)
            raise SystemExit(f"{' '.join(command)}\nexit {child.returncode}\n{errors.read()}")
    answer = json.loads(lines[-1])
    return Measurement(
        process=finished - started,
        first_step=answer["first_step"] - started,
        steady=answer["end"] - answer["first_step"],
        peak=usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10),
        accuracy=answer["accuracy"],
        cpu=usage.ru_utime + usage.ru_stime,
    )


def measure_all(names: list[str], task: Task, data: Path, repeats: int) -> dict[str, list[Measurement]]:
    """A measurement per contender and round; round r starts with contender r, and trains with seed r."""
    results: dict[str, list[Measurement]] = {name: [] for name in names}
    for name in names:
        print(f"{task.name}, warm-up: {name} ...", file=sys.stderr)
        measure(CONTENDERS[name], task, data, seed=0, options=WARM_UP)
    for round_ in range(repeats):
        first = round_ % len(names)
        for name in names[first:] + names[:first]:
            print(f"{task.name}, round {round_ + 1} of {repeats}: {name} ...", file=sys.stderr)
            results[name].append(measure(CONTENDERS[name], task, data, seed=round_))
    return results


def spread(values: list[float], digits: int) -> str:
    """The median, then the smallest and the largest."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def print_table(task: Task, names: list[str], results: dict[str, list[Measurement]]) -> None:
    """A markdown table with a row per contender, those that are not installed too."""
    columns = ["process s", "ratio", "first step s", "ratio", "steady s", "ratio", "peak MB", "ratio", "val accuracy %"]
    print(f"\n| {task.title} | {' | '.join(columns)} |")
    print("|---" * (len(columns) + 1) + "|")
    for name in names:
        contender = CONTENDERS[name]
        if name not in results:
            print(f"| {contender.title} | not installed ({contender.remedy})" + " |" * len(columns))
            continue
        measurements = results[name]
        cells = []
        for column, digits in (("process", 2), ("first_step", 2), ("steady", 3), ("peak", 0)):
            values = [getattr(measurement, column) for measurement in measurements]
            references = [getattr(measurement, column) for measurement in results[REFERENCE]]
            ratios = [value / reference for value, reference in zip(values, references, strict=True)]
            cells += [spread(values, digits), f"{statistics.median(ratios):.2f}"]
        cells.append(spread([100 * measurement.accuracy for measurement in measurements], 1))
        print(f"| {contender.title} | {' | '.join(cells)} |")


def time_help() -> list[float] | None:
    """Seconds that `dltips --help` takes, for the executable beside this Python; None where there is none."""
    executable = Path(sys.executable).parent / "dltips"
    if not executable.is_file():
        return None
    seconds = []
    for _ in range(HELP_REPEATS):
        started = time.time()
        subprocess.run([executable, "--help"], stdout=subprocess.DEVNULL, env=one_thread(), check=True)
        seconds.append(time.time() - started)
    return seconds


def acquire(task: Task, data: Path) -> None:
    """The arrays of a task, where they are not there yet."""
    if not (data / "benchmarks" / f"{task.name}-labels.npy").is_file():
        subprocess.run([sys.executable, str(HERE / "data.py"), task.name, "--data", str(data)], check=True)


def names_among(contenders: Collection[str]) -> Callable[[str], list[str]]:
    """Reads the names in a comma-separated list, the reference always first among them."""

    def names(text: str) -> list[str]:
        for name in text.split(","):
            if name not in contenders:
                raise argparse.ArgumentTypeError(f"{name}: no contender; there are {', '.join(contenders)}")
        return list(dict.fromkeys([REFERENCE, *text.split(",")]))

    return names


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--repeats", type=int, default=5, help="rounds (default: 5)")
    options.add_argument("--only", choices=TASKS, help="one task instead of both")
    options.add_argument(
        "--data",
        type=Path,
        default=Path(os.environ.get("DLTIPS_DATA", "~/.cache/dltips/data")).expanduser(),
        help="folder of the data sets (default: DLTIPS_DATA, else ~/.cache/dltips/data)",
    )
    options.add_argument(
        "--peers",
        type=names_among(CONTENDERS),
        default=list(CONTENDERS),
        help=f"comma-separated contenders (default: {','.join(CONTENDERS)})",
    )
    options.add_argument("--json", type=Path, help="file for every single measurement")
    arguments = options.parse_args()
    data = arguments.data.resolve()
    installed = [name for name in arguments.peers if importlib.util.find_spec(CONTENDERS[name].needs)]
    results = {}
    for task in [TASKS[arguments.only]] if arguments.only else TASKS.values():
        acquire(task, data)
        results[task.name] = measure_all(installed, task, data, arguments.repeats)
        print_table(task, arguments.peers, results[task.name])
    help_seconds = time_help()
    print()
    if help_seconds is not None:
        print(f"dltips --help: {spread(help_seconds, 3)} s, median of {HELP_REPEATS}")
    print(
        f"medians of {arguments.repeats} (smallest-largest), one thread per process, {os.cpu_count()} cores,"
        f" Python {platform.python_version()}, torch {version('torch')}"
    )
    if arguments.json:
        rows = {
            task: {name: [vars(one) for one in many] for name, many in by_name.items()}
            for task, by_name in results.items()
        }
        arguments.json.write_text(json.dumps({"results": rows, "help": help_seconds}, indent=1) + "\n")


if __name__ == "__main__":
    main()
