"""A comparison as text and as CSV."""

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

from dltips.insight.compare_table import MOST_ROWS, as_csv, footnotes, table
from dltips.insight.comparison import Comparison, as_json, compare
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


def lines(comparison: Comparison) -> list[str]:
    return [line for line, _ in table(comparison)]


def test_a_narrow_terminal_does_without_some_columns_and_says_so() -> None:
    some = [run(init, seed, 0.5 + seed / 70) for init in ("he", "xavier_fc_gaussian_conv") for seed in (0, 1)]
    gone: dict[int, list[str]] = {100: [], 80: ["MB"], 74: ["MB", "seconds"], 66: ["MB", "seconds", "sd"]}
    for width, names in gone.items():
        head, *rows = [line for line, _ in table(compare(some), width)]
        hint = re.search(rf"too narrow for {' and '.join(names)}; --csv FILE", rows[-1])
        assert bool(hint) is bool(names)
        assert max(map(len, [head, *(rows[:-1] if names else rows)])) <= width
        assert [name for name in ("MB", "seconds", "sd") if name not in head.split()] == names


def test_nothing_finished_is_a_table_without_figures() -> None:
    found = compare([run("he", 0, 0.1, "diverged"), PastRun(Path("x"), "unfinished", {}, {}, None)])
    assert found.reference is None
    assert lines(found)[1].split() == ["all", "0/1", "diverged"]
    left_out, one_group = footnotes(found)
    assert left_out == "2 runs left out: 1 diverged, 1 unfinished" and "one group" in one_group
    assert compare([PastRun(Path("x"), "unfinished", {}, {}, None)]).rows == []


def test_the_table_fits_100_columns_and_wraps_long_labels() -> None:
    long = {f"model__knob_number_{number}": number for number in range(12)}
    some = [run("he", 0, 0.9, **long), run("zeros", 0, 0.8, **dict.fromkeys(long, 0.5))]
    shown = lines(compare(some))
    assert max(map(len, shown)) <= 100
    # nothing of the label is lost
    assert sum("model.knob_number_11=" in line for line in shown) == 2


@pytest.mark.parametrize(
    ("scores", "shown"),
    [
        ([0.98333, 0.98], "0.9817"),
        ([12.3456, 12.3456], "12.35"),
        ([85514.0, 85514.0], "85,514"),
        ([3e-7, 3e-7], "3.000e-07"),
        ([0.0, 0.0], "0.0000"),
        ([1e30, 1e30], "1.000e+30"),
        ([-5.0, -5.0], "-5.0000"),
    ],
)
def test_figures_have_four_digits(scores: list[float], shown: str) -> None:
    found = compare([run("he", seed, score) for seed, score in enumerate(scores)])
    assert lines(found)[1].split()[2] == shown


def test_many_groups_are_cut_in_the_table_alone() -> None:
    some = [run("he", 0, 0.5 + number / 1000, optimizer__lr=number) for number in range(MOST_ROWS + 7)]
    found = compare(some)
    assert len(lines(found)) == 1 + MOST_ROWS + 1
    assert re.search(r"7 more groups; --csv FILE", lines(found)[-1])
    assert len(as_csv(found).splitlines()) == MOST_ROWS + 8


def test_csv_and_json_hold_the_same_figures() -> None:
    found = compare([*runs(), run("lsuv", 0, 0.1, "diverged")])
    rows = list(csv.DictReader(io.StringIO(as_csv(found))))
    plain = json.loads(json.dumps(as_json(found), allow_nan=False))
    assert plain["reference"] == "init=he" and plain["better"] == "higher" and plain["by"] == ["init"]
    assert plain["left_out"] == ["1 diverged (init=lsuv)"]
    for row, entry in zip(rows, plain["groups"], strict=True):
        assert (row["group"], row["init"]) == (entry["group"], entry["settings"]["init"])
        for name in ("mean", "deviation", "low", "high", "difference", "p", "p_unadjusted", "seconds", "size_mb"):
            assert row[name] == ("" if entry[name] is None else str(entry[name]))
        assert int(row["n"]) == entry["n"] == (0 if entry["group"] == "init=lsuv" else 4)
    assert json.loads(rows[-1]["left_out"]) == {"diverged": 1}


def test_what_json_has_not_is_text() -> None:
    some = [run("he", 0, 0.9, odd=float("nan")), run("he", 0, 0.8, odd=[float("inf")])]
    shown = as_json(compare(some))
    assert [entry["settings"]["odd"] for entry in shown["groups"]] == ["nan", "[inf]"]
    json.dumps(shown, allow_nan=False)
