"""The table at the end of a grid."""

from pathlib import Path

import pytest

from dltips.sweep.grid.grid_report import SHOWN, ranked, report
from dltips.sweep.trial import Trial, TrialOutcome


def outcome(number: int, score: float | None, status: str = "finished", error: str | None = None) -> TrialOutcome:
    return TrialOutcome(number, status, Path(f"grid/{number:03}"), error, score, 3 if score is not None else None, 1.25)


def trials(count: int) -> list[Trial]:
    return [Trial(number, {}, {"seed": number}, f"{number:03}", "hash") for number in range(count)]


@pytest.mark.parametrize(("metric", "order"), [("val/accuracy", [3, 0, 4, 1, 2, 5]), ("val/loss", [1, 0, 4, 3, 2, 5])])
def test_the_best_is_first_and_what_failed_is_last(metric: str, order: list[int]) -> None:
    outcomes = {
        0: outcome(0, 0.5),
        1: outcome(1, 0.25, "pruned"),
        2: outcome(2, 0.99, "diverged"),
        3: outcome(3, 0.75),
        4: outcome(4, 0.5),
        5: outcome(5, None, "failed"),
    }
    assert ranked(outcomes, metric) == order


def test_the_report_has_each_trial_what_was_not_run_and_the_commands() -> None:
    outcomes = {0: outcome(0, 0.5), 1: outcome(1, None, "failed", "out of memory"), 2: outcome(2, 0.75, "interrupted")}
    text = report(trials(4), outcomes, "val/accuracy", outcomes[0], Path("grid"))
    lines = [line.split() for line in text.splitlines()]
    assert ["0", "0", "0.5000", "3", "1.2"] in lines
    assert ["1", "1", "-", "-", "1.2", "failed"] in lines
    assert "1 finished, 1 failed, 1 interrupted, 1 not run" in text
    assert "trial 1  failed: out of memory" in text
    assert "best      trial 0: seed=0, val/accuracy 0.5000 at epoch 3" in text
    assert "--retry" in text and "resume  " in text


def test_a_finished_grid_offers_neither_retry_nor_resume() -> None:
    text = report(trials(1), {0: outcome(0, 0.5)}, "val/accuracy", None, Path("grid"))
    assert "retry" not in text and "resume" not in text and "best" not in text
    assert "compare   dltips compare grid" in text


@pytest.mark.parametrize(("count", "more"), [(SHOWN, 0), (SHOWN + 2, 2)])
def test_a_long_table_is_cut(count: int, more: int) -> None:
    text = report(trials(count), {n: outcome(n, n / 100) for n in range(count)}, "val/accuracy", None, Path("grid"))
    assert len([line for line in text.splitlines() if line.rstrip().endswith("1.2")]) == SHOWN
    assert (f"... and {more} more: dltips compare grid" in text) is (more > 0)


@pytest.mark.parametrize(("failed", "more"), [(5, 0), (7, 2)])
def test_five_reasons_are_printed(failed: int, more: int) -> None:
    outcomes = {n: outcome(n, None, "failed", "no memory") for n in range(failed)}
    text = report(trials(failed), outcomes, "val/accuracy", None, Path("grid"))
    assert text.count("failed: no memory") == 5
    assert (f"... and {more} more: see grid/*/summary.json" in text) is (more > 0)
