"""The loop: what a training step, an epoch and a validation are. Whoever calls it has decided everything else."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from dltips.feed.batches import Batch, Feed
from dltips.metrics import of_confusion
from dltips.nets.flat import FlatModel
from dltips.tips.optimizer import Optimizer
from dltips.tips.schedule import Schedule
from dltips.train import seeds
from dltips.train.parallel.group import SINGLE_PROCESS, ProcessGroup

EVALUATION_SAMPLES = 256  # samples at a time, at the least; twice as many slow a cnn down on a CPU, per image
EVALUATION_VALUES = 2**22  # but no more than this many numbers: mobilenet_v2 on 256 images of 224x224 would take 5 GB
FOLD_STEPS = 256  # steps between looks at the losses: each look waits for the device

Criterion = Callable[..., Tensor]
Autocast = Callable[[], AbstractContextManager[None]]
Microbatches = Callable[[Tensor, Tensor], Sequence[tuple[Tensor, Tensor, float]]]


class NotFinite(Exception):
    """A loss is NaN or infinite."""


class Interrupted(Exception):
    """Someone asked the run to stop."""


@dataclass(frozen=True)
class TrainingInputs:
    """What is passed to which part of the net, and in which order."""

    model: nn.Module  # the net, or its head where the features in front of it are computed once
    train: Feed
    val: Feed
    order: Callable[[int], Tensor]  # of an epoch's samples
    augmentation_names: Sequence[str]
    probe: Tensor  # the fixed batch on which layers are watched, as the model takes it


@dataclass(frozen=True)
class Hooks:
    """What is called where in the loop: built once, mostly empty, instead of questions in the loop."""

    on_gradient: Sequence[Callable[[FlatModel], None]] = ()
    after_step: Sequence[Callable[[FlatModel], None]] = ()
    end_epoch: Sequence[Callable[[FlatModel], None]] = ()
    swaps: Sequence[Callable[[FlatModel], None]] = ()  # in front of a validation, and in reverse behind it
    # each epoch's metrics go to early stopping, which may return True to stop, and to the schedule
    on_metrics: Sequence[Callable[[Mapping[str, float]], bool]] = ()


@dataclass
class Progress:
    """How far a training has come; a display reads it, and a signal handler writes to it, at any time."""

    step: int = 0  # steps done since the run began
    stop_requested: bool = False


@dataclass
class Training:
    """All that a step touches. Only the optimizer changes, when stages are unfrozen, and the progress."""

    net: FlatModel
    optimizer: Optimizer
    schedule: Schedule
    inputs: TrainingInputs
    criterion: Criterion
    autocast: Autocast
    microbatches: Microbatches
    forward: Callable[[Tensor], Tensor]  # of inputs.model, perhaps compiled
    device: torch.device
    seed: int
    batch_size: int
    steps_per_epoch: int
    hooks: Hooks = field(default_factory=Hooks)
    group: ProcessGroup = SINGLE_PROCESS  # the processes that share the run
    check: Callable[[Training, Meter], None] = field(default_factory=lambda: check)  # between two steps
    progress: Progress = field(default_factory=Progress)

    def use_optimizer(self, optimizer: Optimizer) -> None:
        """Go on with another optimizer: other parameters train from now on."""
        self.optimizer = optimizer


def whole_batch(inputs: Tensor, targets: Tensor) -> Sequence[tuple[Tensor, Tensor, float]]:
    """The batch in one part."""
    return ((inputs, targets, 1.0),)


def split_batch(count: int) -> Microbatches:
    """The batch in `count` parts, each with its share of the samples, so that the gradients add up to the whole's."""

    def parts(inputs: Tensor, targets: Tensor) -> Sequence[tuple[Tensor, Tensor, float]]:
        # a smaller last batch makes fewer parts: batch norm cannot take one sample
        count_of_parts = max(1, min(count, len(targets) // 2))
        split = zip(inputs.tensor_split(count_of_parts), targets.tensor_split(count_of_parts), strict=True)
        return [(part, labels, len(labels) / len(targets)) for part, labels in split]

    return parts


def microbatches_for(accumulate: int, reduction: str) -> Microbatches:
    """How a batch is split, and how much the mean gradient of each part weighs: its share, or for a sum its samples."""
    parts = whole_batch if accumulate == 1 else split_batch(accumulate)
    if reduction == "mean":
        return parts
    return lambda inputs, targets: [(part, labels, float(len(labels))) for part, labels, _ in parts(inputs, targets)]


class Meter:
    """Sums of loss and hits over samples. Losses and outputs stay on the device until they are folded."""

    def __init__(self, group: ProcessGroup = SINGLE_PROCESS, *, per_class: bool = False) -> None:
        self.group = group
        self.pending: list[tuple[Tensor, Tensor, Tensor]] = []
        # what a backward pass leaves of it: a node per parameter, whose making anew takes 1 % of a digits mlp's step
        self.graph: Tensor | None = None
        self.loss = 0.0
        self.hits = 0
        self.count = 0
        self.per_class = per_class
        self.confusion = torch.zeros(0, dtype=torch.int64)  # (K * K,), rows: true class

    def add(self, loss: Tensor, outputs: Tensor, targets: Tensor) -> None:
        self.pending.append((loss.detach(), outputs.detach(), targets))
        self.graph = loss
        if len(self.pending) == FOLD_STEPS:
            self.fold()

    def fold(self) -> None:
        """Add up what is on the device."""
        if not self.pending:
            return
        losses, outputs, targets = zip(*self.pending, strict=True)
        self.pending.clear()
        sizes = torch.tensor([labels.shape[0] for labels in targets], dtype=torch.float64)
        predicted, labels = torch.cat(outputs).argmax(1), torch.cat(targets)
        if labels.dim() == 2:  # shares of mixed samples: the larger one counts
            labels = labels.argmax(1)
        hits = (predicted == labels).sum()
        if self.per_class:
            classes = outputs[0].shape[1]
            confusion = torch.bincount(labels * classes + predicted, minlength=classes**2).cpu()
            self.confusion = confusion if not len(self.confusion) else self.confusion + confusion
        loss = torch.dot(torch.stack(losses).cpu().double(), sizes).item()
        self.loss += loss
        self.hits += int(hits)
        self.count += int(sizes.sum())

    @property
    def is_finite(self) -> bool:
        """Of the losses that were folded."""
        return self.loss - self.loss == 0

    def totals(self) -> tuple[float, float]:
        """(loss, accuracy) per sample, over all processes; the loss may be infinite or NaN."""
        self.fold()
        loss, hits, count = self.group.total(self.loss, self.hits, self.count)
        return loss / count, hits / count

    def means(self) -> tuple[float, float]:
        """(loss, accuracy) per sample, over all processes. Errors: NotFinite."""
        loss, accuracy = self.totals()
        if not math.isfinite(loss):
            raise NotFinite
        return loss, accuracy

    def scores(self) -> dict[str, float]:
        """The loss and every score of the table, the user's own too, of a meter that counts per class.

        The loss is NaN where it is not finite. Raises ConfigError for a metric of the user's that fails.
        """
        loss, _ = self.totals()
        loss = loss if math.isfinite(loss) else math.nan
        cells = int(self.group.maxima(len(self.confusion))[0])
        # of fewer samples than processes some process has none
        confusion = self.confusion.clone() if len(self.confusion) else torch.zeros(cells, dtype=torch.int64)
        self.group.all_reduce(confusion)
        return {"loss": loss} | of_confusion(confusion.reshape(math.isqrt(cells), -1).numpy())


def batches(training: Training, epoch: int) -> Iterator[Batch]:
    """The epoch's training batches, from streams of randomness of their own."""
    feed = training.inputs.train
    generators = [
        seeds.generator(training.seed, "augmentation", name, epoch, str(training.device))
        for name in training.inputs.augmentation_names
    ]
    return feed(training.inputs.order(epoch), training.batch_size, generators)


def train_epoch(
    training: Training, epoch: int, before_last: Callable[[FlatModel], None] | None = None
) -> tuple[float, float]:
    """One pass over the training split; its loss and accuracy. Errors: NotFinite, Interrupted."""
    net, meter, progress = training.net, Meter(training.group), training.progress
    net.train()
    # dropout and its like draw from torch's global stream
    seeds.seed_global_stream(training.seed, epoch, training.device)
    progress.step = epoch * training.steps_per_epoch
    last = progress.step + training.steps_per_epoch - 1
    gc.disable()  # a collection in mid-epoch costs more than an epoch's garbage
    try:
        for inputs, targets in batches(training, epoch):
            if before_last is not None and progress.step == last:
                before_last(net)
            train_step(training, inputs, targets, meter)
            progress.step += 1
            training.check(training, meter)
    finally:
        gc.enable()
    for hook in training.hooks.end_epoch:
        hook(net)
    net.assert_views()
    means = meter.means()
    # the last update comes after the last loss; one kernel for both ends, which are NaN if any weight is
    if net.count and not math.isfinite(sum(end.item() for end in net.parameters.aminmax())):
        raise NotFinite
    return means


def check(training: Training, meter: Meter) -> None:
    """Whether there is a reason not to go on. Errors: NotFinite, Interrupted."""
    if training.progress.stop_requested:
        raise Interrupted
    if not meter.is_finite:
        raise NotFinite


def train_step(training: Training, inputs: Tensor, targets: Tensor, meter: Meter) -> None:
    """Forward, backward, hooks, update, hooks."""
    net = training.net
    net.learning_rate = training.optimizer.learning_rate * training.schedule.factor(training.progress.step)
    net.gradients.zero_()
    for part, labels, weight in training.microbatches(inputs, targets):
        with training.autocast():
            outputs = training.forward(part)
        loss = training.criterion(outputs.float(), labels)
        (loss if weight == 1 else loss * weight).backward()  # type: ignore[no-untyped-call]
        meter.add(loss, outputs, labels)
    net.detect_unused()
    for hook in training.hooks.on_gradient:
        hook(net)
    training.optimizer.step(net.learning_rate)
    for hook in training.hooks.after_step:
        hook(net)


def validate(training: Training) -> dict[str, float]:
    """The scores on the validation split, with averaged weights where there are some."""
    for swap in training.hooks.swaps:
        swap(training.net)
    try:
        return score(training, training.inputs.val)
    finally:
        for swap in reversed(training.hooks.swaps):
            swap(training.net)


def score(training: Training, feed: Feed) -> dict[str, float]:
    """Loss (plain cross-entropy) and scores of the net as it is; the loss is NaN where it is not finite."""
    meter = Meter(training.group, per_class=True)
    order = training.group.shard(torch.arange(feed.count))
    for outputs, targets in predictions(training.inputs.model, feed, training.batch_size, training.autocast, order):
        meter.add(functional.cross_entropy(outputs, targets), outputs, targets)
    return meter.scores()


def evaluation_batch(feed: Feed, batch_size: int) -> int:
    """How many samples are passed through a net at a time where no gradient is wanted."""
    return max(batch_size, min(EVALUATION_SAMPLES, EVALUATION_VALUES // feed.batches.values), 2)


def predictions(
    model: nn.Module,
    feed: Feed,
    batch_size: int,
    autocast: Autocast,
    order: Tensor | None = None,
) -> Iterator[Batch]:
    """(outputs, targets) over a feed in its own order, or the given one, in large batches, in eval mode."""
    order = torch.arange(feed.count) if order is None else order
    model.eval()
    with torch.inference_mode():
        for inputs, targets in feed(order, evaluation_batch(feed, batch_size)):
            with autocast():
                outputs = model(inputs)
            yield outputs.float(), targets
