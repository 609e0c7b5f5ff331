"""What a second process brings on this machine, and that the curve stays: one run with devices=1 and with devices=N.

    DLTIPS_DATA=FOLDER python benchmarks/devices.py                  # 3 rounds, devices 1 and 2
    DLTIPS_DATA=FOLDER python benchmarks/devices.py --devices 4 --device cuda

Two nets: the digits mlp, whose steps are too short for it to pay on a CPU, and a cnn without batch norm on 10,000
images of Fashion-MNIST with flip and crop. Each process has its share of the cores. A cell is the median over the
rounds of the samples per second in the epochs after the first; `difference` is the largest relative one between the two
runs' training losses, which rounding alone moves apart: devices=2 has the bits of accumulate=2.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

QUIET = ["log.tensorboard=false", "log.layers=false", "log.pictures=none", "model.norm=none"]
TASKS = {
    "digits mlp": ["+recipe=quickstart", "epochs=8", *QUIET],
    "fashion cnn": [
        *("data=fashion_mnist", "data.subset=10000", "model=cnn", "augmentation=[flip,crop]"),
        *("batch_size=256", "optimizer.lr=0.02", "epochs=3", *QUIET),
    ],
}


def records(overrides: list[str]) -> list[dict[str, Any]]:
    """A run's lines of metrics.jsonl."""
    with tempfile.TemporaryDirectory() as place:
        subprocess.run(
            [sys.executable, "-m", "dltips", "train", *overrides], cwd=place, check=True, stdout=subprocess.DEVNULL
        )
        (run,) = (Path(place) / "outputs").iterdir()
        return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devices", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    print(f"{os.cpu_count()} cores, device={asked.device}, {asked.rounds} rounds")
    print(f"{'task':<14}{'devices=1':>12}{f'devices={asked.devices}':>12}{'ratio':>8}{'difference':>14}")
    for task, overrides in TASKS.items():
        speeds: dict[int, list[float]] = {1: [], asked.devices: []}
        losses: dict[int, list[float]] = {}
        for _ in range(asked.rounds):
            for count, seen in speeds.items():
                lines = records([*overrides, f"device={asked.device}", f"devices={count}"])
                seen += [line["samples_per_second"] for line in lines[1:]]
                losses[count] = [line["train/loss"] for line in lines]
        one, several = (statistics.median(seen) for seen in speeds.values())
        difference = max(abs(a - b) / a for a, b in zip(*losses.values(), strict=True))
        print(f"{task:<14}{one:>10,.0f}/s{several:>10,.0f}/s{several / one:>8.2f}{difference:>14.1e}", flush=True)


if __name__ == "__main__":
    main()
