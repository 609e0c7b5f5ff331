"""Builds a training from a config: data, net, tips and hooks. Writes nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dltips.catalog.combinations import warnings
from dltips.config.validation import Config
from dltips.errors import ConfigError
from dltips.feed import balance
from dltips.feed.batches import batch_sizes, to_float
from dltips.feed.dataset_cache import DatasetCache
from dltips.feed.splits import Split, Splits
from dltips.nets.flat import FlatModel
from dltips.nets.size import Size, measure
from dltips.nets.spectrogram import check_sample_rate
from dltips.tips.data import DataKnobs, Source
from dltips.tips.finetune import FinetunePlan
from dltips.tips.optimizer import Optimizer, OptimizerKnobs, with_rates
from dltips.tips.regularization import Regularization
from dltips.tips.schedule import Schedule, Steps
from dltips.train import device as devices
from dltips.train import model_contract, seeds
from dltips.train.data import Data, prepare_data
from dltips.train.finetuning import features, plans, pretrained
from dltips.train.finetuning.freezing import FreezeSchedule
from dltips.train.layer_statistics import LayerStatistics
from dltips.train.loop import Autocast, Criterion, Hooks, Training, TrainingInputs, microbatches_for
from dltips.train.parallel.group import current_group
from dltips.train.resumed import Resumed
from dltips.train.snapshot import Best, Weights

if TYPE_CHECKING:
    from dltips.weights.source import Pretrained

PROBE_SAMPLES = 64  # samples in the fixed batch for layer statistics


@dataclass(frozen=True)
class Run:
    """A training ready to start, and the facts that its run folder records."""

    config: Config
    training: Training
    regularizations: Sequence[Regularization]
    statistics: LayerStatistics | None
    preprocess: nn.Module
    source: Source
    splits: Splits
    size: Size
    threads: devices.Threads
    plan: FinetunePlan
    freezing: FreezeSchedule
    feature_seconds: float  # seconds spent on features before the first epoch
    weights_hash: str | None  # hash of the weights that fine-tuning started from
    notes: Sequence[str] = ()  # for the user, before the run starts

    @property
    def input_shape(self) -> tuple[int, ...]:
        return tuple(self.splits.train.inputs.shape[1:])

    def unfreeze(self, epoch: int, best: Best | None) -> Best | None:
        """Applies this epoch's freezing phase; returns the best weights, re-laid out for the new flat buffers."""
        if not self.freezing.begins_phase(epoch):
            return best
        net = self.training.net
        named = best.weights.named(net) if best is not None else {}
        net.flatten(self.freezing.freeze(epoch))
        self.training.use_optimizer(optimizer_for(self.config, net, self.freezing, epoch))
        for part in self.regularizations:
            part.on_unfreeze()
        return None if best is None else Best(best.metrics, Weights.from_named(named, net))


def build_run(config: Config, resumed: Resumed | None = None, datasets: DatasetCache | None = None) -> Run:
    """Loads the data, builds the net, binds the tips. Raises ConfigError.

    A resumed run keeps the decisions stored in its checkpoint, and the number of threads: its bits depend on them. Runs
    that share `datasets` load their data once.
    """
    # statistics and first weights depend on the order of sums; and starting a second thread costs tiny runs 24 ms
    with devices.one_thread():
        return _build(config, resumed, datasets or DatasetCache())


