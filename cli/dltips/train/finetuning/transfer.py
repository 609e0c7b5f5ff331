"""What a run takes over from a trained net: the form of its inputs, its weights, and the plan of what trains when."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from dltips import memory
from dltips.config.validation import Config
from dltips.errors import ConfigError
from dltips.feed.augmentations import Augmentations
from dltips.feed.batches import Feed, Resident
from dltips.feed.load import Wanted
from dltips.feed.splits import Split
from dltips.formatting import few
from dltips.nets import stages
from dltips.tips.finetune import Features, FinetunePlan, Phase, ReplacedHead
from dltips.train import model_contract, seeds
from dltips.train.data import Data, epoch_order
from dltips.train.display import counted
from dltips.train.loop import evaluation_batch

if TYPE_CHECKING:
    from dltips.weights.match import Loaded
    from dltips.weights.source import Pretrained

Autocast = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True)
class Begun:
    """What a run that goes on has settled already, from its checkpoint."""

    preprocess: nn.Module
    input_shape: tuple[int, ...]
    epoch: int
    model: Mapping[str, Tensor]
    plan: str | None  # as `write_plan` wrote it; None for a run without fine-tuning


def find(config: Config) -> Pretrained | None:
    """The weights that the run starts from, None without fine-tuning. Errors: ConfigError."""
    strategy, common = config.tip("finetune").name, config.common["finetune"]()
    if strategy == "none":
        for key in ("source", "file"):
            if getattr(common, key) is not None:
                raise ConfigError(
                    f"finetune.{key}: {getattr(common, key)} is given, but finetune=none trains from scratch; choose"
                    " a strategy, such as finetune=linear_probe (dltips ls finetune)"
                )
        return None
    if common.source is None:
        raise ConfigError(
            f"finetune.source: is missing; finetune={strategy} starts from trained weights: give a run folder,"
            " timm:NAME or a weights file, or write finetune=none"
        )
    model_contract.refuse(
        config,
        "preprocessing",
        f"finetune={strategy}: the inputs are prepared as the weights want; a bare file takes finetune.mean and .std",
    )
    from dltips.weights.match import refuse_foreign
    from dltips.weights.source import find as find_source

    pretrained = find_source(config)
    refuse_foreign(pretrained, config.tip("model"), common)
    return pretrained


def wanted(config: Config, pretrained: Pretrained | None, begun: Begun | None) -> Wanted | None:
    """What form the inputs must have; None: their own."""
    if begun is not None and config.tip("finetune").name != "none":
        return Wanted(None, None, begun.input_shape)
    if pretrained is None:
        return None
    return Wanted(pretrained.channels, pretrained.sides, pretrained.shape)


def put(pretrained: Pretrained, model: nn.Module, config: Config) -> Loaded:
    """Load the weights into the net, all but its head. Errors: ConfigError."""
    from dltips.weights.match import put as put_into

    return put_into(pretrained, model, config.tip("model"), config.common["finetune"]())


def check_missing(
    origin: str, missing: Sequence[str], model: nn.Module, plan: FinetunePlan, *, freeze_norm: bool
) -> None:
    """Errors: ConfigError if a stage that rests lacks some of its weights, which would stay random for as long.

    With freeze_norm the statistics of batch norm rest everywhere.
    """
    trained = set(plan.phases[0].rates)
    names = [stage.name for stage in stages.stages_of(model)]
    kept = names if plan.top is None else names[: names.index(plan.top.stage) + 1]
    rests = [stage for stage in stages.stages_of(model) if stage.name in kept and stage.name not in trained]
    resting = {name for stage in rests for name in stages.tensors_of(model, stage)}
    if freeze_norm:
        resting |= {name for name, _ in model.named_buffers()}
    random = sorted(resting & set(missing))
    if random:
        raise ConfigError(
            f"finetune.source: {origin} has no {few(random)} of this shape, and finetune={plan.strategy}"
            f"{' with freeze_norm' if freeze_norm else ''} would leave that random; take finetune=full, inputs of the"
            " size that the weights were made for, or mend finetune.keys"
        )


# Plans, and the nets that they make


def make_plan(config: Config, model: nn.Module, data: Data, autocast: Autocast, begun: Begun | None) -> FinetunePlan:
    """What the strategy makes of the net and the data, or made of them when the run began. Errors: ConfigError."""
    if begun is not None:
        return (
            FinetunePlan("none", ())
            if begun.plan is None
            else read_plan(begun.plan, begun.model, len(data.source.classes))
        )
    tip, settings = config.tip("model"), config.settings
    subject = LoadedNet(
        model=model,
        architecture=str(tip.knobs.get("architecture", tip.name)),
        epochs=settings.epochs,
        counts=torch.bincount(data.train.targets, minlength=len(data.source.classes)).tolist(),
        seed=settings.seed,
        data=data,
        batch_size=settings.batch_size,
        autocast=autocast,
    )
    plan: FinetunePlan = config.tip("finetune")(subject)
    names = [tip.name for tip in config.tips["augmentation"] if tip.name != "none"]
    if plan.top is not None and config.tip("finetune").name == "auto":
        # nobody typed that strategy: what does not go with it is left out, and said
        left = [f"augmentation={','.join(names)}"] if names else []
        left += [f"data.balance={data.common.balance}"] if data.common.balance != "none" else []
        note = f"auto: {' and '.join(left)} left out: {plan.strategy} is fitted once, to the samples as they are"
        return replace(plan, notes=[*plan.notes, note]) if left else plan
    if plan.top is not None and names:
        raise ConfigError(
            f"augmentation: finetune={plan.strategy} is fitted once and sees no new draws; write augmentation=none"
        )
    if plan.top is not None and data.common.balance != "none":
        raise ConfigError(
            f"data.balance: finetune={plan.strategy} is fitted to the samples as they are, not to"
            f" {data.common.balance}; write data.balance=none"
        )
    if plan.views and data.augmentations.after:
        raise ConfigError(
            f"augmentation: {data.augmentations.names[-1]} mixes the samples of a batch, which features that are kept"
            " cannot show; write finetune.views=0, or leave it out"
        )
    return plan


def as_planned(data: Data, plan: FinetunePlan) -> Data:
    """The data as the plan takes them: a top is fitted once, to the samples as they are."""
    if plan.top is None:
        return data
    return replace(data, common=replace(data.common, balance="none"), augmentations=Augmentations((), (), ()))


def write_plan(plan: FinetunePlan) -> str:
    """The plan as a checkpoint holds it: all but the top's weights."""
    phases = [[phase.epoch, dict(phase.rates)] for phase in plan.phases]
    top = None if plan.top is None else [plan.top.stage, plan.top.kernel]
    return json.dumps({"strategy": plan.strategy, "phases": phases, "views": plan.views, "top": top})


