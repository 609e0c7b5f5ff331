"""The table: means over seeds, paired differences, what is left out and said."""

import csv
import io
import re
from pathlib import Path
from typing import Any

import numpy
import pytest
import scipy.stats

from dltips.errors import ConfigError
from dltips.insight.compare_table import as_csv, footnotes, table
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


def test_the_rows_are_sorted_and_hold_what_scipy_finds() -> None:
    found = compare(runs()[::-1])
    assert [row.group.label for row in found.rows] == ["init=he", "init=xavier", "init=zeros"]
    best, second, worst = found.rows
    assert best.reference and best.difference is None and best.p is None
    assert best.spread is not None and best.spread.mean == pytest.approx(numpy.mean(SCORES["he"]))
    assert (best.seconds, best.size_mb) == (3.5, pytest.approx(0.3))
    p = [scipy.stats.ttest_rel(SCORES[name], SCORES["he"]).pvalue for name in ("xavier", "zeros")]
    assert second.difference == pytest.approx(-0.0125)
    assert (second.p_alone, worst.p_alone) == (pytest.approx(p[0]), pytest.approx(p[1]))
    # Holm over two: the smaller doubles, the larger stays
    assert (second.p, worst.p) == (pytest.approx(p[0]), pytest.approx(2 * p[1]))
    assert found.left_out_count == 0 and found.notes == []


def test_the_direction_is_the_metrics() -> None:
    assert compare(runs(), metric="val/loss").rows[0].group.label == "init=he"
    assert [row.reference for row in compare(runs(), metric="val/loss").rows] == [True, False, False]
    slow = [run("he", 0, 0.9, summary={"seconds": 9.0}), run("zeros", 0, 0.1, summary={"seconds": 1.0})]
    assert compare(slow, metric="seconds").rows[0].group.label == "init=zeros"
    fast = [run("he", 0, 0.9, summary={"samples_per_second": 9.0}), run("x", 0, 0.1, summary={"samples_per_second": 1})]
    assert compare(fast, metric="samples_per_second").rows[0].group.label == "init=he"


def test_pairs_are_of_the_seeds_that_both_have() -> None:
    some = [one for one in runs() if not (one.settings["init"] == "he" and one.seed == 1)]
    found = compare(some)
    shared = [0, 2, 3]
    expected = scipy.stats.ttest_rel([SCORES["xavier"][s] for s in shared], [SCORES["he"][s] for s in shared])
    assert (found.rows[1].pairs, found.rows[1].p_alone) == (3, pytest.approx(expected.pvalue))
    assert any(re.search(r"seeds that both groups have \(init=xavier, init=zeros\)$", note) for note in found.notes)


def test_repeats_of_a_seed_are_one_value() -> None:
    repeated = [*runs(), run("xavier", 0, 0.80)]
    found = compare(repeated)
    row = found.rows[1]
    assert row.spread is not None
    assert (row.spread.n, len(row.used)) == (4, 5)
    assert row.spread.mean == pytest.approx(numpy.mean([0.85, 0.91, 0.92, 0.93]))
    assert row.difference == pytest.approx(numpy.mean([-0.06, -0.02, 0.0, -0.02]))
    (note,) = found.notes
    assert re.search(r"more than once \(init=xavier\): .*averaged$", note)


def test_what_did_not_finish_is_counted_and_not_averaged() -> None:
    odd = [
        run("he", 4, 0.0, "diverged"),
        run("he", 5, 0.0, "unfinished"),
        run("lsuv", 0, 0.0, "failed"),
        run("lsuv", 1, 0.0, "failed"),
        run("he", 6, None),
        run("he", 7, float("nan")),
        PastRun(Path("x"), "interrupted", {}, {}, None),
    ]
    found = compare([*runs(), *odd])
    by_label = {row.group.label: row for row in found.rows}
    assert by_label["init=he"].spread == compare(runs()).rows[0].spread
    assert found.left_out_count == 7
    assert footnotes(found)[0] == (
        "7 runs left out: 1 diverged (init=he), 1 unfinished (init=he), 2 failed (init=lsuv),"
        " 2 without val/accuracy (init=he), 1 interrupted"
    )
    last = found.rows[-1]
    assert (last.group.label, last.spread, last.left_out) == ("init=lsuv", None, {"failed": 2})
    assert lines(found)[-1].split() == ["init=lsuv", "0/2", "failed", *["-"] * 6]


