"""Shares one run among several devices: every process draws and augments the whole batch, and trains on its share.

So the draws, and with them the curve, are those of one device: the shares' gradients add up to the batch's.
"""

from __future__ import annotations

import gc
import math
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from dltips.errors import ConfigError
from dltips.exit_codes import EXIT_DIVERGED, EXIT_INTERRUPTED, EXIT_OK
from dltips.feed.batches import Batch, Feed, batch_sizes
from dltips.nets.flat import FlatModel
from dltips.tips.optimizer import OptimizerKnobs
from dltips.train import device as devices
from dltips.train import seeds
from dltips.train.build import Run
from dltips.train.fit import fit
from dltips.train.loop import Interrupted, Meter, Microbatches, NotFinite, Progress, Training
from dltips.train.parallel.group import ProcessGroup
from dltips.train.parallel.world import send_message
from dltips.train.snapshot import Snapshot

if TYPE_CHECKING:
    from dltips.train.resumed import Resumed

VALIDATION_GRACE = 30  # seconds that a validation may go on after a stop was requested: its epoch is worth keeping
AGREEMENT_SECONDS = 0.2  # seconds between two agreements on going on, about
AGREEMENT_STEPS = 256  # maximum steps between them


def shard_run(run: Run, group: ProcessGroup) -> Run:
    """Shards the run over the group; returns it with a training of this process's share, and notes for the user.

    The first process writes and prints; the others stay silent and measure no layers. Raises the same ConfigError on
    every rank.
    """
    training, settings = run.training, run.config.settings
    norms = _batch_norms(run)
    synchronized = training.device.type == "cuda" and all(type(norm) in _PLAIN for norm in norms)
    _check_batch(settings.batch_size, settings.accumulate, group.size, separate_norms=bool(norms) and not synchronized)
    _synchronize_start(run, group)
    knobs: OptimizerKnobs = run.config.common["optimizer"]()
    least = 1 if synchronized or settings.batch_size < 2 * group.size else 2
    shares = shares_of(group, settings.accumulate, knobs.reduction, least=least)
    if synchronized:
        shares = _marking_alone(shares, [_synchronized(norm) for norm in norms], group.size)
    hooks = replace(
        training.hooks,
        on_gradient=[lambda net: group.all_reduce(net.gradients), *training.hooks.on_gradient],
        end_epoch=[*training.hooks.end_epoch, lambda net: group.broadcast(_state(run))],
    )
    shared = replace(
        training,
        microbatches=shares,
        forward=rank_stream(training, group),
        inputs=replace(training.inputs, val=InterruptibleFeed(training.inputs.val, training.progress, group)),
        hooks=hooks,
        group=group,
        check=Agreement(group),
    )
    notes = [*run.notes, *_notes(run, group, separate_norms=bool(norms) and not synchronized)]
    return replace(run, training=shared, statistics=None if group.rank else run.statistics, notes=notes)


def _notes(run: Run, group: ProcessGroup, *, separate_norms: bool) -> Iterator[str]:
    """Returns notes on how the curve differs from that of one device; `separate_norms`: batch norm per process."""
    if any(map(_draws_randomly, run.training.net.module.modules())):
        yield (
            "devices: what the net leaves out at random each process draws for itself, so that the curve is not that of"
            " one device"
        )
    if separate_norms:
        batch_size = run.config.settings.batch_size
        yield (
            f"devices: batch norm takes its statistics from each process's {batch_size // group.size} of the"
            f" {batch_size} samples in a batch, so that the curve is not that of one device; with model.norm=none,"
            " layer or group it would be"
        )


def _draws_randomly(module: nn.Module) -> bool:
    """Returns whether it draws while training: dropout, recurrent layers', residual blocks', timm's DropPath."""
    if isinstance(module, (_DropoutNd, nn.RReLU)):
        return getattr(module, "p", 1) > 0
    shares = (getattr(module, name, None) for name in ("drop", "dropout", "drop_prob"))
    return any(isinstance(share, float) and share > 0 for share in shares)