def _build(config: Config, resumed: Resumed | None, datasets: DatasetCache) -> Run:
    settings, threads = config.settings, resumed.threads if resumed else None
    settled = resumed if resumed is not None and resumed.is_settled else None
    device = devices.choose(settings.device)
    autocast = devices.autocast(settings.precision, device)
    with current_group().in_turn():  # the other processes find what one has downloaded
        source = None if settled else pretrained.find(config)
        given_preprocess = settled.preprocess if settled else source.preprocess if source else None
        data = prepare_data(config, device, given_preprocess, pretrained.wanted(config, source, settled), datasets)
    check_batch_size(config, len(data.train))
    regularizations = [tip() for tip in config.tips["regularization"]]
    for plan_ahead in _hooks(regularizations, "plan"):
        plan_ahead(settings.epochs)
    probe = data.preprocess(to_float(data.train.inputs[:PROBE_SAMPLES].to(device)))
    model, notes, missing = _initialized(config, data, regularizations, source, probe)
    tuned = _tune(config, model, data, probe, autocast, threads, settled)
    freeze_norm = config.common["finetune"]().freeze_norm
    if source is not None and missing:
        pretrained.check_missing(source.origin, missing, model, tuned.plan, freeze_norm=freeze_norm)
    epoch = settled.epoch if settled else 0
    freezing = FreezeSchedule(tuned.model, tuned.plan.phases, freeze_norm=freeze_norm)
    net = FlatModel(tuned.model, freezing.freeze(epoch))
    _check_batch_norm(config, net, freezing)
    optimizer = optimizer_for(config, net, freezing, epoch)
    training = _training(config, net, tuned.data, tuned.inputs, optimizer, regularizations, autocast)
    statistics = None
    if config.log.layers:
        targets = data.train.targets[:PROBE_SAMPLES].to(device)
        statistics = LayerStatistics(tuned.inputs.probe, targets, tuned.inputs.model, autocast)
    return Run(
        config=config,
        training=training,
        regularizations=regularizations,
        statistics=statistics,
        preprocess=data.preprocess,
        source=data.source,
        splits=data.splits,
        size=tuned.size,
        threads=tuned.threads,
        plan=tuned.plan,
        freezing=freezing,
        feature_seconds=tuned.seconds,
        weights_hash=source.hash if source else settled.weights_hash if settled else None,
        notes=[*data.source.notes, *warnings(config.tips, config.resolved), *notes, *tuned.plan.notes],
    )


def _initialized(
    config: Config,
    data: Data,
    regularizations: Sequence[Regularization],
    source: Pretrained | None,
    probe: Tensor,
) -> tuple[nn.Module, list[str], Sequence[str]]:
    """Returns the initialized model on its device, notes for the user, and the tensors missing from the source.

    Raises ConfigError.
    """
    model = build_model(config, tuple(data.train.inputs.shape[1:]), len(data.source.classes), regularizations)
    check_sample_rate(model, data.source.reader.get("sample_rate"))
    notes = model_contract.notes(model, config)
    if hasattr(model, "fit"):  # a simpler model, fitted before the epochs begin
        model_contract.fit(model, config, data.preprocess, data.train)
    initialize(model, config, probe.cpu())
    missing: Sequence[str] = ()
    if source is not None:
        loaded = pretrained.load_weights(source, model, config)
        notes += [*source.notes, loaded.report]
        missing = loaded.missing
    return _to_device(data.device, model, data.train), notes, missing


@dataclass(frozen=True)
class _Tuned:
    """A net prepared by its fine-tuning strategy, and the inputs of each of its parts."""

    model: nn.Module
    data: Data
    plan: FinetunePlan
    inputs: TrainingInputs
    size: Size
    threads: devices.Threads
    seconds: float


def _tune(
    config: Config,
    model: nn.Module,
    data: Data,
    probe: Tensor,
    autocast: Autocast,
    threads: devices.Threads | None,
    settled: Resumed | None,
) -> _Tuned:
    """Runs the fine-tuning strategy and precomputes the features that it caches. Raises ConfigError."""
    settings, input_shape = config.settings, tuple(data.train.inputs.shape[1:])
    size = measure(model, input_shape, data.device)
    feature_threads = (
        threads.features if threads else devices.threads(3.0 * size.flops_per_sample * settings.batch_size)
    )
    if config.tip("finetune").name != "none":  # features may be computed: as fast as a bare loop
        devices.keep_freed_memory()
    with devices.conditions(data.device, thread_count=feature_threads, deterministic=settings.deterministic):
        started = time.perf_counter()
        plan = plans.make_plan(config, model, data, autocast, settled)
        model = _to_device(data.device, plans.with_replaced_head(model, plan.top), data.train)
        if settled is not None:
            plans.load_weights(settled, model)
        data = plans.as_planned(data, plan)
        inputs = features.training_inputs(config, model, data, plan, autocast, probe)
        seconds = time.perf_counter() - started if plan.phases else 0.0
    if plan.top is not None:
        size = measure(model, input_shape, data.device)
        plan = replace(plan, top=replace(plan.top, features=None))  # they are part of the inputs
    trained = size if inputs.model is model else measure(inputs.model, inputs.probe.shape[1:], data.device)
    count = devices.threads(3.0 * trained.flops_per_sample * settings.batch_size)
    return _Tuned(model, data, plan, inputs, size, threads or devices.Threads(count, feature_threads), seconds)


