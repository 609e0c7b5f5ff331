"""The loop that PyTorch's tutorials teach: a Dataset, a DataLoader, torch.optim, loss.item() and a SummaryWriter."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torch.utils.tensorboard import SummaryWriter

from data import EpochOrder, Split, load, standardize
from nets import NETS
from task import Task, parser, report, run_of

Batch = tuple[Tensor, Tensor]


class TransformedImages(Dataset[Batch]):
    """Images that pass a transform one by one whenever they are taken."""

    def __init__(self, images: Tensor, labels: Tensor, transform: Callable[[Tensor], Tensor]) -> None:
        self.images = images  # (N, 1, H, W) uint8
        self.labels = labels
        self.transform = transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Batch:
        return self.transform(self.images[index]), self.labels[index]


def flip_and_crop(task: Task) -> Callable[[Tensor], Tensor]:
    """Crop with 4 pixels of padding, flip, standardize. torchvision takes seconds to import; only this task does."""
    from torchvision.transforms import v2

    return v2.Compose(
        [
            v2.RandomCrop(28, padding=4),
            v2.RandomHorizontalFlip(),
            v2.ToDtype(torch.float32),
            v2.Normalize([task.mean], [task.std]),
        ]
    )


def datasets(split: Split, task: Task) -> tuple[Dataset[Batch], Dataset[Batch]]:
    """The training set, augmented where the task says so, and the validation set."""
    val_images = standardize(split.val_images, task)
    if task.name == "digits":
        train_images = standardize(split.train_images, task)
        return (
            TensorDataset(train_images.flatten(1), split.train_labels),
            TensorDataset(val_images.flatten(1), split.val_labels),
        )
    return (
        TransformedImages(split.train_images[:, None], split.train_labels, flip_and_crop(task)),
        TensorDataset(val_images[:, None], split.val_labels),
    )


def validate(net: nn.Module, loader: DataLoader[Batch]) -> tuple[float, float]:
    """Mean loss and accuracy."""
    net.eval()
    total_loss, correct, seen = 0.0, 0, 0
    with torch.no_grad():
        for images, labels in loader:
            logits = net(images)
            total_loss += nn.functional.cross_entropy(logits, labels).item() * len(labels)
            correct += int((logits.argmax(1) == labels).sum().item())
            seen += len(labels)
    return total_loss / seen, correct / seen


def main() -> None:
    run = run_of(parser().parse_args())
    task = run.task
    torch.set_num_threads(1)
    torch.manual_seed(run.seed)
    split = load(run)
    net = NETS[task.name]()
    train, val = datasets(split, task)
    train_loader = DataLoader(train, task.batch_size, sampler=EpochOrder(split.train_images, run.seed))
    val_loader = DataLoader(val, task.validation_batch_size)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=task.learning_rate, momentum=task.momentum)
    writer = SummaryWriter(str(run.output))
    first_step = 0.0
    for epoch in range(1, task.epochs + 1):
        net.train()
        total_loss, correct = 0.0, 0
        for images, labels in train_loader:
            optimizer.zero_grad()
            logits = net(images)
            loss = criterion(logits, labels)
            loss.backward()
            optimizer.step()
            total_loss += loss.item() * len(labels)
            correct += int((logits.argmax(1) == labels).sum().item())
            first_step = first_step or time.time()
        val_loss, val_accuracy = validate(net, val_loader)
        writer.add_scalar("loss/train", total_loss / task.training_images, epoch)
        writer.add_scalar("accuracy/train", correct / task.training_images, epoch)
        writer.add_scalar("loss/val", val_loss, epoch)
        writer.add_scalar("accuracy/val", val_accuracy, epoch)
    report(first_step, time.time(), val_accuracy)
    writer.close()


if __name__ == "__main__":
    main()
