"""Draws the first training batch before and after its augmentations, for `dltips show`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from omegaconf import DictConfig
from torch import Generator, Tensor

from dltips.catalog.combinations import warnings
from dltips.catalog.registry import Tip
from dltips.config.validation import Config, validate
from dltips.errors import ConfigError
from dltips.feed import balance
from dltips.feed.augmentations import Augmentations
from dltips.feed.batches import Augment, Batch, batch_sizes, to_float
from dltips.feed.frozen_copies import AUGMENT_CHUNK
from dltips.feed.load import load
from dltips.feed.splits import Split, split
from dltips.plots.sample_grid import SampleRow, draw_grid
from dltips.tips.augmentation import Samples
from dltips.tips.data import DataKnobs, Source
from dltips.train import device as devices
from dltips.train import seeds
from dltips.train.data import epoch_order
from dltips.train.finetuning import pretrained as pretrained_nets

DEFAULT_COUNT = 8

Streams = Callable[[str, int], Generator]  # by an augmentation's name and a draw
NamedAugments = Sequence[tuple[str, Augment]]


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
    augmentations = _augmentations(config, train_split, classes)
    streams = _streams(settings.seed, common, device)
    first_batch = _first_batch(config, train_split, classes)
    if common.expand:
        draws = min(draws, common.expand)
        augmentations.frozen(first_batch, 1, streams)  # raises for augmentations that cannot be frozen
        device = torch.device("cpu")
    count_shown = min(DEFAULT_COUNT, len(first_batch)) if count is None else count
    if count_shown > len(first_batch):
        raise ConfigError(
            f"--count: {count_shown} is more than the {len(first_batch)} samples of the first batch; raise batch_size"
        )
    batch = to_float(first_batch.inputs.to(device)), first_batch.targets.to(device)
    knobs = {tip.name: _knob_notes(tip) for tip in config.tips["augmentation"]}
    rows = [
        SampleRow(
            label, _upright(inputs[:count_shown], source), notes, captions(label, targets[:count_shown], source.classes)
        )
        for label, notes, (inputs, targets) in augmented_rows(augmentations, knobs, batch, streams, draws)
    ]
    chain = " → ".join(augmentations.names)
    title = f"{config.tip('data').name}, seed {settings.seed}: {count_shown} training samples before and after {chain}"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        draw_grid(rows, file, title)
    except OSError as error:
        raise ConfigError(f"{file}: cannot be written ({error.strerror or error})") from error
    notes = [*source.notes, *warnings(config.tips, config.resolved)]
    channels = first_batch.inputs.shape[1]
    if channels not in (1, 3):
        notes.append(f"of the {channels} channels the picture shows the first")
    return title, notes


def _augmentations(config: Config, train_split: Split, classes: int) -> Augmentations:
    """Builds the augmentations that are switched on. Raises ConfigError if there are none, or if one does not fit."""
    augmentations = Augmentations.build(
        config.tips["augmentation"], Samples(train_split.inputs, train_split.targets, classes)
    )
    if not augmentations.names:
        raise ConfigError("augmentation: none is switched on; write 'augmentation=[flip,crop]'")
    augmentations.check_applicable(train_split)
    return augmentations


def _streams(seed: int, common: DataKnobs, device: torch.device) -> Streams:
    """Returns the random generators of training: with data.expand those of the frozen copies."""

    def stream(name: str, draw: int) -> Generator:
        if common.expand:
            return seeds.generator(seed, "expand", name, draw)
        return seeds.generator(seed, "augmentation", name, draw, str(device))

    return stream


def _first_batch(config: Config, train_split: Split, classes: int) -> Split:
    """Returns the first batch of training; with data.expand the first samples that are augmented together."""
    settings, common = config.settings, config.common["data"]()
    if common.expand:
        return Split(train_split.inputs[:AUGMENT_CHUNK], train_split.targets[:AUGMENT_CHUNK])
    size = batch_sizes(len(train_split), min(settings.batch_size, len(train_split)))[0]
    chosen = epoch_order(common, settings.seed, train_split, classes)(0)[:size]
    return Split(train_split.inputs, train_split.targets, chosen).taken()


def augmented_rows(
    augmentations: Augmentations, knobs: Mapping[str, Sequence[str]], batch: Batch, streams: Streams, draws: int
) -> Iterator[tuple[str, Sequence[str], Batch]]:
    """Yields each row's label, the notes below it, and its batch."""
    count_before = len(augmentations.before)
    before = list(zip(augmentations.names[:count_before], augmentations.before, strict=True))
    after = list(zip(augmentations.names[count_before:], augmentations.after, strict=True))
    is_chain = len(augmentations.names) > 1
    yield "original", (), batch
    for name, augment in (*before, *after) if is_chain else ():
        yield name, knobs[name], _augment_batch([(name, augment)], [], batch, streams, 0)
    label, knob_notes = ("all", ()) if is_chain else (augmentations.names[0], knobs[augmentations.names[0]])
    for draw in range(draws):
        notes = [*knob_notes, f"draw {draw + 1} of {draws}"] if draws > 1 else knob_notes
        yield label, notes, _augment_batch(before, after, batch, streams, draw)


def _augment_batch(before: NamedAugments, after: NamedAugments, batch: Batch, streams: Streams, draw: int) -> Batch:
    """Applies augmentations as the feed does, without the preprocessing between them."""
    inputs, targets = batch
    for name, augment in before:
        inputs, targets = augment(inputs, targets, streams(name, draw))
    if inputs.dim() == 4:
        inputs = inputs.clamp(0, 1)
    for name, augment in after:
        inputs, targets = augment(inputs, targets, streams(name, draw))
    return inputs, targets


def _upright(inputs: Tensor, source: Source) -> Tensor:
    """Turns spectrograms, whose first row is the lowest tone, upside down; returns images unchanged."""
    return inputs.flip(2) if source.reader.get("features") == "log_mel" else inputs


def _knob_notes(tip: Tip) -> list[str]:
    return [f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}" for key, value in tip.knobs.items()]


def captions(label: str, targets: Tensor, classes: Sequence[str]) -> list[list[str]]:
    """Returns the class below an original; below a mixed sample its classes with their shares, the largest first."""
    if targets.dim() == 2:
        shares = targets.cpu()
        order = shares.argsort(dim=1, descending=True)[:, :2].tolist()
        return [
            [f"{_printable(classes[k])} {share[k]:.0%}" for k in largest if share[k] > 0]
            for share, largest in zip(shares.tolist(), order, strict=True)
        ]
    return [[_printable(classes[k])] for k in targets.tolist()] if label == "original" else []


def _printable(name: str) -> str:
    return "".join(sign if sign.isprintable() else "?" for sign in name)