def read_plan(text: str, model: Mapping[str, Tensor], num_classes: int) -> FinetunePlan:
    """The plan that was written, with an empty top, for the checkpoint's weights. Errors: ConfigError."""
    try:
        plain = json.loads(text)
        top = None
        if plain["top"] is not None:
            from dltips.tips.finetune.earlier import FeatureClassifier

            stage, kernel = map(str, plain["top"])
            top = ReplacedHead(stage, kernel, FeatureClassifier(len(model["top.shift"]), num_classes, kernel))
        phases = [
            Phase(int(epoch), {str(name): float(rate) for name, rate in rates.items()})
            for epoch, rates in plain["phases"]
        ]
        return FinetunePlan(str(plain["strategy"]), phases, int(plain["views"]), top)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ConfigError("the checkpoint does not say how its net was fine-tuned; train again") from error


def put_back(begun: Begun, model: nn.Module) -> None:
    """The checkpoint's weights, also those that no epoch changes. Errors: ConfigError."""
    try:
        model.load_state_dict(begun.model)
    except (KeyError, TypeError, RuntimeError) as error:
        raise ConfigError("resume: the checkpoint's net is another one than the config's") from error


def with_replaced_head(model: nn.Module, top: ReplacedHead | None) -> nn.Module:
    """The net up to the top's stage, and the top in the place of what comes after; without a top the net itself."""
    if top is None:
        return model
    body = stages.up_to(model, top.stage)
    return nn.Sequential(OrderedDict(body=body, pool=stages.pool_of(model), top=top.module))


def cut(model: nn.Module) -> tuple[nn.Module, nn.Module]:
    """What comes before the net's head, and the head as a net of its own. Errors: ConfigError."""
    body, head = stages.cut(model)
    if not isinstance(head, nn.Sequential):
        head = nn.Sequential(OrderedDict(head=head))
    return body, head


# What a strategy sees, and what the loop is given


