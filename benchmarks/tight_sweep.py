"""The tight loop of tight.py once for each of a number of seeds, one after another in one process."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from torch import Tensor, nn

import tight


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("task")
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--output", type=Path, required=True)
    options.add_argument("--seeds", type=int, required=True)
    arguments = options.parse_args()
    flatten = tight.flatten
    begun: list[float] = []
    ended: list[float] = []

    def watched_flatten(net: nn.Module) -> tuple[Tensor, Tensor]:
        buffers = flatten(net)
        begun.append(time.time())  # what comes after it is the first epoch
        return buffers

    def watched_report(first_step: float, end: float, accuracy: float) -> None:
        ended.append(end)

    tight.flatten, tight.report = watched_flatten, watched_report
    for seed in range(arguments.seeds):
        output = arguments.output / str(seed)
        output.mkdir()
        sys.argv = [sys.argv[0], arguments.task, "--data", str(arguments.data), "--output", str(output)]
        sys.argv += ["--seed", str(seed)]
        tight.main()
    print(json.dumps({"training": [end - begin for begin, end in zip(begun, ended, strict=True)]}))


if __name__ == "__main__":
    main()
