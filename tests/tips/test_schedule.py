import math
from collections.abc import Callable

import pytest
import torch

from dltips.metrics import Score
from dltips.tips.schedule import Schedule, Steps, constant, cosine, plateau, schedule, step, warm_up

STEPS = Steps(total=100, per_epoch=10)
MAKE: dict[str, Callable[[], Schedule]] = {
    "constant": lambda: constant(STEPS),
    "cosine": lambda: cosine(STEPS, floor=0.1),
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


def test_cosine_is_torchs() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=100, eta_min=0.2)
    ours = cosine(STEPS, floor=0.1).factor
    for index in range(100):
        assert 2 * ours(index) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        theirs.step()


def test_a_run_of_no_steps_has_a_rate() -> None:
    assert cosine(Steps(0, 10), floor=0.0).factor(0) == 1


def test_step_multiplies_every_so_many_epochs() -> None:
    factor = step(STEPS, every=3, factor=0.1).factor
    assert [factor(index) for index in (0, 29, 30, 59, 60, 99)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.001])


def test_only_cosine_depends_on_the_runs_length() -> None:
    assert {name for name, make in MAKE.items() if make().needs_length} == {"cosine"}
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
        chosen.hear({key: score})
        shares.append(chosen.factor(0))
    return shares


@pytest.mark.parametrize("warmup", [0.0, 1.0])
def test_plateau_divides_when_patience_is_over(warmup: float) -> None:
    chosen = warm_up(halve(2), STEPS, warmup=warmup)
    scores = [0.5, 0.6, 0.6, 0.59, 0.6, 0.6, 0.6, 0.6, 0.7, 0.7]
    shares = []
    for score in scores:
        chosen.hear({"val/accuracy": score})
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
