"""How fast batches arrive, without a net: ours beside torchvision's transforms of single images in a DataLoader.

    python benchmarks/data_path.py                     # 7 rounds of 12,800 images
    python benchmarks/data_path.py --rounds 21

Fashion-MNIST in batches of 256, in a new order each time: flip, crop with 4 pixels of padding, standardized floats; in
this process with one thread, the DataLoader also with two workers, which stay from round to round. The contenders take
turns; a cell is the median over the rounds, and `times` is how many of ours fit into it, of which 15 are asked for.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from data import Split, load
from dltips.feed import batches, splits
from dltips.tips.augmentation import crop, flip
from dltips.tips.preprocessing import standardize
from dltips.train.device import keep_freed_memory
from speed import acquire
from task import FASHION, Run
from tutorial import TransformedImages, flip_and_crop

BATCH_SIZE = 256
ASKED = 15

Batches = Iterable[tuple[Tensor, Tensor]]


def ours(split: Split) -> Callable[[], Batches]:
    """One epoch of a feed from the resident store."""
    images = split.train_images[:, None]
    resident = batches.Resident(splits.Split(images, split.train_labels), torch.device("cpu"))
    augmentations = [partial(flip, p=0.5), partial(crop, padding=4)]
    feed = batches.Feed(resident, len(images), standardize(images, epsilon=1e-7), augmentations)
    order = torch.Generator().manual_seed(0)
    generators = [torch.Generator().manual_seed(stream) for stream in (1, 2)]

    def epoch() -> Batches:
        return feed(torch.randperm(len(images), generator=order), BATCH_SIZE, generators)

    return epoch


def theirs(split: Split, workers: int) -> Callable[[], Batches]:
    """One epoch of a DataLoader."""
    dataset = TransformedImages(split.train_images[:, None], split.train_labels, flip_and_crop(FASHION))
    loader = DataLoader(dataset, BATCH_SIZE, shuffle=True, num_workers=workers, persistent_workers=workers > 0)
    return lambda: loader


def milliseconds(epoch: Callable[[], Batches], count: int) -> float:
    """One epoch, all of whose images must have come as floats."""
    start = time.perf_counter()
    seen = 0
    for images, _ in epoch():
        seen += len(images)
        assert images.dtype == torch.float32 and images.shape[1:] == (1, 28, 28)
    taken = (time.perf_counter() - start) * 1000
    assert seen == count
    return taken


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--data", type=Path, default=Path(os.environ.get("DLTIPS_DATA", "~/.cache/dltips/data")))
    arguments = options.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    folder = arguments.data.expanduser()
    acquire(FASHION, folder)
    split = load(Run(FASHION, folder, folder, seed=0))
    contenders = {
        "dltips": ours(split),
        "DataLoader": theirs(split, 0),
        "DataLoader, 2 workers": theirs(split, 2),
    }
    count = len(split.train_images)
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(arguments.rounds + 1):  # the first warms up
        for name, epoch in contenders.items():
            measured = milliseconds(epoch, count)
            if number:
                taken[name].append(measured)
    medians = {name: statistics.median(times) for name, times in taken.items()}
    print(f"{count} images of 28x28 in batches of {BATCH_SIZE}, flip and crop; asked for: {ASKED} times")
    print(f"{'':22} {'ms':>8} {'us/image':>9} {'times':>6}")
    for name, median in medians.items():
        print(f"{name:22} {median:8.1f} {median / count * 1000:9.2f} {median / medians['dltips']:6.1f}")


if __name__ == "__main__":
    main()
