"""dltips train as its command line runs it, with two looks at the clock: after the first step and the last epoch."""

from __future__ import annotations

import os
import time
from typing import Any

from dltips.commands import train
from dltips.main import main as dltips
from task import Run, parser, report, run_of

# what the other contenders do too: validation, and scalars for TensorBoard
BARE = ["log.layers=false", "log.images=false", "log.pictures=none", "checkpoint.interval=1000000"]

# images outside an official test set, of which dltips takes a share for validation
IMAGES = {"digits": 1797, "fashion": 60000}
MODELS = {
    "digits": ["data=digits", "model=mlp", "model.widths=[128,128]"],
    "fashion": ["data=fashion_mnist", "model=cnn", "model.widths=[32,64,128]", "augmentation=[flip,crop]"],
}


class Stopwatch:
    """Times and the last validation accuracy of the one training in this process."""

    first_step = 0.0
    end = 0.0
    accuracy = 0.0

    def watch(self) -> None:
        """Wrap the first training step and the whole fit; the steps after the first run unwrapped."""
        from dltips.train import fit, loop

        train_step, whole_fit = loop.train_step, fit.fit

        def first_step(*arguments: Any) -> None:
            train_step(*arguments)
            loop.train_step = train_step
            self.first_step = time.time()

        def timed_fit(*arguments: Any, **options: Any) -> fit.Result:
            result = whole_fit(*arguments, **options)
            self.end = time.time()
            self.accuracy = result.records[-1]["val/accuracy"]
            return result

        loop.train_step, fit.fit = first_step, timed_fit


def overrides(run: Run) -> list[str]:
    """The task in dltips' words."""
    task = run.task
    return [
        *MODELS[task.name],
        f"data.subset={task.training_images}",
        f"data.val_fraction={task.validation_images / IMAGES[task.name]}",
        "init=default",
        "optimizer=sgd",
        f"optimizer.lr={task.learning_rate}",
        f"optimizer.momentum={task.momentum}",
        "schedule=constant",
        f"epochs={task.epochs}",
        f"batch_size={task.batch_size}",
        f"seed={run.seed}",
        "device=cpu",
    ]


def main() -> None:
    options = parser()
    options.add_argument("--mode", choices=["everything", "bare"], required=True)
    arguments = options.parse_args()
    run = run_of(arguments)
    stopwatch = Stopwatch()
    one_run = train._one_run

    def watched_run(*composed: Any) -> int:
        # here and not earlier, so that torch is imported at the moment that dltips chooses
        stopwatch.watch()
        return one_run(*composed)

    train._one_run = watched_run
    os.environ["DLTIPS_DATA"] = str(run.data)
    os.chdir(run.output)  # runs are written to ./outputs
    code = dltips(["train", *overrides(run), *(BARE if arguments.mode == "bare" else [])])
    if code != 0:
        raise SystemExit(code)
    report(stopwatch.first_step, stopwatch.end, stopwatch.accuracy)


if __name__ == "__main__":
    main()
