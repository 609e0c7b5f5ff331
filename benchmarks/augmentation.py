"""How long augmentations take, beside kornia's: one command, one table.

    taskset -c 0 python benchmarks/augmentation.py                            # all of them, 31 rounds
    taskset -c 0 python benchmarks/augmentation.py --only rotate,five --rounds 101

A batch of 256 float images of 3x32x32, one thread. Each round calls every contender once, ours and kornia's in turn, so
that a busy moment of the machine meets both; a cell is the median over the rounds, in milliseconds of the thread's own
time. `five` is crop, flip, rotate, color_jitter and erase, one after the other, which kornia does as an
AugmentationSequential and as five modules, of which the quicker counts. Freed memory is kept, as in a run, for both.

kornia's RandomContrast multiplies, ours and torchvision's scales the distance from the mean gray; drop_pixels stands
beside RandomSaltAndPepperNoise; whiten and fancy_pca have no counterpart that draws.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from dltips.tips import augmentation as ours
from dltips.train.device import keep_freed_memory

COUNT, CHANNELS, SIDE = 256, 3, 32
CLASSES = 10
MOST = {"five": 0.75}  # of kornia's time; 1 for the others

Call = Callable[[], Any]


def contenders(images: Tensor, labels: Tensor) -> dict[str, tuple[Call, list[Call]]]:
    """Name -> our call, and kornia's that do the same."""
    import kornia.augmentation as kornia

    generator = torch.Generator().manual_seed(0)
    samples = ours.Samples(images, labels, CLASSES)
    mixup = ours.Mixup(samples, alpha=1.0)
    cutmix = ours.Cutmix(samples, p=1.0, alpha=1.0)
    whiten = ours.Whiten(samples, strength=0.5, kernel_size=5, epsilon=0.01)
    fancy_pca = ours.FancyPca(samples, std=0.1)

    def run(augment: Callable[..., ours.Batch], **knobs: Any) -> Call:
        return lambda: augment(images, labels, generator, **knobs)

    def theirs(module: Any) -> Call:
        return lambda: module(images)

    jitter = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}
    chain: list[tuple[Callable[..., ours.Batch], dict[str, Any]]] = [
        (ours.crop, {"padding": 4}),
        (ours.flip, {"p": 0.5}),
        (ours.rotate, {"degrees": 15.0}),
        (ours.color_jitter, jitter),
        (ours.erase, {"p": 0.5, "scale": (0.02, 0.33), "ratio": (0.3, 3.3)}),
    ]

    def five() -> Tensor:
        inputs = images
        for augment, knobs in chain:
            inputs, _ = augment(inputs, labels, generator, **knobs)
        return inputs

    modules = [
        kornia.RandomCrop((SIDE, SIDE), padding=4),
        kornia.RandomHorizontalFlip(p=0.5),
        kornia.RandomRotation(15.0, p=1.0),
        kornia.ColorJitter(**jitter, p=1.0),
        kornia.RandomErasing(p=0.5, scale=(0.02, 0.33), ratio=(0.3, 3.3)),
    ]
    sequential = kornia.AugmentationSequential(*modules, data_keys=["input"], same_on_batch=False)

    def one_by_one() -> Tensor:
        inputs = images
        for module in modules:
            inputs = module(inputs)
        return inputs

    def labelled(module: Any) -> Call:
        return lambda: module(images, labels)

    keys = ["input", "class"]
    links = {
        augment.__name__: (run(augment, **knobs), [theirs(module)])
        for (augment, knobs), module in zip(chain, modules, strict=True)
    }
    return {
        **links,
        "contrast": (run(ours.contrast, strength=0.4), [theirs(kornia.RandomContrast((0.6, 1.4), p=1.0))]),
        "noise": (run(ours.noise, std=0.05), [theirs(kornia.RandomGaussianNoise(0.0, 0.05, p=1.0))]),
        "blur": (
            run(ours.blur, kernel_size=5, sigma=(0.3, 1.5)),
            [theirs(kornia.RandomGaussianBlur((5, 5), (0.3, 1.5), p=1.0))],
        ),
        "drop_pixels": (run(ours.drop_pixels, p=0.1), [theirs(kornia.RandomSaltAndPepperNoise(amount=0.1, p=1.0))]),
        "mixup": (run(mixup), [labelled(kornia.RandomMixUpV2(p=1.0, data_keys=keys))]),
        "cutmix": (run(cutmix), [labelled(kornia.RandomCutMixV2(p=1.0, data_keys=keys))]),
        "whiten": (run(whiten), []),
        "fancy_pca": (run(fancy_pca), []),
        "five": (five, [lambda: sequential(images), one_by_one]),
    }


def medians(calls: list[Call], rounds: int) -> list[float]:
    """Milliseconds of each call, which take turns."""
    taken: list[list[float]] = [[] for _ in calls]
    for number in range(rounds + 2):  # the first two warm up
        for call, times in zip(calls, taken, strict=True):
            start = time.thread_time()
            call()
            if number >= 2:
                times.append((time.thread_time() - start) * 1000)
    return [statistics.median(times) for times in taken]


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--rounds", type=int, default=31)
    options.add_argument("--only", default="", help="names, with commas")
    arguments = options.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    keep_freed_memory()
    images, labels = torch.rand(COUNT, CHANNELS, SIDE, SIDE), torch.randint(CLASSES, (COUNT,))
    calls = contenders(images, labels)
    chosen = arguments.only.split(",") if arguments.only else list(calls)
    print(f"{COUNT}x{CHANNELS}x{SIDE}x{SIDE} floats, one thread, torch {version('torch')}, kornia {version('kornia')}")
    print(f"{'':12} {'dltips':>8} {'kornia':>8} {'ratio':>6}  {'at most':>7}")
    for name in chosen:
        own, peers = calls[name]
        mine, *others = medians([own, *peers], arguments.rounds)
        if others:
            print(f"{name:12} {mine:8.2f} {min(others):8.2f} {mine / min(others):6.2f}  {MOST.get(name, 1.0):7.2f}")
        else:
            print(f"{name:12} {mine:8.2f} {'-':>8}")


if __name__ == "__main__":
    main()