def test_a_group_that_lost_runs_is_marked_and_stands_below_the_complete_ones() -> None:
    lost = [run("he", seed, 0.0, "diverged") for seed in (4, 5, 6)] + [run("he", 7, 0.0, "failed")]
    found = compare([*runs(), *lost])
    assert [(row.group.label, row.n) for row in found.rows] == [
        ("init=xavier", "4"),
        ("init=zeros", "4"),
        ("init=he", "4/8"),
    ]
    assert [row.reference for row in found.rows] == [True, False, False]
    (note,) = found.notes
    assert re.search(r"survivors: init=he 4 of 8 diverged or failed; .*below", note)
    assert found.rows[-1].difference == pytest.approx(0.0125)
    assert [line.split()[1] for line in lines(found)[1:]] == ["4", "4", "4/8"]
    assert as_json(found)["groups"][-1]["lost"] == 4
    assert [row["lost"] for row in csv.DictReader(io.StringIO(as_csv(found)))] == ["0", "0", "4"]
    named = compare([*runs(), *lost], baseline="init=he")
    assert named.reference is not None and named.reference.group.label == "init=he"


@pytest.mark.parametrize("status", ["unfinished", "interrupted", "pruned"])
def test_what_says_nothing_of_the_setting_is_no_loss(status: str) -> None:
    found = compare([*runs(), run("he", 4, 0.0, status)])
    assert (found.rows[0].group.label, found.rows[0].n, found.notes) == ("init=he", "4", [])
    assert footnotes(found)[0] == f"1 run left out: 1 {status} (init=he)"


def test_where_no_group_is_complete_the_best_of_the_survivors_is_compared_to() -> None:
    found = compare([*runs(), *(run(init, 9, 0.0, "diverged") for init in SCORES)])
    assert [row.group.label for row in found.rows if row.reference] == ["init=he"]
    parts = ", ".join(f"init={init} 1 of 5 diverged" for init in SCORES)
    (note,) = found.notes
    assert re.search(rf"survivors: {parts}; no group is complete$", note)
    (note,) = compare([run("he", 0, 0.9), run("he", 1, 0.0, "diverged")]).notes
    assert re.search(r"survivors: 1 of 2 diverged$", note)


def test_a_loss_that_was_made_up_for_is_none() -> None:
    found = compare([*runs(), run("he", 0, 0.0, "failed")])
    assert (found.rows[0].group.label, found.rows[0].n) == ("init=he", "4")


def test_a_loss_within_a_seed_counts_where_settings_are_averaged_over() -> None:
    some = [run("he", seed, 0.9 + seed / 100, optimizer__lr=0.1) for seed in (0, 1)]
    some += [run("he", seed, 0.0, "diverged", optimizer__lr=9.0) for seed in (0, 1)]
    some += [run("zeros", seed, 0.1 + seed / 90, optimizer__lr=lr) for seed in (0, 1) for lr in (0.1, 9.0)]
    found = compare(some, by=["init"])
    assert [(row.group.label, row.n) for row in found.rows] == [("init=zeros", "2"), ("init=he", "2/4")]
    assert any(re.search(r"survivors: init=he 2 of 4 diverged; .*below", note) for note in found.notes)


def test_a_group_without_the_metric_has_no_value() -> None:
    found = compare([*runs(), run("lsuv", 0, None)])
    assert lines(found)[-1].split() == ["init=lsuv", "0", "no", "value", *["-"] * 6]
    assert lines(compare([run("he", 0, 0.9), run("x", 0, None, "")]))[-1].split()[:2] == ["init=x", "0"]


