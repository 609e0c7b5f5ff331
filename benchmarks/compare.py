"""How long `dltips compare` takes on many runs: copies of a few real ones, with other seeds and settings.

    python benchmarks/compare.py [--runs 1000]

Prints a line per command: the median of 5 wall times of the whole process, and its peak memory.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COPIED = ("config.yaml", "environment.json", "metrics.jsonl")
INITS, RATES = ("he", "xavier", "orthogonal", "lsuv", "zeros"), (0.3, 0.1, 0.03, 0.01)
COMMANDS = (
    ["compare", "runs"],
    ["compare", "runs", "--by", "init", "--json"],
    ["compare", "runs", "--plot", "curves.png"],
)
MEASURED = """
import resource, sys
from dltips.main import main
code = main(sys.argv[1:])
print(f"PEAK {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f}", file=sys.stderr)
print("LOADED", *sorted({"torch", "pandas", "tensorboard", "hydra"} & set(sys.modules)), file=sys.stderr)
sys.exit(code)
"""


def make_real(folder: Path, count: int) -> list[Path]:
    """A few runs of 30 epochs, as they come."""
    command = [sys.executable, "-m", "dltips", "train", "+recipe=quickstart", "log.pictures=none"]
    for seed in range(count):
        subprocess.run([*command, f"seed={seed}"], cwd=folder, check=True, capture_output=True)
    return sorted(path.parent for path in folder.glob("outputs/*/summary.json"))


def multiply(real: list[Path], target: Path, count: int) -> None:
    """`count` run folders of 5 inits and 4 rates; one in fifty has no summary, as if it had been cut off."""
    draw = random.Random(0)
    target.mkdir()
    for number in range(count):
        source, place = real[number % len(real)], target / f"{number:04d}-{draw.getrandbits(32):08x}"
        place.mkdir()
        for name in COPIED:
            (place / name).write_bytes((source / name).read_bytes())
        if number % 50 == 49:
            continue
        summary = json.loads((source / "summary.json").read_text())
        groups = len(INITS) * len(RATES)
        chosen = {"init": INITS[number % len(INITS)], "optimizer.lr": RATES[number // len(INITS) % len(RATES)]}
        summary["settings"] |= {"seed": number // groups, **chosen}
        summary["best"]["val/accuracy"] -= draw.random() / 50
        (place / "summary.json").write_text(json.dumps(summary, indent=2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        multiply(make_real(folder, 3), folder / "runs", chosen.runs)
        for command in COMMANDS:
            times, said = [], ""
            for _ in range(5):
                start = time.perf_counter()
                done = subprocess.run(
                    [sys.executable, "-c", MEASURED, *command],
                    cwd=folder, capture_output=True, text=True, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
                )  # fmt: skip
                times.append(time.perf_counter() - start)
                said = done.stderr
            peak = said.split("PEAK ")[1].split()[0]
            loaded = said.split("LOADED")[1].split()
            spread = f"{statistics.median(times):.2f} s ({min(times):.2f}-{max(times):.2f})"
            print(f"{' '.join(command):<32} {spread:<22} {peak:>5} MB  loaded: {' '.join(loaded) or 'none of them'}")


if __name__ == "__main__":
    main()
