"""Draws the first training batch before and after its augmentations, for `dltips show`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from omegaconf import DictConfig
from torch import Generator, Tensor

from dltips.catalog.combinations import warnings
from dltips.catalog.registry import Tip
from dltips.config.validation import validate
from dltips.errors import ConfigError
from dltips.feed import balance
from dltips.feed.augmentations import Augmentations
from dltips.feed.batches import Augment, Batch, batch_sizes, to_float
from dltips.feed.frozen_copies import AUGMENT_CHUNK
from dltips.feed.load import load
from dltips.feed.splits import Split, split
from dltips.plots.sample_grid import SampleRow, grid
from dltips.tips.augmentation import Samples
from dltips.tips.data import Source
from dltips.train import device as devices
from dltips.train import seeds
from dltips.train.data import epoch_order
from dltips.train.finetuning import pretrained as pretrained_nets

COLUMNS = 8

Streams = Callable[[str, int], Generator]  # by an augmentation's name and a draw
Named = Sequence[tuple[str, Augment]]


def show(composed: DictConfig, count: int | None, draws: int, file: Path) -> tuple[str, list[str]]:
    """Writes the picture; returns its description and notes for the user. Raises ConfigError.

    A row of originals; one for each augmentation alone; and as many as there are draws for all of them, in their order.
    The first draw is what the net gets in the first step of training, unless the preprocessing changes it.
    """
    config = validate(composed)
    settings = config.settings
    if settings.resume is not None:
        raise ConfigError("resume: goes on with a run, and a picture is of a config; leave it out")
    device = devices.choose(settings.device)
    common = config.common["data"]()
    balance.check(common.balance, common.shuffle)
    source = load(config.tip("data"), common, pretrained_nets.wanted(config, pretrained_nets.find(config), None))
    if source.inputs.dim() not in (3, 4):
        raise ConfigError(
            f"data={config.tip('data').name}: its samples are vectors of {source.inputs[0].numel()} features, of which"
            " there is no picture; show takes images, spectrograms and waveforms"
        )
    train_split = split(source, common).train.taken()
    classes = len(source.classes)
    augmentations = Augmentations.build(
        config.tips["augmentation"], Samples(train_split.inputs, train_split.targets, classes)
    )
    if not augmentations.names:
        raise ConfigError("augmentation: none is switched on; write 'augmentation=[flip,crop]'")
    augmentations.check_applicable(train_split)

    def streams(name: str, draw: int) -> Generator:
        if common.expand:
            return seeds.generator(settings.seed, "expand", name, draw)
        return seeds.generator(settings.seed, "augmentation", name, draw, str(device))

    if common.expand:
        draws = min(draws, common.expand)
        first = Split(train_split.inputs[:AUGMENT_CHUNK], train_split.targets[:AUGMENT_CHUNK])
        augmentations.frozen(first, 1, streams)  # raises for augmentations that cannot be frozen
        device = torch.device("cpu")
    else:
        size = batch_sizes(len(train_split), min(settings.batch_size, len(train_split)))[0]
        chosen = epoch_order(common, settings.seed, train_split, classes)(0)[:size]
        first = Split(train_split.inputs, train_split.targets, chosen).taken()
    shown = min(COLUMNS, len(first)) if count is None else count
    if shown > len(first):
        raise ConfigError(
            f"--count: {shown} is more than the {len(first)} samples of the first batch; raise batch_size"
        )
    batch = to_float(first.inputs.to(device)), first.targets.to(device)
    knobs = {tip.name: _knobs(tip) for tip in config.tips["augmentation"]}
    rows = [
        SampleRow(label, _upright(inputs[:shown], source), notes, captions(label, targets[:shown], source.classes))
        for label, notes, (inputs, targets) in augmented(augmentations, knobs, batch, streams, draws)
    ]
    name = config.tip("data").name
    title = f"{name}, seed {settings.seed}: {shown} training samples before and after {' → '.join(augmentations.names)}"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        grid(rows, file, title)
    except OSError as error:
        raise ConfigError(f"{file}: cannot be written ({error.strerror or error})") from error
    notes = [*source.notes, *warnings(config.tips, config.resolved)]
    channels = first.inputs.shape[1]
    if channels not in (1, 3):
        notes.append(f"of the {channels} channels the picture shows the first")
    return title, notes


def augmented(
    augmentations: Augmentations, knobs: Mapping[str, Sequence[str]], batch: Batch, streams: Streams, draws: int
) -> Iterator[tuple[str, Sequence[str], Batch]]:
    """Yields each row's label, the notes below it, and its batch."""
    count = len(augmentations.before)
    early = list(zip(augmentations.names[:count], augmentations.before, strict=True))
    late = list(zip(augmentations.names[count:], augmentations.after, strict=True))
    several = len(augmentations.names) > 1
    yield "original", (), batch
    for name, augment in (*early, *late) if several else ():
        yield name, knobs[name], _applied([(name, augment)], [], batch, streams, 0)
    label, about = ("all", ()) if several else (augmentations.names[0], knobs[augmentations.names[0]])
    for draw in range(draws):
        notes = [*about, f"draw {draw + 1} of {draws}"] if draws > 1 else about
        yield label, notes, _applied(early, late, batch, streams, draw)


def _applied(early: Named, late: Named, batch: Batch, streams: Streams, draw: int) -> Batch:
    """Applies augmentations as the feed does, without the preprocessing between them."""
    inputs, targets = batch
    for name, augment in early:
        inputs, targets = augment(inputs, targets, streams(name, draw))
    if inputs.dim() == 4:
        inputs = inputs.clamp(0, 1)
    for name, augment in late:
        inputs, targets = augment(inputs, targets, streams(name, draw))
    return inputs, targets


def _upright(inputs: Tensor, source: Source) -> Tensor:
    """Turns spectrograms, whose first row is the lowest tone, upside down; returns images unchanged."""
    return inputs.flip(2) if source.reader.get("features") == "log_mel" else inputs


def _knobs(tip: Tip) -> list[str]:
    return [f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}" for key, value in tip.knobs.items()]


def captions(label: str, targets: Tensor, classes: Sequence[str]) -> list[list[str]]:
    """Returns the class below an original; below a mixed sample its classes with their shares, the largest first."""
    if targets.dim() == 2:
        shares = targets.cpu()
        order = shares.argsort(dim=1, descending=True)[:, :2].tolist()
        return [
            [f"{_plain(classes[k])} {share[k]:.0%}" for k in both if share[k] > 0]
            for share, both in zip(shares.tolist(), order, strict=True)
        ]
    return [[_plain(classes[k])] for k in targets.tolist()] if label == "original" else []


def _plain(name: str) -> str:
    return "".join(sign if sign.isprintable() else "?" for sign in name)