def test_of_a_search_the_trials_that_were_not_pruned_are_shown() -> None:
    drawn = [0.025000185305906787, 0.03492416672017841, 0.5129857154804299, 2.376993863933466]
    statuses = ["finished", "finished", "pruned", "pruned"]
    some = [run("he", 0, 0.9 - lr, status, optimizer__lr=lr) for lr, status in zip(drawn, statuses, strict=True)]
    found = compare([*some, run("he", 0, 0.0, "diverged", optimizer__lr=3.0)])
    assert lines(found) == [
        "group                     n  val/accuracy  seconds   MB  difference",
        "optimizer.lr=0.0250002    1        0.8750     2.00  0.3        best",
        "optimizer.lr=0.0349242    1        0.8651     2.00  0.3     -0.0099",
        "optimizer.lr=3          0/1      diverged        -    -           -",
    ]
    assert footnotes(found)[0] == (
        "3 runs left out: 2 pruned (optimizer.lr=0.512986, optimizer.lr=2.37699), 1 diverged (optimizer.lr=3)"
    )
    assert re.search(r"^2 groups of pruned runs .*--csv FILE", footnotes(found)[1])
    rows = list(csv.DictReader(io.StringIO(as_csv(found))))
    assert [row["optimizer.lr"] for row in rows] == [*map(repr, drawn), "3"]
    # a label, and a number with all its digits, name a trial
    for asked in ("optimizer.lr=0.0349242", "optimizer.lr=0.03492416672017841", f"init=he optimizer.lr={drawn[1]}"):
        assert [row.reference for row in compare(some, baseline=asked).rows][:2] == [False, True]
    assert [line.split()[:3] for line in lines(compare(some[2:]))[1:]] == [
        ["optimizer.lr=0.512986", "0", "pruned"],
        ["optimizer.lr=2.37699", "0", "pruned"],
    ]


def test_one_seed_has_neither_deviation_nor_interval_nor_p() -> None:
    found = compare([run("he", 0, 0.95), run("zeros", 0, 0.90)])
    assert lines(found)[1:] == [
        "init=he     1        0.9500     2.00  0.3        best",
        "init=zeros  1        0.9000     2.00  0.3     -0.0500",
    ]
    (note,) = found.notes
    assert re.search(r"^one seed each: .*'seed=range\(5\)'.* seeds=5$", note)


def test_a_baseline_by_its_label_a_part_of_it_its_settings_or_a_folder(tmp_path: Path) -> None:
    some = [
        run(init, seed, 0.5 + lr + seed / 70, optimizer__lr=lr)
        for init in ("he", "zeros")
        for lr in (0.1, 0.2)
        for seed in (0, 1, 2)
    ]
    (tmp_path / "config.yaml").write_text("")
    some.append(PastRun(tmp_path, "finished", some[0].settings | {"seed": 3}, some[0].summary, 3))
    for asked, label in {
        "init=he optimizer.lr=0.1": "init=he optimizer.lr=0.1",
        "optimizer.lr=2e-1 init=zeros": "init=zeros optimizer.lr=0.2",
        str(tmp_path): "init=he optimizer.lr=0.1",
    }.items():
        found = compare(some, baseline=asked)
        assert found.reference is not None and found.reference.group.label == label
        assert sum(row.reference for row in found.rows) == 1
        assert [row.difference for row in found.rows if row.reference] == [None]
    found = compare(some, by=["optimizer.lr"], baseline="optimizer.lr=0.1")
    assert found.rows[0].difference is not None and found.rows[0].difference > 0
    assert "baseline" in lines(found)[2]
    assert compare(some, by=["init", "init"]).by == ["init"]


def test_a_baseline_that_is_none_or_several_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("")
    for asked, remedy in {
        "init=hee": r"did you mean init=he\?$",
        "qqq": r": init=he, init=xavier, init=zeros, init=lsuv$",
        "metric=val/accuracy": r"4 groups; .*'init=he'$",
        "init=lsuv": r"val/accuracy; .*another group$",
        str(tmp_path): r"; name its folder",
    }.items():
        with pytest.raises(ConfigError, match=rf"^baseline: '?{re.escape(asked)}'? .*{remedy}"):
            compare([*runs(), run("lsuv", 0, 0.1, "diverged")], baseline=asked)


def test_an_unknown_metric_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^metric: 'val/acuracy' .*did you mean val/accuracy\?$"):
        compare(runs(), metric="val/acuracy")
    with pytest.raises(ConfigError, match=r"^metric: 'qqq' .*: flops_per_sample, .*seconds, .*val/accuracy, val/loss$"):
        compare(runs(), metric="qqq")


def test_without_a_metric_it_is_the_one_that_most_runs_decided_by() -> None:
    some = [run("he", seed, 0.9, metric="val/loss") for seed in range(2)] + [run("he", 2, 0.8)]
    found = compare(some)
    assert found.metric == "val/loss"
    assert [row.group.label for row in found.rows] == ["metric=val/loss", "metric=val/accuracy"]
    assert re.search(r"metric differs: .*val/loss in 2 runs, by val/accuracy in 1; --metric", found.notes[0])
