"""From a config to a training that is ready to go: data, net, rules and hooks. Writes nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dltips.combinations import warnings
from dltips.config import Config
from dltips.feed import balance
from dltips.feed.augmentations import Augmentations
from dltips.feed.batches import Feed, batch_sizes, to_float
from dltips.feed.load import load
from dltips.feed.placement import place
from dltips.feed.splits import Split, Splits, split
from dltips.net import Net
from dltips.registry import ConfigError, Tip
from dltips.spectrogram import check_sample_rate
from dltips.tips.augmentation import Samples
from dltips.tips.data import Common, Source
from dltips.tips.optimizer import Common as Optimizing
from dltips.tips.optimizer import with_rates
from dltips.tips.preprocessing import Fill, save
from dltips.tips.regularization import Regularization
from dltips.tips.schedule import Schedule, Steps
from dltips.train import device as devices
from dltips.train import own, seeds
from dltips.train.loop import Criterion, Training, parts_for
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
    notes: Sequence[str] = ()  # what the user should hear of before the run starts
    test_reads: int = 0  # before this run was resumed

    @property
    def input_shape(self) -> tuple[int, ...]:
        return tuple(self.splits.train.inputs.shape[1:])


@dataclass(frozen=True)
class Data:
    """A run's samples, and what is done to them on their way to the net."""

    common: Common
    source: Source
    splits: Splits
    train: Split  # its samples copied out, or frozen augmented copies of them
    augmentations: Augmentations
    preprocess: nn.Module


def prepare_data(config: Config, device: torch.device, fitted: nn.Module | None) -> Data:
    """Load, split, fit what learns from the training split. Errors: ConfigError."""
    seed, common = config.settings.seed, config.common["data"]()
    balance.check(common.balance, common.shuffle)
    source = load(config.tip("data"), common)
    splits = split(source, common)
    train = splits.train.taken()
    samples = Samples(train.inputs, train.targets, len(source.classes))
    augmentations = Augmentations.build(config.tips["augmentation"], samples)
    augmentations.try_on(train)
    preprocess = fitted or fit_preprocessing(config.tip("preprocessing"), train.inputs, lacks_values(source))
    if common.expand:
        train, augmentations = augmentations.frozen(
            train, common.expand, lambda name, copy: seeds.generator(seed, "expand", name, copy)
        )
    return Data(common, source, splits, train, augmentations, preprocess.to(device))


def prepare(config: Config, thread_count: int | None = None, fitted: nn.Module | None = None) -> Run:
    """Load the data, build the net, bind the tips. Errors: ConfigError.

    A thread count, and the preprocessing as it was fitted, are given when a run is resumed: its bits depend on them.
    """
    settings = config.settings
    device = devices.choose(settings.device)
    autocast = devices.autocast(settings.precision, device)
    data = prepare_data(config, device, fitted)
    common, source, train_split, preprocess = data.common, data.source, data.train, data.preprocess
    augmentations, classes = data.augmentations, len(source.classes)
    _check_batch_size(config, len(train_split))
    regularizations = [tip() for tip in config.tips["regularization"]]
    for plan in _hooks(regularizations, "plan"):
        plan(settings.epochs)
    model = build_model(config, tuple(train_split.inputs.shape[1:]), classes, regularizations)
    check_sample_rate(model, source.reader.get("sample_rate"))
    probe = preprocess(to_float(train_split.inputs[:PROBE].to(device)))
    notes = [*source.notes, *warnings(config), *own.notes(model, config)]
    if hasattr(model, "fit"):  # a simpler model, which is fitted before the epochs begin
        own.fit(model, config, preprocess, train_split)
    initialize(model, config, probe.cpu())
    config.tip("finetune")(model, train_split.inputs).apply(model)
    size = measure(model, train_split.inputs.shape[1:], torch.device("cpu"))
    _check_batch_norm(config, model)
    model = model.to(device)
    if train_split.inputs.dim() == 4:
        model = model.to(memory_format=torch.channels_last)
    net = Net(model)
    steps_per_epoch = len(batch_sizes(len(train_split), settings.batch_size))
    steps = Steps(settings.epochs * steps_per_epoch, steps_per_epoch)
    schedule: Schedule = config.common["schedule"](config.tip("schedule")(steps), steps)
    optimizing: Optimizing = config.common["optimizer"]()
    training = Training(
        net=net,
        rule=with_rates(config.tip("optimizer")(net), net, optimizing.rates),
        schedule=schedule,
        train=Feed(
            place(train_split, common.placement, device),
            len(train_split),
            preprocess,
            augmentations.before,
            augmentations.after,
        ),
        val=Feed(place(data.splits.val, common.placement, device), len(data.splits.val), preprocess),
        batch_size=settings.batch_size,
        steps_per_epoch=steps_per_epoch,
        seed=settings.seed,
        order=epoch_order(common, settings.seed, train_split, classes),
        augmentation_names=augmentations.names,
        criterion=_criterion(common, train_split, classes, device, regularizations),
        autocast=autocast,
        parts=parts_for(settings.accumulate, optimizing.reduction),
        forward=torch.compile(model) if settings.compile else model,
        device=device,
        on_gradient=_hooks(regularizations, "on_gradient"),
        after_step=_hooks(regularizations, "after_step"),
        end_epoch=_hooks(regularizations, "end_epoch"),
        swaps=_hooks(regularizations, "swap"),
        after_epoch=[*_hooks(regularizations, "after_epoch"), _hear(schedule)],
    )
    statistics = None
    if config.log.layers:
        statistics = LayerStatistics(probe, train_split.targets[:PROBE].to(device), net, autocast)
    thread_count = thread_count or devices.threads(3.0 * size.flops_per_sample * settings.batch_size)
    return Run(
        config, training, regularizations, statistics, preprocess, source, data.splits, size, thread_count, notes
    )


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


