"""The loop: a training step, an epoch, a validation; between steps, checks for NaN losses and requests to stop."""

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

EVALUATION_SAMPLES = 256  # minimum batch of an evaluation; 512 is slower per image on a CPU (cnn)
EVALUATION_VALUES = 2**22  # maximum number of values: mobilenet_v2 on 256 images of 224x224 would take 5 GB
FOLD_STEPS = 256  # steps between checks of the losses: each check waits for the device

Criterion = Callable[..., Tensor]
Autocast = Callable[[], AbstractContextManager[None]]
Microbatches = Callable[[Tensor, Tensor], Sequence[tuple[Tensor, Tensor, float]]]


class NotFinite(Exception):
    """A loss is NaN or infinite."""


class Interrupted(Exception):
    """The run was asked to stop."""


@dataclass(frozen=True)
class TrainingInputs:
    """The inputs of each part of the net, and their order."""

    model: nn.Module  # the net, or its head if the features before it are cached
    train: Feed
    val: Feed
    order: Callable[[int], Tensor]  # of an epoch's samples
    augmentation_names: Sequence[str]
    probe: Tensor  # the fixed batch for layer statistics, as the model takes it


@dataclass(frozen=True)
class Hooks:
    """The functions called at each point of the loop: built once, mostly empty, so that the loop has no conditions."""

    on_gradient: Sequence[Callable[[FlatModel], None]] = ()
    after_step: Sequence[Callable[[FlatModel], None]] = ()
    end_epoch: Sequence[Callable[[FlatModel], None]] = ()
    swaps: Sequence[Callable[[FlatModel], None]] = ()  # before a validation, and in reverse order after it
    # early stopping and the schedule get each epoch's metrics; early stopping may return True to stop
    on_metrics: Sequence[Callable[[Mapping[str, float]], bool]] = ()


@dataclass
class Progress:
    """The progress of a training; a display may read it, and a signal handler write to it, at any time."""

    step: int = 0  # steps done since the run began
    stop_requested: bool = False


@dataclass
class Training:
    """Everything that a step uses. Only the optimizer changes, when stages are unfrozen, and the progress."""

    net: FlatModel
    optimizer: Optimizer
    schedule: Schedule
    inputs: TrainingInputs
    criterion: Criterion
    autocast: Autocast
    microbatches: Microbatches
    forward: Callable[[Tensor], Tensor]  # inputs.model, perhaps compiled
    device: torch.device
    seed: int
    batch_size: int
    steps_per_epoch: int
    hooks: Hooks = field(default_factory=Hooks)
    group: ProcessGroup = SINGLE_PROCESS  # the processes that share the run
    check: Callable[[Training, Meter], None] = field(default_factory=lambda: check)  # called between two steps
    progress: Progress = field(default_factory=Progress)

    def use_optimizer(self, optimizer: Optimizer) -> None:
        """Switches to another optimizer, for other trainable parameters."""
        self.optimizer = optimizer


def whole_batch(inputs: Tensor, targets: Tensor) -> Sequence[tuple[Tensor, Tensor, float]]:
    """Returns the batch in one part."""
    return ((inputs, targets, 1.0),)


