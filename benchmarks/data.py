"""The arrays that the contenders train on: acquired once, then read without scikit-learn or torchvision.

`python data.py digits --data DIR` acquires; speed.py calls it when DIR lacks the arrays. It is a process of its own
because the libraries that know the data sets are large and slow to import, which no timed run should pay for.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sized
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler

from task import TASKS, Run, Task

SPLIT_SEED = 0


class Split(NamedTuple):
    """Training and validation images as stored, uint8 (N, H, W), and their int64 labels (N,)."""

    train_images: Tensor
    train_labels: Tensor
    val_images: Tensor
    val_labels: Tensor


class EpochOrder(Sampler[int]):
    """The order in which the tight loop takes the training images, for the peers that have a DataLoader."""

    def __init__(self, images: Sized, seed: int) -> None:
        self.count = len(images)
        self.generator = torch.Generator().manual_seed(seed)

    def __iter__(self) -> Iterator[int]:
        yield from torch.randperm(self.count, generator=self.generator).tolist()

    def __len__(self) -> int:
        return self.count


def array_file(folder: Path, task: Task, part: str) -> Path:
    """Where the images or the labels of a task are kept."""
    return folder / "benchmarks" / f"{task.name}-{part}.npy"


def load(run: Run) -> Split:
    """The same split for every contender and every seed; only the rows in use are read from the disk."""
    images = np.load(array_file(run.data, run.task, "images"), mmap_mode="r")
    labels = np.load(array_file(run.data, run.task, "labels"))
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(SPLIT_SEED)).numpy()
    train = order[: run.task.training_images]
    val = order[len(order) * 8 // 10 :][: run.task.validation_images]
    return Split(*(torch.from_numpy(array) for array in (images[train], labels[train], images[val], labels[val])))


def standardize(images: Tensor, task: Task) -> Tensor:
    """uint8 pixels to float32 of mean 0 and variance 1 over the training set; shape unchanged."""
    return images.float().sub_(task.mean).div_(task.std)


def acquire(task: Task, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """The whole data set from the library that knows it: uint8 images (N, H, W) and int64 labels (N,)."""
    if task.name == "digits":
        from sklearn.datasets import load_digits

        digits = load_digits()
        return digits.images.astype(np.uint8), digits.target.astype(np.int64)
    from torchvision.datasets import FashionMNIST

    fashion = FashionMNIST(str(folder), download=True)
    return fashion.data.numpy(), fashion.targets.numpy()


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("task", choices=TASKS)
    options.add_argument("--data", type=Path, required=True)
    arguments = options.parse_args()
    task = TASKS[arguments.task]
    for part, array in zip(("images", "labels"), acquire(task, arguments.data), strict=True):
        file = array_file(arguments.data, task, part)
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, array)


if __name__ == "__main__":
    main()
