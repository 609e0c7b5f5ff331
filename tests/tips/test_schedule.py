import math
from collections.abc import Callable
from typing import Literal

import pytest
import torch

from dltips.catalog.registry import Score
from dltips.errors import ConfigError
from dltips.tips.schedule import Schedule, Steps, constant, cosine, linear, one_cycle, plateau, schedule, step, warm_up

STEPS = Steps(total=100, per_epoch=10)
MAKE: dict[str, Callable[[], Schedule]] = {
    "constant": lambda: constant(STEPS),
    "cosine": lambda: cosine(STEPS, floor=0.1),
    "linear": lambda: linear(STEPS, floor=0.1),
    "one_cycle": lambda: one_cycle(STEPS, rise=0.3, start=0.04, end=4e-6, anneal="cosine"),
    "step": lambda: step(STEPS, every=3, factor=0.1),
    "plateau": lambda: halve(2),
}


def halve(patience: int, monitor: Score = "val/accuracy", min_delta: float = 0.0) -> Schedule:
    return plateau(STEPS, factor=0.5, patience=patience, monitor=monitor, min_delta=min_delta)


def test_there_is_a_case_for_every_schedule() -> None:
    assert set(MAKE) == set(schedule.tips)


def test_constant_is_constant() -> None:
    assert {constant(STEPS).factor(index) for index in range(100)} == {1.0}


@pytest.mark.parametrize("floor", [0.0, 0.1, 1.0])
def test_cosine_falls_from_the_rate_to_the_floor(floor: float) -> None:
    factor = cosine(STEPS, floor=floor).factor
    assert factor(0) == 1
    assert factor(50) == pytest.approx((1 + floor) / 2)
    assert factor(25) == pytest.approx(floor + (1 - floor) * (1 + math.sqrt(0.5)) / 2)
    assert factor(100) == pytest.approx(floor)
    shares = [factor(index) for index in range(101)]
    assert shares == sorted(shares, reverse=True)


@pytest.mark.parametrize("floor", [0.0, 0.1, 1.0])
def test_linear_falls_by_equal_steps_to_the_floor(floor: float) -> None:
    factor = linear(STEPS, floor=floor).factor
    assert [factor(index) for index in (0, 25, 50, 100)] == pytest.approx(
        [1, 0.75 + 0.25 * floor, 0.5 + 0.5 * floor, floor]
    )


Torch = Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler]
schedulers = torch.optim.lr_scheduler


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (cosine(STEPS, floor=0.1), lambda each: schedulers.CosineAnnealingLR(each, T_max=100, eta_min=0.2)),
        (linear(STEPS, floor=0.1), lambda each: schedulers.LinearLR(each, 1.0, 0.1, total_iters=100)),
        (step(STEPS, every=3, factor=0.2), lambda each: schedulers.StepLR(each, 30, 0.2)),
        (constant(STEPS), lambda each: schedulers.ConstantLR(each, 1.0)),
        (
            warm_up(constant(STEPS), STEPS, warmup=2.0),
            lambda each: schedulers.LinearLR(each, 1 / 20, 1.0, total_iters=19),
        ),
    ],
)
def test_each_is_torchs_step_by_step(ours: Schedule, theirs: Torch) -> None:
    assert_same(ours, theirs, 100)


def assert_same(ours: Schedule, theirs: Torch, count: int) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    scheduler = theirs(optimizer)
    for index in range(count):
        assert 2 * ours.factor(index) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9), index
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("anneal", ["cosine", "linear"])
@pytest.mark.parametrize("rise", [0.1, 0.3, 0.77])
@pytest.mark.parametrize("total", [20, 100, 101])
def test_one_cycle_is_torchs_step_by_step(total: int, rise: float, anneal: Literal["cosine", "linear"]) -> None:
    ours = one_cycle(Steps(total, 10), rise=rise, start=0.04, end=1e-3, anneal=anneal)

    def theirs(optimizer: torch.optim.Optimizer) -> schedulers.LRScheduler:
        return schedulers.OneCycleLR(
            optimizer,
            max_lr=2.0,
            total_steps=total,
            pct_start=rise,
            anneal_strategy="cos" if anneal == "cosine" else "linear",
            cycle_momentum=False,
            div_factor=25,
            final_div_factor=40,
        )

    assert_same(ours, theirs, total - 1)  # torch refuses a step beyond the last
    assert ours.factor(total - 1) == pytest.approx(1e-3)
    assert max(ours.factor(index) for index in range(total)) <= 1


@pytest.mark.parametrize("rise", [0.0, 0.01, 0.5, 1.0])
@pytest.mark.parametrize("total", [0, 1, 2, 3, 10])
def test_one_cycle_stays_in_its_bounds_however_short_the_run(total: int, rise: float) -> None:
    factor = one_cycle(Steps(total, 1), rise=rise, start=0.1, end=0.01, anneal="linear").factor
    shares = [factor(index) for index in range(max(1, total))]
    assert all(0.01 <= share <= 1 for share in shares)
    if rise == 0.0:
        assert shares[0] == 1
    if rise == 1.0 and total > 1:
        assert (shares[0], shares[-1]) == (pytest.approx(0.1), 1)


