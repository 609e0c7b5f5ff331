"""Numbers, times, settings and columns as people read them."""

from collections.abc import Callable
from typing import Any

import pytest

from dltips.formatting import (
    ColumnNumbers,
    clock,
    columns,
    few,
    four_digits,
    label,
    megabytes,
    override_text,
    p_value,
    rounded,
    seconds_text,
    setting_text,
)


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


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.1, "0.1"),
        (1.0, "1"),
        (-0.0, "0"),
        (1e-05, "1e-05"),
        (0.1 + 0.2, "0.3"),
        (0.1234567890123456, "0.123456789012"),
        ([0.1 + 0.2, {"a": 0.7 + 0.1}], "[0.3,{a: 0.8}]"),
        (1e300, "1e+300"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        (True, "true"),
        (None, "null"),
        ([128, 64.5, "a"], "[128,64.5,a]"),
        ({"head": 10.0}, "{head: 10}"),
        ("he", "he"),
        ("[bold]he[/bold]", "[bold]he[/bold]"),
        ("\x1b[31mred\x07\n", "[31mred"),
        ("Gr\u00f6\u00dfe \u2192", "Gr\u00f6\u00dfe \u2192"),
        ("a\u202eb\x9b", "ab"),
    ],
)
def test_settings_as_text(value: Any, shown: str) -> None:
    assert setting_text(value) == shown


def test_all_digits_are_there_where_they_are_asked_for() -> None:
    assert setting_text(0.1 + 0.2, None) == "0.30000000000000004"
    assert setting_text([0.7 + 0.1, 1.0], None) == "[0.7999999999999999,1]"


@pytest.mark.parametrize(
    ("written", "value", "text"),
    [
        (four_digits, 0.5, "0.5000"),
        (four_digits, 1234.4, "1234"),
        (four_digits, 1e-7, "1.000e-07"),
        (seconds_text, 1.234, "1.23"),
        (seconds_text, 12.34, "12.3"),
        (seconds_text, 1234.5, "1,234.5"),
        (megabytes, 0.12345, "0.123"),
        (megabytes, 999.9, "1e+03"),
        (megabytes, 1000, "1,000"),
        (megabytes, 1234.4, "1,234"),
        (p_value, 0.01234, "0.0123"),
        (p_value, 0.00009, "<0.0001"),
    ],
)
def test_numbers_have_as_many_digits_as_a_reader_needs(
    written: Callable[[float], str], value: float, text: str
) -> None:
    assert written(value) == text


def test_a_long_number_is_rounded_after_its_point_alone() -> None:
    assert (rounded(0.12345678, 6), rounded(1234567.8, 6), rounded(-1234567.8, 6)) == (
        "0.123457",
        "1234568",
        "-1234568",
    )


def test_numbers_of_one_column_have_the_decimals_of_the_largest() -> None:
    assert [ColumnNumbers(largest)(0.5) for largest in (0.0, 0.98, 12.3, 85514.0)] == ["0.5000", "0.5000", "0.50", "0"]
    assert ColumnNumbers(1e-6)(5e-7) == "5.000e-07" and ColumnNumbers(1e9)(5e8) == "5.000e+08"