def initialize(model: nn.Module, config: Config, inputs: Tensor) -> None:
    """The init scheme, unless the model keeps its own weights; inputs are one preprocessed batch, on the CPU."""
    if "init" not in own.kept(model):
        seed = config.settings.seed
        config.tip("init")(model, lambda name: seeds.generator(seed, "init", name), inputs)
    look = getattr(model, "look", None)
    if callable(look):  # a layer is set from data
        look(inputs)


def lacks_values(source: Source) -> bool:
    """Whether a number is missing (NaN) anywhere: one sample for validation is enough."""
    parts = (source.inputs, source.val_inputs, source.test_inputs)
    return any(part is not None and part.is_floating_point() and bool(part.isnan().any()) for part in parts)


def fit_preprocessing(tip: Tip, train_inputs: Tensor, missing: bool) -> nn.Module:
    """The preprocessing, fitted; in front of it, where values are missing, their features' means over training.

    Errors: ConfigError.
    """
    fill = None
    if missing:
        fill = Fill(value=train_inputs.nanmean(0).nan_to_num(0.0))
        train_inputs = fill(train_inputs)
    fitted: nn.Module = tip(train_inputs)
    save(fitted)  # says now what no checkpoint could hold
    return fitted if fill is None else nn.Sequential(fill, *(fitted if isinstance(fitted, nn.Sequential) else [fitted]))


def _hooks(parts: Sequence[Any], name: str) -> list[Any]:
    return [getattr(part, name) for part in parts if hasattr(part, name)]


def _hear(schedule: Schedule) -> Any:
    def hear(metrics: Any) -> bool:
        schedule.hear(metrics)
        return False

    return hear


def epoch_order(common: Common, seed: int, train_split: Split, classes: int) -> Callable[[int], Tensor]:
    """The order of an epoch's samples, from the epoch."""
    count, targets = len(train_split), train_split.targets
    if common.balance == "sampling":
        return lambda epoch: balance.balanced_order(targets, classes, seeds.generator(seed, "order", epoch=epoch))
    if common.shuffle:
        return lambda epoch: seeds.shuffled(seed, epoch, count)
    return lambda epoch: torch.arange(count)


def _criterion(
    common: Common,
    train_split: Split,
    classes: int,
    device: torch.device,
    regularizations: Sequence[Regularization],
) -> Criterion:
    criterion: Criterion = functional.cross_entropy
    if common.balance == "loss":
        criterion = balance.weighted_loss(balance.class_weights(train_split.targets, classes).to(device))
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