def follow(run: Run, resumed: Resumed | None, group: ProcessGroup) -> tuple[int, Path]:
    """Trains in a process other than the first, which writes nothing; returns the exit code and the run's folder."""
    snapshot = None
    if resumed is not None and resumed.payload is not None:
        snapshot = Snapshot.from_payload(resumed.payload, run.training)
    path, stopped = group.from_first(None)
    send_message("folder", path)
    if snapshot is not None:
        snapshot.stopped = stopped
    if not gc.get_freeze_count():
        gc.freeze()
    gc.enable()
    devices.keep_freed_memory()
    result = fit(run, resume=snapshot)
    group.leave()
    return {"diverged": EXIT_DIVERGED, "interrupted": EXIT_INTERRUPTED}.get(result.status, EXIT_OK), Path(path)


def _check_batch(batch_size: int, accumulate: int, size: int, *, separate_norms: bool) -> None:
    check_batch_size(batch_size, size)
    if separate_norms and batch_size // size // accumulate < 2:
        parts = f" and accumulate={accumulate}" if accumulate > 1 else ""
        raise ConfigError(
            f"batch_size: {batch_size} with devices={size}{parts} leaves one sample at a time, which batch norm cannot"
            " take; raise it, or write model.norm=none"
        )


def check_batch_size(batch_size: int, devices: int) -> None:
    """Raises ConfigError if the batch is smaller than the group."""
    if batch_size < devices:
        raise ConfigError(
            f"batch_size: {batch_size} samples do not fit on {devices} devices; write one for each at least"
        )


def _synchronize_start(run: Run, group: ProcessGroup) -> None:
    """Raises ConfigError unless all ranks have the same data and config; they start from the first one's weights."""
    checked = group.all_gather([run.config.hash, run.splits.hash, run.training.net.count])
    if any(other != checked[0] for other in checked):
        what = next(
            name
            for name, *values in zip(("config", "data", "net"), *checked, strict=True)
            if any(value != values[0] for value in values)
        )
        raise ConfigError(
            f"devices: the processes do not have the same {what}; start them with the same command, on the same files"
        )
    sums = group.all_gather(_checksum(run.training.net))
    if any(other != sums[0] for other in sums):  # two kinds of machine, and weights that were computed
        group.broadcast(_state(run))


def _checksum(net: FlatModel) -> list[int]:
    """Returns a checksum of all bits of the net."""
    state: dict[str, Tensor] = net.module.state_dict()
    return [zlib.crc32(value.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data) for value in state.values()]


def _state(run: Run) -> list[Tensor]:
    """Returns the tensors that might diverge: weights, batch norm's statistics, averages of both."""
    net = run.training.net
    kept = [value for part in run.regularizations for value in part.state.values()]
    averages = [value for value in kept if isinstance(value, Tensor) and value.is_floating_point()]
    buffers = [buffer for name, buffer in net.module.named_buffers() if name not in net.constant]
    return [net.parameters, *buffers, *averages]


# The share of a process


