"""Which runs belong together, and what their groups are called."""

from pathlib import Path
from typing import Any

import pytest

from dltips.errors import ConfigError
from dltips.insight.groups import differing_settings, group_runs, wrap_label
from dltips.runs.past_runs import PastRun


def run(seed: int | None = 0, name: str = "run", **settings: Any) -> PastRun:
    """A run; __ stands for the dot of a key."""
    flat = {key.replace("__", "."): value for key, value in settings.items()}
    return PastRun(Path(name), "finished", {"seed": seed, **flat}, {}, seed)


def labels(runs: list[PastRun], *by: str) -> list[str]:
    return [group.label for group in group_runs(runs, by or None)]


def test_runs_that_differ_in_their_seed_are_one_group() -> None:
    runs = [run(seed, init="he") for seed in range(3)]
    (group,) = group_runs(runs)
    assert (group.label, group.settings, list(group.runs)) == ("all", {}, runs)
    assert {seed: len(members) for seed, members in group.seeds().items()} == {0: 1, 1: 1, 2: 1}


def test_what_decides_nothing_makes_no_groups() -> None:
    first = run(0, name="a", resume=None, device="cpu", devices=1, log__layers=True, checkpoint__interval=60, epochs=3)
    other = {"name": "b", "resume": "x", "device": "cuda", "devices": 2, "log.layers": False, "checkpoint.interval": 1}
    second = PastRun(Path("b"), "finished", {"seed": 1, "epochs": 3} | other, {}, 1)
    assert differing_settings([first, second]) == []


def test_groups_come_in_the_order_of_their_runs_and_keys_in_the_order_of_the_families() -> None:
    runs = [
        run(seed, epochs=epochs, optimizer__lr=0.1, init=init)
        for epochs in (30, 5)
        for init in ("xavier", "he")
        for seed in range(2)
    ]
    assert labels(runs) == ["init=xavier epochs=30", "init=he epochs=30", "init=xavier epochs=5", "init=he epochs=5"]
    assert [len(group.runs) for group in group_runs(runs)] == [2, 2, 2, 2]
    assert group_runs(runs)[0].settings == {"init": "xavier", "epochs": 30}


def test_a_knob_that_comes_with_its_option_is_no_difference_of_its_own() -> None:
    he = {"init": "he", "init__scale": 1.0, "init__mode": "fan_in"}
    small = {"init": "small_random", "init__scale": 0.01}
    assert differing_settings([run(**he), run(**small)]) == ["init"]
    # within one option it is
    assert differing_settings([run(**he), run(**small), run(**(he | {"init__scale": 2.0}))]) == ["init", "init.scale"]
    assert labels([run(**he), run(**small), run(**(he | {"init__scale": 2.0}))]) == [
        "init=he init.scale=1",
        "init=small_random init.scale=0.01",
        "init=he init.scale=2",
    ]


def test_the_knobs_of_families_that_take_lists_belong_to_their_own_option() -> None:
    both = run(regularization="l2,dropout", regularization__dropout__p=0.3)
    one = run(regularization="dropout", regularization__dropout__p=0.5)
    assert differing_settings([both, one]) == ["regularization", "regularization.dropout.p"]


def test_what_an_older_run_does_not_have_is_no_difference() -> None:
    assert differing_settings([run(init="he"), run(init="he", sync_bn=True)]) == []


def test_settings_that_read_the_same_are_the_same() -> None:
    assert differing_settings([run(lr=1), run(lr=1.0), run(lr="1")]) == []
    assert differing_settings([run(w=[128, 128]), run(w=[128.0, 128])]) == []
    assert differing_settings([run(compile=True), run(compile=1)]) == ["compile"]


def test_values_that_differ_in_rounding_alone_are_one() -> None:
    assert differing_settings([run(optimizer__lr=0.3), run(optimizer__lr=0.1 + 0.2)]) == []


def test_labels_have_few_digits_where_these_tell_the_groups_apart() -> None:
    drawn = [run(optimizer__lr=lr) for lr in (0.025000185305906787, 0.03492416672017841, 0.1 + 0.2)]
    assert labels(drawn) == ["optimizer.lr=0.0250002", "optimizer.lr=0.0349242", "optimizer.lr=0.3"]
    assert group_runs(drawn)[0].settings == {"optimizer.lr": 0.025000185305906787}
    near = [run(optimizer__lr=lr) for lr in (0.025000185, 0.025000186, 0.1 + 0.2)]
    assert labels(near) == ["optimizer.lr=0.025000185", "optimizer.lr=0.025000186", "optimizer.lr=0.3"]


@pytest.mark.parametrize(
    ("width", "lines"),
    [
        (60, ["init=he optimizer.lr=0.0250002 model.widths=[512,256,128]"]),
        (40, ["init=he optimizer.lr=0.0250002", "  model.widths=[512,256,128]"]),
        (22, ["init=he", "  optimizer.lr=", "  0.0250002", "  model.widths=[512,", "  256,128]"]),
        (12, ["init=he", "  optimizer.", "  lr=", "  0.0250002", "  model.widt", "  hs=[512,", "  256,128]"]),
    ],
)
def test_a_label_is_wrapped_between_settings_then_values_and_within_one_last(width: int, lines: list[str]) -> None:
    label = "init=he optimizer.lr=0.0250002 model.widths=[512,256,128]"
    found = wrap_label(label, width, "  ")
    assert found == lines
    assert max(map(len, found)) <= width
    assert "".join(found).replace(" ", "") == label.replace(" ", "")


def test_groups_by_the_settings_that_are_asked_for() -> None:
    runs = [run(0, init=init, optimizer__lr=lr) for init in ("he", "xavier") for lr in (0.1, 0.01)]
    assert labels(runs, "init") == ["init=he", "init=xavier"]
    assert labels(runs, "optimizer.lr", "init", "init")[:2] == ["optimizer.lr=0.1 init=he", "optimizer.lr=0.01 init=he"]
    assert labels([run(0), run(1)], "seed") == ["seed=0", "seed=1"]


def test_a_group_without_the_setting_says_so() -> None:
    runs = [run(init="he", init__scale=1.0), run(init="zeros")]
    assert labels(runs, "init.scale") == ["init.scale=1", "without init.scale"]
    assert group_runs(runs, ["init.scale"])[1].settings == {}


def test_a_setting_that_no_run_has_is_refused() -> None:
    runs = [run(init="he", optimizer__lr=0.1), run(init="zeros", optimizer__lr=0.1)]
    for key, remedy in {"inti": r"did you mean init\?$", "qqq": r"differs.* init$"}.items():
        with pytest.raises(ConfigError, match=rf"^by: '{key}' .*{remedy}"):
            group_runs(runs, [key])
    with pytest.raises(ConfigError, match=r"^by: 'qqq' .*the seed alone$"):
        group_runs(runs[:1], ["qqq"])


def test_runs_whose_settings_nobody_knows_are_in_no_group() -> None:
    assert group_runs([PastRun(Path("x"), "unfinished", {}, {}, None)]) == []


def test_repeats_of_a_seed_are_put_together_and_unknown_seeds_are_not() -> None:
    runs = [run(0), run(0), run(1), run(None, "a"), run(None, "b")]
    runs = [
        PastRun(Path(one), found.status, {"init": "he"}, {}, found.seed)
        for one, found in zip("abcde", runs, strict=True)
    ]
    (group,) = group_runs(runs)
    assert [len(members) for members in group.seeds().values()] == [2, 1, 1, 1]
