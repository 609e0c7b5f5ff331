"""Makes, saves and applies fine-tuning plans."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from dltips.config.validation import Config
from dltips.errors import ConfigError
from dltips.feed.augmentations import Augmentations
from dltips.feed.batches import Feed
from dltips.nets import stages
from dltips.tips.finetune import Features, FinetunePlan, Phase, ReplacedHead
from dltips.train.data import Data
from dltips.train.display import with_progress
from dltips.train.finetuning.features import check_finite
from dltips.train.loop import Autocast, evaluation_batch
from dltips.train.resumed import Resumed

# Plans, and the nets that they produce


def make_plan(
    config: Config, model: nn.Module, data: Data, autocast: Autocast, resumed: Resumed | None
) -> FinetunePlan:
    """Returns the strategy's plan for the net and the data, or the one stored in the checkpoint. Raises ConfigError."""
    if resumed is not None:
        return (
            FinetunePlan("none", ())
            if resumed.plan is None
            else read_plan(resumed.plan, resumed.model, len(data.source.classes))
        )
    tip, settings = config.tip("model"), config.settings
    net = LoadedNet(
        model=model,
        architecture=str(tip.knobs.get("architecture", tip.name)),
        epochs=settings.epochs,
        counts=torch.bincount(data.train.targets, minlength=len(data.source.classes)).tolist(),
        seed=settings.seed,
        data=data,
        batch_size=settings.batch_size,
        autocast=autocast,
    )
    plan: FinetunePlan = config.tip("finetune")(net)
    names = [tip.name for tip in config.tips["augmentation"] if tip.name != "none"]
    if plan.top is not None and config.tip("finetune").name == "auto":
        # auto chose the strategy, so its inapplicable knobs are dropped and reported
        dropped = [f"augmentation={','.join(names)}"] if names else []
        dropped += [f"data.balance={data.common.balance}"] if data.common.balance != "none" else []
        note = f"auto: {' and '.join(dropped)} left out: {plan.strategy} is fitted once, to the samples as they are"
        return replace(plan, notes=[*plan.notes, note]) if dropped else plan
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
    """Returns the data as the plan takes them: a fitted head takes the samples without augmentation."""
    if plan.top is None:
        return data
    return replace(data, common=replace(data.common, balance="none"), augmentations=Augmentations((), (), ()))


def write_plan(plan: FinetunePlan) -> str:
    """Returns the plan as a checkpoint stores it: everything but the head's weights."""
    phases = [[phase.epoch, dict(phase.rates)] for phase in plan.phases]
    top = None if plan.top is None else [plan.top.stage, plan.top.kernel]
    return json.dumps({"strategy": plan.strategy, "phases": phases, "views": plan.views, "top": top})


def read_plan(text: str, model: Mapping[str, Tensor], num_classes: int) -> FinetunePlan:
    """Returns the stored plan, with an empty head for the checkpoint's weights. Raises ConfigError."""
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


def load_weights(resumed: Resumed, model: nn.Module) -> None:
    """Loads the checkpoint's weights, those of frozen stages included. Raises ConfigError."""
    try:
        model.load_state_dict(resumed.model)
    except (KeyError, TypeError, RuntimeError) as error:
        raise ConfigError("resume: the checkpoint's net is another one than the config's") from error


def with_replaced_head(model: nn.Module, top: ReplacedHead | None) -> nn.Module:
    """Returns the net up to the head's stage, followed by the replaced head; without one, the net itself."""
    if top is None:
        return model
    body = stages.up_to(model, top.stage)
    return nn.Sequential(OrderedDict(body=body, pool=stages.pool_of(model), top=top.module))


# The strategy's view of a run


@dataclass(frozen=True)
class LoadedNet:
    """A net with its weights on its device, and the run's data: see dltips.tips.finetune.PretrainedNet."""

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
        outputs_of: dict[str, list[Tensor]] = {name: [] for name in names}
        targets = []
        with torch.no_grad():
            batches = feed(torch.arange(feed.count), evaluation_batch(feed, self.batch_size))
            for inputs, labels in with_progress(batches, feed.count, "features"):
                with self.autocast():
                    outputs = stages.outputs(self.model, inputs, names)
                for name, output in outputs.items():
                    outputs_of[name].append(output.float().cpu())
                targets.append(labels.cpu())
        joined = {name: torch.cat(outputs_of.pop(name)) for name in names}
        for name, features in joined.items():
            check_finite(features, name)
        return joined, torch.cat(targets)