def optimizer_for(config: Config, net: FlatModel, freezing: FreezeSchedule, epoch: int) -> Optimizer:
    """Returns the optimizer of this epoch's trainable parameters. Raises ConfigError."""
    knobs: OptimizerKnobs = config.common["optimizer"]()
    optimizer: Optimizer = config.tip("optimizer")(net)
    return with_rates(optimizer, net, knobs.rates, freezing.rates(epoch), freezing.trained_later(epoch))


def _training(
    config: Config,
    net: FlatModel,
    data: Data,
    inputs: TrainingInputs,
    optimizer: Optimizer,
    regularizations: Sequence[Regularization],
    autocast: Autocast,
) -> Training:
    settings = config.settings
    steps_per_epoch = len(batch_sizes(len(data.train), settings.batch_size))
    steps = Steps(settings.epochs * steps_per_epoch, steps_per_epoch)
    schedule: Schedule = config.common["schedule"](config.tip("schedule")(steps), steps)
    knobs: OptimizerKnobs = config.common["optimizer"]()
    return Training(
        net=net,
        optimizer=optimizer,
        schedule=schedule,
        inputs=inputs,
        criterion=_criterion(data.common, data.train, len(data.source.classes), data.device, regularizations),
        autocast=autocast,
        microbatches=microbatches_for(settings.accumulate, knobs.reduction),
        forward=torch.compile(inputs.model) if settings.compile else inputs.model,
        device=data.device,
        seed=settings.seed,
        batch_size=settings.batch_size,
        steps_per_epoch=steps_per_epoch,
        hooks=Hooks(
            on_gradient=_hooks(regularizations, "on_gradient"),
            after_step=_hooks(regularizations, "after_step"),
            end_epoch=_hooks(regularizations, "end_epoch"),
            swaps=_hooks(regularizations, "swap"),
            on_metrics=[*_hooks(regularizations, "after_epoch"), _schedule_hook(schedule)],
        ),
    )


def _to_device(device: torch.device, model: nn.Module, split: Split) -> nn.Module:
    """Moves the net to the device, in channels_last for images."""
    model = model.to(device)
    return model.to(memory_format=torch.channels_last) if split.inputs.dim() == 4 else model


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
    """Returns the uninitialized net, with the layers that regularizations add. Raises ConfigError."""
    with torch.random.fork_rng(devices=[]):
        # parameters that the init scheme leaves alone keep these draws
        torch.manual_seed(seeds.derive(config.settings.seed, "model"))
        model = _model(config, input_shape, num_classes)
    for prepare_model in _hooks(regularizations, "prepare"):
        prepare_model(model)
    return model


def initialize(model: nn.Module, config: Config, inputs: Tensor) -> None:
    """Applies the init scheme, unless the model keeps its own weights; inputs are one preprocessed CPU batch."""
    if "init" not in model_contract.kept_families(model):
        seed = config.settings.seed
        config.tip("init")(model, lambda name: seeds.generator(seed, "init", name), inputs)
    init_from_data = getattr(model, "init_from_data", None)
    if callable(init_from_data):  # one layer is initialized from data
        init_from_data(inputs)


def _hooks(parts: Sequence[Any], name: str) -> list[Any]:
    return [getattr(part, name) for part in parts if hasattr(part, name)]


def _schedule_hook(schedule: Schedule) -> Callable[[Mapping[str, float]], bool]:
    """Returns a hook that passes each epoch's metrics to the schedule, for plateau, and never stops the run."""

    def adjust(metrics: Mapping[str, float]) -> bool:
        schedule.on_metrics(metrics)
        return False

    return adjust


def _criterion(
    common: DataKnobs,
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


def check_batch_size(config: Config, count: int) -> None:
    batch_size = config.settings.batch_size
    if batch_size > count:
        raise ConfigError(f"batch_size: {batch_size} is more than the {count} training samples; lower it")
    if config.settings.accumulate > batch_size:
        raise ConfigError(f"accumulate: {config.settings.accumulate} parts do not fit a batch of {batch_size}")


def _check_batch_norm(config: Config, net: FlatModel, freezing: FreezeSchedule) -> None:
    microbatch_size = config.settings.batch_size // config.settings.accumulate
    frozen = {id(layer) for stage in freezing.always_frozen() for layer in stage.modules()}
    norms = [layer for layer in net.module.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    if microbatch_size < 2 and any(id(layer) not in frozen for layer in norms):
        raise ConfigError(
            f"batch_size: {config.settings.batch_size} with accumulate={config.settings.accumulate} leaves one sample"
            " at a time, which batch norm cannot take; raise it, or write model.norm=none"
        )
