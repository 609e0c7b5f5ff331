"""Caches features for fine-tuning: computes the outputs of the frozen body once, as inputs of the head."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from dltips import free_memory
from dltips.config.validation import Config
from dltips.errors import ConfigError
from dltips.feed.batches import Feed, Resident
from dltips.feed.splits import Split
from dltips.nets import stages
from dltips.tips.finetune import FinetunePlan
from dltips.train import seeds
from dltips.train.data import Data, epoch_order
from dltips.train.display import with_progress
from dltips.train.loop import Autocast, TrainingInputs, evaluation_batch


def body_and_head(model: nn.Module) -> tuple[nn.Module, nn.Module]:
    """Returns the part before the net's head, and the head as a net of its own. Raises ConfigError."""
    body, head = stages.cut(model)
    if not isinstance(head, nn.Sequential):
        head = nn.Sequential(OrderedDict(head=head))
    return body, head


def training_inputs(
    config: Config, model: nn.Module, data: Data, plan: FinetunePlan, autocast: Autocast, probe: Tensor
) -> TrainingInputs:
    """Returns the samples for the whole net; or, if the plan has views, the body's outputs for the head alone."""
    seed, batch_size = config.settings.seed, config.settings.batch_size
    order = epoch_order(data.common, seed, data.train, len(data.source.classes))
    if not plan.views:
        names = data.augmentations.names
        train, val = data.feed(data.train, augmented=True), data.feed(data.splits.val)
        return TrainingInputs(model, train, val, order, names, probe)
    body, head = body_and_head(model)
    names = data.augmentations.names
    views = plan.views if names else 1
    count = len(data.train)

    def generators(view: int) -> list[torch.Generator]:
        return [seeds.generator(seed, "augmentation", name, view, str(data.device)) for name in names]

    def with_views(epoch: int) -> Tensor:
        drawn = torch.randint(views, (count,), generator=seeds.generator(seed, "views", epoch=epoch))
        return order(epoch) + count * drawn

    train, val = data.feed(data.train, augmented=True, once=True), data.feed(data.splits.val, once=True)
    if plan.top is not None and plan.top.features is not None:  # already known from the fit
        fitted = plan.top.features
        train_features, val_features = Split(fitted.train, fitted.train_targets), Split(fitted.val, fitted.val_targets)
    else:
        train_features = keep_features(body, train, batch_size, views, generators, autocast)
        val_features = keep_features(body, val, batch_size, 1, lambda view: (), autocast)
    with torch.no_grad(), autocast():
        chunk_size = evaluation_batch(val, batch_size)
        features = torch.cat([body(part).float() for part in torch.split(probe, chunk_size)])
    return TrainingInputs(
        model=head,
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
    """Returns the body's outputs for a feed's samples, view after view: (views * N, ...). Raises ConfigError.

    `generators` are the random streams of a view's augmentations.
    """
    body.eval()
    kept: Tensor | None = None
    targets, start = [], 0
    with torch.no_grad():
        for view in range(views):
            batches = feed(torch.arange(feed.count), evaluation_batch(feed, batch_size), generators(view))
            what = f"features, view {view + 1} of {views}" if views > 1 else "features"
            for inputs, labels in with_progress(batches, feed.count, what):
                with autocast():
                    outputs = body(inputs).float()
                if kept is None:
                    if outputs.device.type == "cpu":
                        free_memory.require_memory("finetune.views", views * feed.count * outputs[0].nbytes)
                    kept = outputs.new_empty((views * feed.count, *outputs.shape[1:]))
                kept[start : start + len(outputs)] = outputs
                start += len(outputs)
                targets.append(labels)
    assert kept is not None
    check_finite(kept, "the net")
    return Split(kept, torch.cat(targets))


def check_finite(features: Tensor, where: str) -> None:
    if not bool(features.isfinite().all()):
        raise ConfigError(
            f"finetune.source: what {where} puts out is not finite for these data; the weights are damaged, or their"
            " batch norm's statistics are: take others"
        )
