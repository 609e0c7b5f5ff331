"""CIFAR-10 from the cache of arrays to the device's store, split: how long, and without torchvision?

    DLTIPS_DATA=/folder/with/cifar-10-batches-py python benchmarks/load_cifar.py

Prints the seconds of the first load of this process, after the imports. The cache is filled by a process of its own
where it is cold.
"""

from __future__ import annotations

import subprocess
import sys
import time

LOAD = "from dltips.tips.data.torchvision_sets import cifar10; cifar10(root=None, download=False)"


def main() -> None:
    subprocess.run([sys.executable, "-c", LOAD], check=True)
    import torch

    from dltips.feed.load import load
    from dltips.feed.placement import place_split
    from dltips.feed.splits import split
    from dltips.tips.data import DataKnobs
    from dltips.tips.data.torchvision_sets import cifar10

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    common = DataKnobs(
        split_seed=0,
        val_fraction=0.1,
        test_fraction=0.1,
        shuffle=True,
        subset=None,
        image_size=None,
        label_noise=0.0,
        balance="none",
        expand=0,
        placement="resident",
    )
    torch.zeros(1, device=device)  # the device's own start is not one of ours
    start = time.perf_counter()
    source = load(lambda: cifar10(root=None, download=False), common)
    read = time.perf_counter()
    splits = split(source, common)
    stores = [place_split(part, common.placement, device) for part in (splits.train, splits.val)]
    if device.type == "cuda":
        torch.cuda.synchronize()
    done = time.perf_counter()
    assert [len(part) for part in (splits.train, splits.val)] == [45_000, 5_000] and len(stores) == 2
    print(
        f"map {read - start:.3f} s, split and place on {device.type} {done - read:.3f} s, together {done - start:.3f} s"
    )
    print(f"torchvision imported: {'torchvision' in sys.modules}")


if __name__ == "__main__":
    main()
