"""The loop's parts: how a batch is split and weighed, when the hooks are called, what a checkpoint holds of them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from dltips.config.composition import compose
from dltips.config.validation import validate
from dltips.nets.flat import FlatModel
from dltips.train.build import Run, build_run
from dltips.train.fit import Result, fit
from dltips.train.loop import Hooks, microbatches_for, train_epoch

SHORT = ["device=cpu", "data.subset=100", "batch_size=20", "model.widths=[16]", "log.layers=false"]


HOOKS = ("on_gradient", "after_step", "end_epoch", "swaps")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def prepared(*overrides: str) -> Run:
    composed, _ = compose([*SHORT, *overrides])
    return build_run(validate(composed))


def trained(*overrides: str) -> tuple[Run, Result]:
    run = prepared(*overrides)
    return run, fit(run)


def gradient(accumulate: int, reduction: str, count: int) -> Tensor:
    """Of one batch, in the loop's way."""
    generator = torch.Generator().manual_seed(count)
    inputs = torch.randn(count, 5, generator=generator, dtype=torch.float64)
    targets = torch.randint(3, (count,), generator=generator)
    torch.manual_seed(0)
    net = FlatModel(nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double())
    seen = []
    for part, labels, weight in microbatches_for(accumulate, reduction)(inputs, targets):
        seen.append(part)
        (functional.cross_entropy(net.module(part), labels) * weight).backward()
    assert torch.equal(torch.cat(seen), inputs)
    assert len(seen) == max(1, min(accumulate, count // 2))
    return net.gradients


@pytest.mark.parametrize("buffer", ["parameters", "gradients"])
def test_each_epoch_ends_by_asserting_that_the_net_still_lies_in_its_buffers(buffer: str) -> None:
    """A copy in the place of a view trains no more, and nothing else would say so."""
    run = prepared("epochs=1")
    parameter = run.training.net.segments[0].parameter
    train_epoch(run.training, 0)
    if buffer == "parameters":
        parameter.data = parameter.data.clone()
    else:
        parameter.grad = parameter.grad.clone()  # type: ignore[union-attr]
    with pytest.raises(AssertionError):
        train_epoch(run.training, 1)


@pytest.mark.parametrize("count", [1, 2, 7, 16])  # a last batch may be smaller than the parts are many
@pytest.mark.parametrize("accumulate", [1, 3, 5])
def test_parts_add_up_to_the_whole_batch_and_a_sum_is_the_mean_times_its_size(accumulate: int, count: int) -> None:
    whole = gradient(1, "mean", count)
    torch.testing.assert_close(gradient(accumulate, "mean", count), whole)
    torch.testing.assert_close(gradient(accumulate, "sum", count), count * whole)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_sum_is_undone_by_a_rate_that_is_divided_by_the_batch_size(accumulate: int) -> None:
    # batch norm would take each part's own statistics, and a smaller last batch would weigh more in the mean
    options = ["epochs=2", "model.norm=none", f"accumulate={accumulate}"]
    mean, _ = trained(*options, "optimizer.lr=0.02")
    summed, _ = trained(*options, "optimizer.lr=0.001", "optimizer.reduction=sum")
    assert mean.training.inputs.train.count % mean.training.batch_size == 0
    torch.testing.assert_close(mean.training.net.parameters, summed.training.net.parameters, rtol=1e-4, atol=1e-6)


def test_no_tip_means_no_hook() -> None:
    hooks = prepared().training.hooks
    assert [list(getattr(hooks, hook)) for hook in HOOKS] == [[], [], [], []]


def test_each_hook_has_its_moment() -> None:
    """Two steps an epoch: gradient and step each, the epoch's end, then the validation between two swaps."""
    run = prepared("epochs=2", "batch_size=50")
    calls: list[str] = []
    hooks = Hooks(**{hook: [lambda net, name=hook: calls.append(name)] for hook in HOOKS})
    whole, val = run.training.optimizer.step, run.training.inputs.val

    def step(rate: float) -> None:
        calls.append("step")
        whole(rate)

    def validation(*arguments: Any) -> Any:
        calls.append("validation")
        return val(*arguments)

    run.training.optimizer.step = step
    validation.count = val.count  # type: ignore[attr-defined]
    validation.batches = val.batches  # type: ignore[attr-defined]
    inputs = replace(run.training.inputs, val=validation)  # type: ignore[arg-type]
    fit(replace(run, training=replace(run.training, hooks=hooks, inputs=inputs)))
    steps = ["on_gradient", "step", "after_step"] * 2
    once = [*steps, "end_epoch", "swaps", "validation", "swaps"]
    best = ["swaps", "swaps"]  # around the copy of the best weights, if these are
    assert calls[: len(once)] == once
    assert calls in (2 * (once + best), once + best + once)


def test_two_averages_give_the_net_back() -> None:
    """Both take its place in validations; what is trained must be what it is without them."""
    both, _ = trained("epochs=3", "regularization=[ema,swa]", "regularization.swa.start=2")
    plain, _ = trained("epochs=3")
    assert torch.equal(both.training.net.parameters, plain.training.net.parameters)
