"""From a config to a training that is ready to go: data, net, rules and hooks. Writes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from dltips.config import Config
from dltips.feed.batches import Augment, Feed, batch_sizes, to_float
from dltips.feed.placement import place
from dltips.feed.splits import Split, Splits, split
from dltips.net import Net
from dltips.registry import ConfigError
from dltips.tips.data import Common, Source
from dltips.tips.regularization import Regularization
from dltips.tips.schedule import Schedule, Steps
from dltips.train import device as devices
from dltips.train import seeds
from dltips.train.loop import Criterion, Training, in_parts, whole
from dltips.train.measure import Size, measure
from dltips.train.statistics import LayerStatistics

PROBE = 64  # samples of the fixed batch on which layers are watched


@dataclass
class Run:
    """A training with what surrounds it."""

    config: Config
    training: Training
    regularizations: Sequence[Regularization]
    statistics: LayerStatistics | None
    preprocess: nn.Module
    source: Source
    splits: Splits
    size: Size
    threads: int
    test_reads: int = 0  # before this run was resumed

    @property
    def input_shape(self) -> tuple[int, ...]:
        return tuple(self.splits.train.inputs.shape[1:])


def prepare(config: Config, thread_count: int | None = None) -> Run:
    """Load the data, build the net, bind the tips. Errors: ConfigError.

    A thread count is given when a run is resumed: its bits depend on it.
    """
    settings = config.settings
    device = devices.choose(settings.device)
    autocast = devices.autocast(settings.precision, device)
    common: Common = config.common["data"]()
    source: Source = config.tip("data")()
    splits = split(source, common)
    _check_batch_size(config, len(splits.train))
    train_split = splits.train.taken()
    preprocess: nn.Module = config.tip("preprocessing")(train_split.inputs).to(device)
    regularizations = [tip() for tip in config.tips["regularization"]]
    model = build_model(config, tuple(train_split.inputs.shape[1:]), len(source.classes), regularizations)
    initialize(model, config)
    config.tip("finetune")(model, train_split.inputs).apply(model)
    size = measure(model, train_split.inputs.shape[1:], torch.device("cpu"))
    _check_batch_norm(config, model)
    model = model.to(device)
    if train_split.inputs.dim() == 4:
        model = model.to(memory_format=torch.channels_last)
    net = Net(model)
    steps_per_epoch = len(batch_sizes(len(train_split), settings.batch_size))
    augmentations = [tip for tip in config.tips["augmentation"] if tip.name != "none"]
    _try(augmentations, train_split)
    steps = Steps(settings.epochs * steps_per_epoch, steps_per_epoch)
    schedule: Schedule = config.common["schedule"](config.tip("schedule")(steps), steps)
    training = Training(
        net=net,
        rule=config.tip("optimizer")(net),
        schedule=schedule,
        train=Feed(place(train_split, common.placement, device), len(train_split), preprocess, augmentations),
        val=Feed(place(splits.val, common.placement, device), len(splits.val), preprocess),
        batch_size=settings.batch_size,
        steps_per_epoch=steps_per_epoch,
        seed=settings.seed,
        shuffle=common.shuffle,
        augmentation_names=[tip.name for tip in augmentations],
        criterion=_criterion(regularizations),
        autocast=autocast,
        parts=whole if settings.accumulate == 1 else in_parts(settings.accumulate),
        forward=torch.compile(model) if settings.compile else model,
        device=device,
        on_gradient=_hooks(regularizations, "on_gradient"),
        after_step=_hooks(regularizations, "after_step"),
        swaps=_hooks(regularizations, "swap"),
        after_epoch=[*_hooks(regularizations, "after_epoch"), _hear(schedule)],
    )
    statistics = None
    if config.log.layers:
        probe = train_split.inputs[:PROBE].to(device), train_split.targets[:PROBE].to(device)
        statistics = LayerStatistics(preprocess(to_float(probe[0])), probe[1], net, autocast)
    thread_count = thread_count or devices.threads(3.0 * size.flops_per_sample * settings.batch_size)
    return Run(config, training, regularizations, statistics, preprocess, source, splits, size, thread_count)


def _model(config: Config, *arguments: Any) -> nn.Module:
    try:
        model: nn.Module = config.tip("model")(*arguments, config.tip("activation"))
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        raise ConfigError("model: does not fit into this machine's memory; make it smaller") from error
    return model


def build_model(
    config: Config, input_shape: tuple[int, ...], num_classes: int, regularizations: Sequence[Regularization]
) -> nn.Module:
    """The net with what regularizations place in it, not initialized yet. Errors: ConfigError."""
    with torch.random.fork_rng(devices=[]):
        # what an init scheme leaves alone keeps these draws
        torch.manual_seed(seeds.derive(config.settings.seed, "model"))
        model = _model(config, input_shape, num_classes)
    for prepare_model in _hooks(regularizations, "prepare"):
        prepare_model(model)
    return model


def initialize(model: nn.Module, config: Config) -> None:
    seed = config.settings.seed
    config.tip("init")(model, lambda name: seeds.generator(seed, "init", name))


def _hooks(parts: Sequence[Any], name: str) -> list[Any]:
    return [getattr(part, name) for part in parts if hasattr(part, name)]


def _hear(schedule: Schedule) -> Any:
    def hear(metrics: Any) -> bool:
        schedule.hear(metrics)
        return False

    return hear


def _try(augmentations: Sequence[Augment], train_split: Split) -> None:
    """What cannot augment these data says so now, not in the first step. Errors: ConfigError."""
    inputs, targets = to_float(train_split.inputs[:3]), train_split.targets[:3]
    for augment in augmentations:
        inputs, targets = augment(inputs, targets, torch.Generator())


def _criterion(regularizations: Sequence[Regularization]) -> Criterion:
    criterion: Criterion = functional.cross_entropy
    for wrap in _hooks(regularizations, "criterion"):
        criterion = wrap(criterion)
    return criterion


def _check_batch_size(config: Config, count: int) -> None:
    batch_size = config.settings.batch_size
    if batch_size > count:
        raise ConfigError(f"batch_size: {batch_size} is more than the {count} training samples; lower it")
    if config.settings.accumulate > batch_size:
        raise ConfigError(f"accumulate: {config.settings.accumulate} parts do not fit a batch of {batch_size}")


def _check_batch_norm(config: Config, model: nn.Module) -> None:
    part = config.settings.batch_size // config.settings.accumulate
    if part < 2 and any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in model.modules()):
        raise ConfigError(
            f"batch_size: {config.settings.batch_size} with accumulate={config.settings.accumulate} leaves one sample"
            " at a time, which batch norm cannot take; raise it, or write model.norm=none"
        )
