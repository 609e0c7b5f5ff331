"""A sweep over seeds as lightning-hydra-template does it: Hydra's -m, its basic launcher, a job per seed, one process.

Hydra composes and instantiates net, trainer, callbacks and logger for each job; torchmetrics keep the means; the
callbacks are the template's: checkpoints of the best and the last epoch, a summary of the net, a progress bar. Left
out is its early stopping, which would end runs at different epochs.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import hydra
import lightning
import torch
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchmetrics import MaxMetric, MeanMetric
from torchmetrics.classification.accuracy import Accuracy

from data import load
from task import TASKS, Run
from tutorial import Batch, datasets

SECONDS: list[float] = []  # of each job's training


class Classifier(lightning.LightningModule):
    """The template's module: a net, its loss, its metrics, and the time that its training takes."""

    def __init__(self, net: nn.Module, optimizer: Callable[..., torch.optim.Optimizer], classes: int) -> None:
        super().__init__()
        self.net = net
        self.optimizer = optimizer
        self.loss = nn.CrossEntropyLoss()
        self.losses = nn.ModuleDict({part: MeanMetric() for part in ("of_train", "of_val")})
        self.hits = nn.ModuleDict(
            {part: Accuracy(task="multiclass", num_classes=classes) for part in ("of_train", "of_val")}
        )
        self.best = MaxMetric()
        self.started = 0.0

    def shared_step(self, batch: Batch, part: str) -> Tensor:
        images, labels = batch
        logits = self.net(images)
        loss: Tensor = self.loss(logits, labels)
        mean, accuracy = self.losses[f"of_{part}"], self.hits[f"of_{part}"]
        mean(loss)
        accuracy(logits.argmax(1), labels)
        self.log(f"{part}/loss", mean, on_step=False, on_epoch=True, prog_bar=True)
        self.log(f"{part}/acc", accuracy, on_step=False, on_epoch=True, prog_bar=True)
        return loss

    def training_step(self, batch: Batch, _: int) -> Tensor:
        return self.shared_step(batch, "train")

    def validation_step(self, batch: Batch, _: int) -> None:
        self.shared_step(batch, "val")

    def on_validation_epoch_end(self) -> None:
        self.best(self.hits["of_val"].compute())
        self.log("val/acc_best", self.best.compute(), sync_dist=True, prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.optimizer(params=self.parameters())

    def on_train_start(self) -> None:
        self.started = time.time()

    def on_train_end(self) -> None:
        SECONDS.append(time.time() - self.started)


@hydra.main(config_path="lightning_sweep_configs", config_name="sweep", version_base="1.3")
def train(config: DictConfig) -> None:
    lightning.seed_everything(config.seed, workers=True)
    task = TASKS[config.task]
    split = load(Run(task, Path(config.data), Path(), config.seed))
    train_data, val_data = datasets(split, task)
    model = hydra.utils.instantiate(config.model)
    callbacks = [hydra.utils.instantiate(callback) for callback in config.callbacks.values()]
    logger = [hydra.utils.instantiate(one) for one in config.logger.values()]
    trainer = hydra.utils.instantiate(config.trainer, callbacks=callbacks, logger=logger)
    trainer.fit(
        model,
        DataLoader(train_data, task.batch_size, shuffle=True),
        DataLoader(val_data, task.validation_batch_size),
    )


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("task")
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--output", type=Path, required=True)
    options.add_argument("--seeds", type=int, required=True)
    arguments = options.parse_args()
    torch.set_num_threads(1)
    sys.argv = [sys.argv[0], "-m", f"task={arguments.task}", f"data={arguments.data}"]
    sys.argv += [f"seed=range({arguments.seeds})", f"hydra.sweep.dir={arguments.output}"]
    sys.modules["lightning_sweep"] = sys.modules["__main__"]  # as which the config names it: no second copy
    train()
    print(json.dumps({"training": SECONDS}))


if __name__ == "__main__":
    main()