@pytest.mark.parametrize("tip", [cosine, linear])
def test_a_run_of_no_steps_has_a_rate(tip: Callable[..., Schedule]) -> None:
    assert tip(Steps(0, 10), floor=0.0).factor(0) == 1


def test_step_multiplies_every_so_many_epochs() -> None:
    factor = step(STEPS, every=3, factor=0.1).factor
    assert [factor(index) for index in (0, 29, 30, 59, 60, 99)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.001])


def test_which_depend_on_the_runs_length() -> None:
    assert {name for name, make in MAKE.items() if make().needs_length} == {"cosine", "linear", "one_cycle"}
    for name, make in MAKE.items():
        assert warm_up(make(), STEPS, warmup=1.0).needs_length == make().needs_length, name


@pytest.mark.parametrize("name", MAKE)
def test_warm_up_rises_linearly_in_front_of_any_schedule(name: str) -> None:
    plain, warmed = MAKE[name](), warm_up(MAKE[name](), STEPS, warmup=2.0)
    for index in range(20):
        assert warmed.factor(index) == pytest.approx((index + 1) / 20 * plain.factor(index))
    assert [warmed.factor(index) for index in range(19, 100)] == [plain.factor(index) for index in range(19, 100)]
    assert warmed.factor(0) > 0  # the first step is no idle one


def test_warm_up_takes_parts_of_an_epoch_and_nothing() -> None:
    assert [warm_up(constant(STEPS), STEPS, warmup=0.4).factor(index) for index in range(5)] == [0.25, 0.5, 0.75, 1, 1]
    chosen = constant(STEPS)
    assert warm_up(chosen, STEPS, warmup=0.0) is chosen


def heard(chosen: Schedule, key: str, scores: list[float]) -> list[float]:
    shares = []
    for score in scores:
        chosen.on_metrics({key: score})
        shares.append(chosen.factor(0))
    return shares


@pytest.mark.parametrize("warmup", [0.0, 1.0])
def test_plateau_divides_when_patience_is_over(warmup: float) -> None:
    chosen = warm_up(halve(2), STEPS, warmup=warmup)
    scores = [0.5, 0.6, 0.6, 0.59, 0.6, 0.6, 0.6, 0.6, 0.7, 0.7]
    shares = []
    for score in scores:
        chosen.on_metrics({"val/accuracy": score})
        shares.append(chosen.factor(50))
    # best at epoch 2; 3 and 4 are waited for, after 5 the rate is halved and the waiting starts again
    assert shares == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25]


@pytest.mark.parametrize("key", ["val/accuracy", "val/loss"])
@pytest.mark.parametrize(("patience", "min_delta"), [(0, 0.0), (1, 0.0), (3, 0.05)])
def test_plateau_is_torchs(key: Score, patience: int, min_delta: float) -> None:
    scores = torch.rand(80, generator=torch.Generator().manual_seed(0), dtype=torch.float64).cumsum(0)
    scores = (scores / torch.arange(1, 81)).tolist()
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer,
        mode="max" if key == "val/accuracy" else "min",
        factor=0.5,
        patience=patience,
        threshold=min_delta,
        threshold_mode="abs",
        eps=0,
    )
    expected = []
    for score in scores:
        theirs.step(score)
        expected.append(optimizer.param_groups[0]["lr"])
    assert heard(halve(patience, key, min_delta), key, scores) == expected
    assert expected[-1] < 1


def test_plateau_counts_nan_as_no_improvement() -> None:
    assert heard(halve(1), "val/accuracy", [0.5, math.nan, math.nan])[-1] == 0.5


@pytest.mark.parametrize("warmup", [0.0, 1.0])
def test_what_plateau_remembers_survives_a_checkpoint(warmup: float) -> None:
    scores = [0.5, 0.4, 0.4, 0.4, 0.6, 0.5, 0.5, 0.5]
    whole = warm_up(halve(1), STEPS, warmup=warmup)
    expected = heard(whole, "val/accuracy", scores)
    for cut in range(len(scores)):
        first, second = (warm_up(halve(1), STEPS, warmup=warmup) for _ in range(2))
        start = heard(first, "val/accuracy", scores[:cut])
        second.state.update(dict(first.state))
        assert start + heard(second, "val/accuracy", scores[cut:]) == expected
    assert len(set(expected)) == 3


def test_a_warmup_longer_than_the_run_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^schedule.warmup: 5 epochs are more than the run's 4; .*warmup=0.4$"):
        warm_up(constant(Steps(40, 10)), Steps(40, 10), warmup=5.0)
    assert warm_up(constant(Steps(40, 10)), Steps(40, 10), warmup=4.0).factor(39) == 1.0