@dataclass(frozen=True)
class LoadedNet:
    """A net with its weights on its device, and the run's data: see dltips.tips.finetune.Subject."""

    model: nn.Module
    architecture: str
    epochs: int
    counts: Sequence[int]
    seed: int
    data: Data
    batch_size: int
    autocast: Autocast

    @cached_property
    def stages(self) -> Sequence[str]:
        return [stage.name for stage in stages.stages_of(self.model)]

    def features(self, names: Sequence[str]) -> Mapping[str, Features]:
        train, train_targets = self._pass(self.data.feed(self.data.train, once=True), names)
        val, val_targets = self._pass(self.data.feed(self.data.splits.val, once=True), names)
        return {name: Features(train[name], train_targets, val[name], val_targets) for name in names}

    def _pass(self, feed: Feed, names: Sequence[str]) -> tuple[dict[str, Tensor], Tensor]:
        self.model.eval()
        found: dict[str, list[Tensor]] = {name: [] for name in names}
        targets = []
        with torch.no_grad():
            batches = feed(torch.arange(feed.count), evaluation_batch(feed, self.batch_size))
            for inputs, labels in counted(batches, feed.count, "features"):
                with self.autocast():
                    outputs = stages.outputs(self.model, inputs, names)
                for name, output in outputs.items():
                    found[name].append(output.float().cpu())
                targets.append(labels.cpu())
        joined = {name: torch.cat(found.pop(name)) for name in names}
        for name, features in joined.items():
            _check_finite(features, name)
        return joined, torch.cat(targets)


@dataclass(frozen=True)
class TrainingInputs:
    """What the loop passes to which part of the net, and in which order."""

    part: nn.Module  # the net, or its head if the features before it are kept
    train: Feed
    val: Feed
    order: Callable[[int], Tensor]
    augmentation_names: Sequence[str]
    probe: Tensor  # the fixed batch on which layers are watched, as the part takes it


def supply(
    config: Config, model: nn.Module, data: Data, plan: FinetunePlan, autocast: Autocast, probe: Tensor
) -> TrainingInputs:
    """The samples for the whole net; or, where a plan has views, what comes before its head for the head alone."""
    seed, batch_size = config.settings.seed, config.settings.batch_size
    order = epoch_order(data.common, seed, data.train, len(data.source.classes))
    if not plan.views:
        names = data.augmentations.names
        train, val = data.feed(data.train, augmented=True), data.feed(data.splits.val)
        return TrainingInputs(model, train, val, order, names, probe)
    body, head = cut(model)
    names = data.augmentations.names
    views = plan.views if names else 1
    count = len(data.train)

    def generators(view: int) -> list[torch.Generator]:
        return [seeds.generator(seed, "augmentation", name, view, str(data.device)) for name in names]

    def with_views(epoch: int) -> Tensor:
        drawn = torch.randint(views, (count,), generator=seeds.generator(seed, "views", epoch=epoch))
        return order(epoch) + count * drawn

    train, val = data.feed(data.train, augmented=True, once=True), data.feed(data.splits.val, once=True)
    if plan.top is not None and plan.top.features is not None:  # known since the fit
        known = plan.top.features
        train_features, val_features = Split(known.train, known.train_targets), Split(known.val, known.val_targets)
    else:
        train_features = keep_features(body, train, batch_size, views, generators, autocast)
        val_features = keep_features(body, val, batch_size, 1, lambda view: (), autocast)
    with torch.no_grad(), autocast():
        chunk = evaluation_batch(val, batch_size)
        features = torch.cat([body(part).float() for part in torch.split(probe, chunk)])
    return TrainingInputs(
        part=head,
        train=Feed(Resident(train_features, data.device), count, nn.Identity()),
        val=Feed(Resident(val_features, data.device), len(val_features), nn.Identity()),
        order=with_views if views > 1 else order,
        augmentation_names=(),
        probe=features,
    )


def keep_features(
    body: nn.Module,
    feed: Feed,
    batch_size: int,
    views: int,
    generators: Callable[[int], Sequence[torch.Generator]],
    autocast: Autocast,
) -> Split:
    """A feed's samples as the body puts them out, view after view: (views * N, ...). Errors: ConfigError.

    `generators` are the streams of a view's augmentations.
    """
    body.eval()
    found: Tensor | None = None
    targets, place = [], 0
    with torch.no_grad():
        for view in range(views):
            batches = feed(torch.arange(feed.count), evaluation_batch(feed, batch_size), generators(view))
            what = f"features, view {view + 1} of {views}" if views > 1 else "features"
            for inputs, labels in counted(batches, feed.count, what):
                with autocast():
                    outputs = body(inputs).float()
                if found is None:
                    if outputs.device.type == "cpu":
                        memory.require_memory("finetune.views", views * feed.count * outputs[0].nbytes)
                    found = outputs.new_empty((views * feed.count, *outputs.shape[1:]))
                found[place : place + len(outputs)] = outputs
                place += len(outputs)
                targets.append(labels)
    assert found is not None
    _check_finite(found, "the net")
    return Split(found, torch.cat(targets))


def _check_finite(features: Tensor, where: str) -> None:
    if not bool(features.isfinite().all()):
        raise ConfigError(
            f"finetune.source: what {where} puts out is not finite for these data; the weights are damaged, or their"
            " batch norm's statistics are: take others"
        )