def shares_of(group: ProcessGroup, accumulate: int, reduction: str, *, least: int) -> Microbatches:
    """Returns this process's parts of a batch, each with its weight: its share of the batch, or for a sum its samples.

    The batch is first divided among processes, then split by `accumulate`, into the same number of parts everywhere. No
    process gets fewer samples than `least`: of a small last batch some get none, and of one with fewer samples than
    processes the first gets all.
    """

    def parts(inputs: Tensor, targets: Tensor) -> Sequence[tuple[Tensor, Tensor, float]]:
        count = len(targets)
        taking = 1 if count < group.size else max(1, min(group.size, count // least))
        if group.rank >= taking:
            return []
        own_share = inputs.tensor_split(taking)[group.rank], targets.tensor_split(taking)[group.rank]
        # limited by the smallest share: batch norm cannot take one sample
        number = max(1, min(accumulate, count // taking // 2))
        microbatches = zip(own_share[0].tensor_split(number), own_share[1].tensor_split(number), strict=True)
        divisor = count if reduction == "mean" else 1
        return [(part, labels, len(labels) / divisor) for part, labels in microbatches]

    return parts


def rank_stream(training: Training, group: ProcessGroup) -> Callable[[Tensor], Tensor]:
    """Returns the forward pass with random masks of this process's own; everything else draws the same everywhere.

    The draws follow from the step, so that a resumed run has the same ones.
    """
    forward, device = training.forward, training.device
    stream = torch.default_generator
    if device.type == "cuda":
        stream = torch.cuda.default_generators[torch.cuda.current_device() if device.index is None else device.index]
    step, drawn = -1, stream.get_state()

    def passed(inputs: Tensor) -> Tensor:
        nonlocal step, drawn
        shared = stream.get_state()
        if training.progress.step == step:  # another part of the same batch
            stream.set_state(drawn)
        else:
            step = training.progress.step
            stream.manual_seed(seeds.derive(training.seed, "global", f"rank {group.rank}", step))
        try:
            return forward(inputs)
        finally:
            drawn = stream.get_state()
            stream.set_state(shared)

    return passed


class Pace:
    """Determines the steps at which all processes agree on something, about AGREEMENT_SECONDS apart.

    Each agreement sets the next one, by the slowest process.
    """

    def __init__(self, group: ProcessGroup) -> None:
        self.group = group
        self.last = self.next = -1
        self.agreed_at = time.perf_counter()

    def agreed(self, step: int, *values: float) -> Sequence[float] | None:
        """Returns each value's maximum over the processes; None if it is not time yet. Raises ProcessLost."""
        if self.last < step < self.next:
            return None
        now = time.perf_counter()
        seconds = (now - self.agreed_at) / max(1, step - self.last)
        *found, slowest = self.group.maxima(*values, seconds)
        self.last, self.agreed_at = step, now
        self.next = step + max(1, min(AGREEMENT_STEPS, int(AGREEMENT_SECONDS / max(slowest, 1e-6))))
        return found


class Agreement(Pace):
    """Checks between two steps whether any process was asked to stop, or has a loss that is not finite."""

    def __call__(self, training: Training, meter: Meter) -> None:
        """Raises NotFinite, Interrupted, ProcessLost."""
        found = self.agreed(training.progress.step, training.progress.stop_requested, not meter.is_finite)
        if found is None:
            return
        stop, broken = found
        if stop:
            raise Interrupted
        if broken:
            raise NotFinite


class InterruptibleFeed(Feed):
    """The same batches; all processes stop between two, VALIDATION_GRACE after a stop was requested from any."""

    def __init__(self, feed: Feed, progress: Progress, group: ProcessGroup) -> None:
        vars(self).update(vars(feed))
        self.progress = progress
        self.group = group

    def __call__(self, order: Tensor, batch_size: int, generators: Sequence[Generator] = ()) -> Iterator[Batch]:
        """Raises Interrupted, ProcessLost."""
        pace, asked = Pace(self.group), math.inf
        everywhere = len(batch_sizes(self.count // self.group.size, batch_size))  # another process may have one more
        for number, batch in enumerate(super().__call__(order, batch_size, generators), 1):
            yield batch
            if self.progress.stop_requested:
                asked = min(asked, time.perf_counter())
            found = pace.agreed(number, time.perf_counter() - asked) if number <= everywhere else None
            if found is not None and found[0] > VALIDATION_GRACE:
                raise Interrupted


# Batch norm

_PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class _SynchronizedNorm(nn.SyncBatchNorm):
    """Batch norm with the statistics of all processes' samples; of its own where the others have none."""

    alone = False

    def forward(self, input: Tensor) -> Tensor:
        return _BatchNorm.forward(self, input) if self.alone else super().forward(input)


def _synchronized(norm: nn.Module) -> _SynchronizedNorm:
    """Changes the layer's class in place: hooks, parameters and lists that contain it stay as they are."""
    vars(norm)["process_group"] = None  # SyncBatchNorm's default: all processes
    norm.__class__ = _SynchronizedNorm
    assert isinstance(norm, _SynchronizedNorm)
    return norm


def _marking_alone(parts: Microbatches, norms: Sequence[_SynchronizedNorm], size: int) -> Microbatches:
    """Returns `parts`, which also tells the norms whether a batch leaves some processes without samples."""

    def marked(inputs: Tensor, targets: Tensor) -> Sequence[tuple[Tensor, Tensor, float]]:
        for norm in norms:
            norm.alone = len(targets) < size
        return parts(inputs, targets)

    return marked


def _batch_norms(run: Run) -> list[nn.Module]:
    """Returns the norm layers that take statistics from batches, in some epoch."""
    frozen = {id(layer) for part in run.freezing.always_frozen() for layer in part.modules()}
    layers = run.training.inputs.model.modules()
    return [layer for layer in layers if isinstance(layer, _BatchNorm) and id(layer) not in frozen]
