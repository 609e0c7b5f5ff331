"""What is said below a comparison."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from dltips.insight.comparison import compare
from dltips.runs.past_runs import PastRun

SCORES = {
    "he": [0.91, 0.93, 0.92, 0.95],
    "xavier": [0.90, 0.91, 0.92, 0.93],
    "zeros": [0.10, 0.11, 0.10, 0.12],
}


def run(init: str, seed: int, score: Any, status: str = "finished", summary: Any = None, **settings: Any) -> PastRun:
    found = {"best": {"epoch": 3, "val/accuracy": score, "val/loss": 1 - score if isinstance(score, float) else None}}
    found |= {"seconds": 2.0 + seed, "size_mb": 0.3, "data_hash": "d", "code_version": "1"} | (summary or {})
    flat = {"seed": seed, "init": init, "metric": "val/accuracy"}
    flat |= {key.replace("__", "."): value for key, value in settings.items()}
    return PastRun(Path(f"{init}-{seed}"), status, flat, found, seed)


def runs() -> list[PastRun]:
    return [run(init, seed, score) for init, scores in SCORES.items() for seed, score in enumerate(scores)]


def match(lines: Sequence[str], *patterns: str) -> bool:
    """Tells whether each line has its pattern, and no line is left over."""
    return len(lines) == len(patterns) and all(map(re.search, patterns, lines))


def test_many_groups_of_survivors_are_named_in_part() -> None:
    some = [run(f"i{number}", 0, 0.9 - number / 100) for number in range(7)]
    found = compare([*some, *(run(f"i{number}", 1, 0.0, "failed") for number in range(7))])
    parts = ", ".join(f"init=i{number} 1 of 2 failed" for number in range(5))
    assert re.search(rf"survivors: {parts}, and 2 more groups; no group is complete$", found.notes[0])


def test_where_there_is_no_p_value_it_is_said_why() -> None:
    odd = [run("same", seed, score - 0.01) for seed, score in enumerate(SCORES["he"])]
    odd += [run("other", seed, 0.5 + seed / 100) for seed in (8, 9)]
    odd += [run("one", seed, 0.4 + seed / 100) for seed in (3, 9)]
    found = compare([*runs(), *odd])
    by_label = {row.group.label: row for row in found.rows}
    assert by_label["init=other"].difference is None
    assert by_label["init=one"].difference == pytest.approx(0.43 - 0.95)
    assert all(by_label[f"init={name}"].p is None for name in ("same", "other", "one"))
    assert match(
        found.notes,
        r"^no p value \(init=other\): no seed",
        r"^no p value \(init=one\): one seed",
        r"^no p value \(init=same\): .*difference",
    )


def test_settings_that_are_not_asked_for_are_said_and_averaged_over() -> None:
    some = [
        run(init, seed, 0.5 + lr + seed / 100, optimizer__lr=lr)
        for init in ("he", "zeros")
        for lr in (0.1, 0.2)
        for seed in (0, 1)
    ]
    found = compare(some, by=["init"])
    assert [(row.group.label, len(row.by_seed), len(row.used)) for row in found.rows] == [
        ("init=he", 2, 4),
        ("init=zeros", 2, 4),
    ]
    assert found.rows[0].by_seed == {0: pytest.approx(0.65), 1: pytest.approx(0.66)}
    assert match(found.notes, r"^optimizer\.lr differs within groups: .*averaged; --by", r"^no p value \(init=zeros\)")


def test_groups_that_were_run_with_other_values_are_no_clean_comparison() -> None:
    some = [
        run(init, seed, 0.5 + seed / 70 + 0.1 * (init == "he"), optimizer__lr=lr)
        for init, rates in (("he", (0.1, 0.2)), ("zeros", (0.1,)))
        for lr in rates
        for seed in (0, 1)
    ]
    assert any(re.search(r"other values of optimizer\.lr", note) for note in compare(some, by=["init"]).notes)


def test_other_data_and_other_code_are_said() -> None:
    some = [run("he", 0, 0.9), run("he", 1, 0.8, summary={"data_hash": "e", "code_version": "2"})]
    assert match(
        compare(some).notes, r"2 data sets or splits.*\(data_hash differs\)", r"2 versions.*\(code_version differs\)"
    )
