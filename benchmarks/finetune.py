"""A linear probe: ours beside the loop that passes every photograph through the frozen net in every epoch.

    python benchmarks/finetune.py --root hymenoptera --weights mobilenet_v2.pth

ImageNet's mobilenet_v2 on a folder of pictures, 224 pixels a side; 30 epochs of sgd on the head, batches of 32. Both
begin with the net and the samples in memory: ours with nothing computed, features and head included. The other loop
spares the backward pass of the frozen part and keeps it in eval mode; it scores on the validation split after each
epoch, as ours does. Then feature extraction alone: ours beside a bare loop without gradients over the same batches,
which take turns. Asked for: 10 times as fast, as accurate; extraction at most 1.1 times the bare loop.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from dltips.config.composition import compose
from dltips.config.validation import Config, validate
from dltips.feed.batches import to_float
from dltips.train.build import build_model, build_run, initialize
from dltips.train.data import Data, prepare_data
from dltips.train.device import keep_freed_memory
from dltips.train.finetuning.features import body_and_head, keep_features
from dltips.train.finetuning.pretrained import find, load_weights, wanted
from dltips.train.fit import fit
from dltips.train.loop import evaluation_batch

CPU = torch.device("cpu")


def configured(root: str, weights: str, seed: int, epochs: int) -> Config:
    overrides = ["+recipe=finetune_ants_bees", f"data.root={root}", f"finetune.source={weights}", "device=cpu"]
    overrides += [f"seed={seed}", f"epochs={epochs}", "log.layers=false"]
    return validate(compose(overrides)[0])


def started(config: Config) -> tuple[nn.Module, Data]:
    """The net with its weights and the samples as they are when both contenders begin."""
    pretrained = find(config)
    assert pretrained is not None
    data = prepare_data(config, CPU, pretrained.preprocess, wanted(config, pretrained, None))
    model = build_model(config, tuple(data.train.inputs.shape[1:]), len(data.source.classes), [])
    initialize(model, config, data.preprocess(to_float(data.train.inputs[:2])))
    load_weights(pretrained, model, config)
    return model.to(memory_format=torch.channels_last), data


def ordinary(config: Config) -> tuple[float, float]:
    """Seconds and last validation accuracy of the loop that computes the features in every epoch."""
    model, data = started(config)
    body, head = body_and_head(model)
    body.eval()
    optimizer = torch.optim.SGD(head.parameters(), lr=0.01, momentum=0.9)
    train, val = (data.feed(part, once=True) for part in (data.train, data.splits.val))
    accuracy, start = 0.0, time.perf_counter()
    for epoch in range(config.settings.epochs):
        order = torch.randperm(train.count, generator=torch.Generator().manual_seed(epoch))
        for inputs, targets in train(order, config.settings.batch_size):
            with torch.no_grad():
                features = body(inputs)
            optimizer.zero_grad()
            functional.cross_entropy(head(features), targets).backward()
            optimizer.step()
        hits = 0
        with torch.no_grad():
            for inputs, targets in val(torch.arange(val.count), evaluation_batch(val, config.settings.batch_size)):
                hits += int((head(body(inputs)).argmax(1) == targets).sum())
        accuracy = hits / val.count
    return time.perf_counter() - start, accuracy


def ours(config: Config) -> tuple[float, float]:
    """The same of a run: what it takes beyond reading the weights and the pictures is features and training."""
    started_at = time.perf_counter()
    started(config)
    loading = time.perf_counter() - started_at
    started_at = time.perf_counter()
    records = fit(build_run(config)).records
    return time.perf_counter() - started_at - loading, records[-1]["val/accuracy"]


def extraction(config: Config, rounds: int) -> list[float]:
    """Ours over the bare loop's seconds, round by round."""
    model, data = started(config)
    body, _ = body_and_head(model)
    body.eval()
    feed = data.feed(data.train, once=True)
    batch = evaluation_batch(feed, config.settings.batch_size)
    prepared = [inputs for inputs, _ in feed(torch.arange(feed.count), batch)]

    def bare() -> Sequence[Tensor]:
        with torch.no_grad():
            return [body(inputs) for inputs in prepared]

    def mine() -> object:
        return keep_features(body, feed, config.settings.batch_size, 1, lambda view: (), no_autocast)

    def seconds(call: Callable[[], object]) -> float:
        start = time.perf_counter()
        call()
        return time.perf_counter() - start

    seconds(bare)
    ratios = []
    for number in range(rounds):
        contenders = (mine, bare) if number % 2 else (bare, mine)
        taken = {call: seconds(call) for call in contenders}
        ratios.append(taken[mine] / taken[bare])
    return ratios


def no_autocast() -> torch.autocast:
    return torch.autocast("cpu", enabled=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True, help="a folder with train/ and val/, such as hymenoptera")
    parser.add_argument("--weights", required=True, help="mobilenet_v2 in torchvision's layout")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=7, help="of the feature extraction")
    chosen = parser.parse_args()
    keep_freed_memory()
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    rows = []
    for seed in range(chosen.seeds):
        config = configured(chosen.root, chosen.weights, seed, chosen.epochs)
        mine, theirs = ours(config), ordinary(config)
        rows.append((mine[0], theirs[0]))
        print(
            f"seed {seed}: ours {mine[0]:.1f} s, {mine[1]:.4f}; the ordinary loop {theirs[0]:.1f} s, {theirs[1]:.4f};"
            f" {theirs[0] / mine[0]:.1f} times",
            flush=True,
        )
    times = statistics.median(theirs / mine for mine, theirs in rows)
    print(f"times (asked: 10)        {times:.1f}")
    ratios = extraction(configured(chosen.root, chosen.weights, 0, 1), chosen.rounds)
    low, high = min(ratios), max(ratios)
    print(f"extraction (asked: 1.1)  {statistics.median(ratios):.3f} (from {low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()
