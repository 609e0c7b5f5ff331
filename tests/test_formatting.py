"""Numbers, times, settings and columns as people read them."""

import pytest

from dltips.formatting import clock, columns, few, label, override_text


def test_the_first_few_and_how_many_more() -> None:
    assert few(["a", "b", "c"]) == "a, b, c"
    assert few(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"
    assert few([1, 2], most=1) == "1 and 1 more" and few([]) == ""


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0:00"), (59.4, "0:59"), (59.6, "1:00"), (185, "3:05"), (3599, "59:59"), (3600, "1:00:00"), (3723, "1:02:03")],
)
def test_a_clock_s_face(seconds: float, shown: str) -> None:
    assert clock(seconds) == shown


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (False, "false"),
        (0.1, "0.1"),
        (1e-05, "1e-05"),
        (1 / 3, "0.333333"),
        (3, "3"),
        ("he", "he"),
        ([1, [2.5, None]], "[1,[2.5,null]]"),
        ([], "[]"),
    ],
)
def test_a_setting_as_it_is_typed(value: object, text: str) -> None:
    assert override_text(value) == text


def test_what_varies() -> None:
    assert label({"init": "he", "optimizer.lr": 0.1}) == "init=he optimizer.lr=0.1"
    assert label({}) == "as it is"


def test_columns_are_flush_left_then_right_and_end_with_their_text() -> None:
    rows = [["name", "n", "score"], ["a", "100", "0.5"], ["long name", "1", "-"]]
    assert columns(rows, left=1) == ["name         n  score", "a          100    0.5", "long name    1      -"]
    assert columns([["a", ""], ["b", ""]], left=2) == ["a", "b"]
