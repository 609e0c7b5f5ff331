"""Locates where a loss stopped being finite: replays the epoch step by step and names the layer."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from dltips.train import seeds
from dltips.train.build import Run
from dltips.train.loop import Meter, NotFinite, batches, train_step
from dltips.train.snapshot import Snapshot


def locate(run: Run, snapshot: Snapshot, epoch: int) -> tuple[int, int, str]:
    """Returns (epoch, step, where), counted from 1; the training is left in the snapshot's state.

    With several processes all of them replay the epoch, and the first one with a failing layer names it.
    """
    training, group = run.training, run.training.group
    snapshot.put_back(training, run.regularizations)
    net, first_bad = training.net, [""]

    def hook_for(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if not first_bad[0] and not bool(output.detach().isfinite().all()):
                first_bad[0] = f"the output of layer {name}"

        return hook

    leaves = [(name, module) for name, module in net.module.named_modules() if not list(module.children())]
    handles = [module.register_forward_hook(hook_for(name)) for name, module in leaves]
    net.train()
    seeds.seed_global_stream(training.seed, epoch, training.device)
    training.progress.step = epoch * training.steps_per_epoch
    where = "the loss"
    try:
        for inputs, targets in batches(training, epoch):
            if group.maxima(training.progress.stop_requested)[0]:
                where = "a step from here on (stopped while looking)"
                break
            meter = Meter(group)
            train_step(training, inputs, targets, meter)
            training.progress.step += 1
            try:
                meter.means()
            except NotFinite:
                where = next(filter(None, group.all_gather(first_bad[0])), where)
                break
            if group.maxima(not bool(net.parameters.isfinite().all()))[0]:
                views = net.views(net.parameters)
                broken = next((segment.name for segment, view in views if not bool(view.isfinite().all())), "")
                where = f"the update of {next(filter(None, group.all_gather(broken)))}"
                break
    finally:
        for handle in handles:
            handle.remove()
    step = training.progress.step
    snapshot.put_back(training, run.regularizations)
    return epoch + 1, step, where
