"""The two tasks that every contender trains, the command line that starts one, and the line it answers with.

A contender is a script that speed.py starts as `python SCRIPT TASK --data DIR --output DIR ...` and that prints one
JSON line: the wall clock after its first optimizer step and at the end of its last epoch, and its validation accuracy.
Standard library only, for speed.py imports it too and has to stay small (see speed.py).
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path


@dataclass(frozen=True)
class Task:
    """What is trained: SGD with momentum at a constant rate, validated after each epoch."""

    name: str
    title: str
    epochs: int
    training_images: int
    validation_images: int
    batch_size: int
    validation_batch_size: int
    learning_rate: float
    mean: float  # of the training images' pixels, in the units they are stored in
    std: float
    momentum: float = 0.9


DIGITS = Task(
    name="digits",
    title="digits mlp (64-128-128-10, batch norm, SGD, batch 64, 690 steps)",
    epochs=30,
    training_images=1437,  # 80 % of 1797; 23 batches, the last one of 29
    validation_images=180,
    batch_size=64,
    validation_batch_size=180,
    learning_rate=0.1,
    mean=4.884,
    std=6.017,
)

FASHION = Task(
    name="fashion",
    title="Fashion-MNIST cnn (32-64-128, batch norm, flip and crop, SGD, batch 256)",
    epochs=2,
    training_images=12800,  # a part of the 54000, for a step takes 0.1 s
    validation_images=2560,
    batch_size=256,
    # from 512 on an activation exceeds 32 MB, above which malloc by default takes new pages from the kernel each time:
    # an image then takes 1.5 to 2 times as long as in a batch of 256
    validation_batch_size=256,
    learning_rate=0.05,
    mean=72.94,
    std=90.02,
)

TASKS = {task.name: task for task in (DIGITS, FASHION)}


@dataclass(frozen=True)
class Run:
    """One start of a contender."""

    task: Task
    data: Path  # folder of the data sets, see data.py
    output: Path  # an empty folder for curves and event files
    seed: int


def parser() -> argparse.ArgumentParser:
    """The options of every contender; one with more of them adds its own."""
    options = argparse.ArgumentParser()
    options.add_argument("task", choices=TASKS)
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--output", type=Path, required=True)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--epochs", type=int)
    options.add_argument("--training-images", type=int)
    options.add_argument("--validation-images", type=int)
    return options


def run_of(arguments: argparse.Namespace) -> Run:
    """The run that parsed arguments ask for; what they leave out is the task's default."""
    sizes = {
        name: value
        for name in ("epochs", "training_images", "validation_images")
        if (value := getattr(arguments, name)) is not None
    }
    return Run(replace(TASKS[arguments.task], **sizes), arguments.data, arguments.output, arguments.seed)


def report(first_step: float, end: float, accuracy: float) -> None:
    """Answer speed.py: time.time() after the first step and after the last epoch, validation accuracy in 0..1."""
    print(json.dumps({"first_step": first_step, "end": end, "accuracy": accuracy}), flush=True)
