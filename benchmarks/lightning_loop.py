"""Lightning's Trainer at its leanest: no progress bar, checkpoints or summary of the net, one TensorBoard logger."""

from __future__ import annotations

import time

import lightning
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader

from data import EpochOrder, load
from nets import NETS
from task import Task, parser, report, run_of
from tutorial import Batch, datasets


class Classifier(lightning.LightningModule):
    """A net with its loss, its optimizer and the time of its first step."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task
        self.net = NETS[task.name]()
        self.first_step = 0.0
        self.end = 0.0

    def shared_step(self, batch: Batch, part: str) -> Tensor:
        images, labels = batch
        logits = self.net(images)
        loss = nn.functional.cross_entropy(logits, labels)
        accuracy = (logits.argmax(1) == labels).float().mean()
        self.log(f"loss/{part}", loss, on_step=False, on_epoch=True, batch_size=len(labels))
        self.log(f"accuracy/{part}", accuracy, on_step=False, on_epoch=True, batch_size=len(labels))
        return loss

    def training_step(self, batch: Batch, _: int) -> Tensor:
        return self.shared_step(batch, "train")

    def validation_step(self, batch: Batch, _: int) -> None:
        self.shared_step(batch, "val")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.task.learning_rate, momentum=self.task.momentum)

    def on_train_batch_end(self, *_: object) -> None:
        self.first_step = self.first_step or time.time()

    def on_train_end(self) -> None:
        self.end = time.time()


def main() -> None:
    run = run_of(parser().parse_args())
    task = run.task
    torch.set_num_threads(1)
    torch.manual_seed(run.seed)
    split = load(run)
    classifier = Classifier(task)
    train, val = datasets(split, task)
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=task.epochs,
        logger=TensorBoardLogger(str(run.output)),
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(
        classifier,
        DataLoader(train, task.batch_size, sampler=EpochOrder(split.train_images, run.seed)),
        DataLoader(val, task.validation_batch_size),
    )
    report(classifier.first_step, classifier.end, trainer.callback_metrics["accuracy/val"].item())


if __name__ == "__main__":
    main()