def split_batch(count: int) -> Microbatches:
    """Returns the batch in `count` parts, each with its share of the samples, so that the gradients add up."""

    def parts(inputs: Tensor, targets: Tensor) -> Sequence[tuple[Tensor, Tensor, float]]:
        # a smaller last batch has fewer parts: batch norm cannot take one sample
        count_of_parts = max(1, min(count, len(targets) // 2))
        split = zip(inputs.tensor_split(count_of_parts), targets.tensor_split(count_of_parts), strict=True)
        return [(part, labels, len(labels) / len(targets)) for part, labels in split]

    return parts


def microbatches_for(accumulate: int, reduction: str) -> Microbatches:
    """Returns the splitter of a batch; a part's weight is its share for a mean, its number of samples for a sum."""
    parts = whole_batch if accumulate == 1 else split_batch(accumulate)
    if reduction == "mean":
        return parts
    return lambda inputs, targets: [(part, labels, float(len(labels))) for part, labels, _ in parts(inputs, targets)]


class Meter:
    """Sums loss and hits over samples. Losses and outputs stay on the device until they are folded."""

    def __init__(self, group: ProcessGroup = SINGLE_PROCESS, *, per_class: bool = False) -> None:
        self.group = group
        self.pending: list[tuple[Tensor, Tensor, Tensor]] = []
        # keeps the graph's leaf nodes: making a node per parameter anew takes 1 % of a digits mlp's step
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
        """Adds up the values on the device."""
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
        """Returns whether the folded losses are finite."""
        return self.loss - self.loss == 0

    def totals(self) -> tuple[float, float]:
        """Returns (loss, accuracy) per sample, over all processes; the loss may be infinite or NaN."""
        self.fold()
        loss, hits, count = self.group.total(self.loss, self.hits, self.count)
        return loss / count, hits / count

    def means(self) -> tuple[float, float]:
        """Returns (loss, accuracy) per sample, over all processes. Raises NotFinite."""
        loss, accuracy = self.totals()
        if not math.isfinite(loss):
            raise NotFinite
        return loss, accuracy

    def scores(self) -> dict[str, float]:
        """Returns the loss and every score of the table, the user's included, of a meter that counts per class.

        The loss is NaN if it is not finite. Raises ConfigError if a metric of the user's fails.
        """
        loss, _ = self.totals()
        loss = loss if math.isfinite(loss) else math.nan
        cells = int(self.group.maxima(len(self.confusion))[0])
        # with fewer samples than processes, some process has none
        confusion = self.confusion.clone() if len(self.confusion) else torch.zeros(cells, dtype=torch.int64)
        self.group.all_reduce(confusion)
        return {"loss": loss} | of_confusion(confusion.reshape(math.isqrt(cells), -1).numpy())


def batches(training: Training, epoch: int) -> Iterator[Batch]:
    """Yields the epoch's training batches, from random streams of their own."""
    feed = training.inputs.train
    generators = [
        seeds.generator(training.seed, "augmentation", name, epoch, str(training.device))
        for name in training.inputs.augmentation_names
    ]
    return feed(training.inputs.order(epoch), training.batch_size, generators)


def train_epoch(
    training: Training, epoch: int, before_last: Callable[[FlatModel], None] | None = None
) -> tuple[float, float]:
    """Runs one pass over the training split; returns its loss and accuracy. Raises NotFinite, Interrupted."""
    net, meter, progress = training.net, Meter(training.group), training.progress
    net.train()
    # dropout and similar layers draw from torch's global stream
    seeds.seed_global_stream(training.seed, epoch, training.device)
    progress.step = epoch * training.steps_per_epoch
    last = progress.step + training.steps_per_epoch - 1
    gc.disable()  # a collection during an epoch costs more than an epoch's garbage
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
    """Raises NotFinite or Interrupted if the epoch must not go on."""
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
    """Returns the scores on the validation split, with averaged weights if there are some."""
    for swap in training.hooks.swaps:
        swap(training.net)
    try:
        return score(training, training.inputs.val)
    finally:
        for swap in reversed(training.hooks.swaps):
            swap(training.net)


def score(training: Training, feed: Feed) -> dict[str, float]:
    """Returns loss (plain cross-entropy) and scores of the net as it is; the loss is NaN if it is not finite."""
    meter = Meter(training.group, per_class=True)
    order = training.group.shard(torch.arange(feed.count))
    for outputs, targets in predictions(training.inputs.model, feed, training.batch_size, training.autocast, order):
        meter.add(functional.cross_entropy(outputs, targets), outputs, targets)
    return meter.scores()


def evaluation_batch(feed: Feed, batch_size: int) -> int:
    """Returns the number of samples that pass a net at a time without gradients."""
    return max(batch_size, min(EVALUATION_SAMPLES, EVALUATION_VALUES // feed.batches.values), 2)


def predictions(
    model: nn.Module,
    feed: Feed,
    batch_size: int,
    autocast: Autocast,
    order: Tensor | None = None,
) -> Iterator[Batch]:
    """Returns (outputs, targets) over a feed in its own order, or the given one, in large batches, in eval mode."""
    order = torch.arange(feed.count) if order is None else order
    model.eval()
    with torch.inference_mode():
        for inputs, targets in feed(order, evaluation_batch(feed, batch_size)):
            with autocast():
                outputs = model(inputs)
            yield outputs.float(), targets
