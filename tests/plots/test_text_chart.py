"""The chart in the terminal: what it shows is where it should be, in the room that it has."""

import math
import re
import subprocess
import sys

import pytest

from dltips.plots.text_chart import BRAILLE, chart

NAN, INF = math.nan, math.inf


def records(count, **changes):
    """A run that learns; `changes` replaces a value of the last epoch."""
    lines = [
        {
            "epoch": n,
            "train/loss": 2 * math.exp(-n / 9),
            "val/loss": 2 * math.exp(-n / 9) + 0.25,
            "train/accuracy": 1 - 0.9 * math.exp(-n / 5),
            "val/accuracy": 0.95 - 0.9 * math.exp(-n / 5),
            "lr": 0.1,
        }
        for n in range(1, count + 1)
    ]
    if changes:
        lines[-1] |= {key.replace("_", "/"): value for key, value in changes.items()}
    return lines


def losses(train, val=()):
    """Records that hold nothing but the losses."""
    lines = [{"epoch": n, "train/loss": value} for n, value in enumerate(train, 1)]
    return [line | {"val/loss": value} for line, value in zip(lines, val, strict=True)] if val else lines


def plain(text):
    return re.sub(r"\x1b\[\d+m", "", text)


def field(text):
    """The rows of a panel's curve, right of the axis."""
    return [re.split(r"[│┤|+]", row, maxsplit=1)[1] for row in text.splitlines()[1:] if re.search(r"[│┤|+](?!-)", row)]


def dots(text):
    """The lit dots of a chart in braille, as (column, row)."""
    return {
        (column * 2 + x, row * 4 + y)
        for row, cells in enumerate(field(text))
        for column, cell in enumerate(cells)
        for (x, y), bit in BRAILLE.items()
        if cell != " " and (ord(cell) - 0x2800) & bit
    }


@pytest.mark.parametrize("count", [1, 2, 30, 1000])
@pytest.mark.parametrize("width", [40, 72, 99, 100, 101, 160])
@pytest.mark.parametrize("look", [{}, {"unicode": False}, {"color": True}, {"unicode": False, "color": True}])
def test_no_line_is_wider_than_asked(count, width, look):
    for line in chart(records(count), width=width, **look).splitlines():
        assert len(plain(line)) <= width


@pytest.mark.parametrize("unicode", [True, False])
def test_the_axes_name_the_extremes_and_the_epochs(unicode):
    text = chart(losses([2.5, 0.875, 1.125], [2.0, 0.5625, 3.5]), unicode=unicode)
    rows = text.splitlines()
    assert rows[1].split()[0] == "3.5" and rows[8].split()[0] == "0.562"
    assert rows[-1].split() == ["1", "epoch", "3"]


def test_labels_of_close_extremes_differ():
    text = chart(losses([2.302585, 2.302586]))
    assert "2.302585" in text and "2.302586" in text


def test_points_lie_where_their_values_say():
    values = [4.0, 3.0, 2.0, 1.0]
    text = chart(losses(values), width=70, height=8)
    columns, rows = 2 * (70 - 7), 4 * 8
    expected = {
        (int(n / 3 * (columns - 1) + 0.5), int((4 - value) / 3 * (rows - 1) + 0.5)) for n, value in enumerate(values)
    }
    lit = dots(text)
    assert expected <= lit
    assert {x for x, _ in lit} == set(range(columns))  # the line between them has no gap


def test_a_logarithmic_axis_makes_exponential_decay_a_straight_line():
    text = chart(losses([10.0 ** -(n / 10) for n in range(31)]), height=16)
    assert text.startswith("loss (log)")
    lit = dots(text)
    columns, rows = max(x for x, _ in lit), max(y for _, y in lit)
    assert all(abs(y / rows - x / columns) < 1.5 / rows for x, y in lit)


@pytest.mark.parametrize(("values", "is_log"), [([1.0, 0.11], False), ([1.0, 0.09], True), ([1.0, 0.0], False)])
def test_the_axis_is_logarithmic_from_a_decade_on(values, is_log):
    assert ("(log)" in chart(losses(values))) == is_log


def test_ascii_tells_train_val_and_both_apart():
    text = chart(losses([1.0, 3.0], [3.0, 1.0]), unicode=False)
    assert text.isascii()
    rows = field(text)
    assert rows[0][0] == "o" and rows[0][-1] == "*"
    assert rows[-1][0] == "*" and rows[-1][-1] == "o"
    assert any("8" in row for row in rows)
    assert "* train 3.000  o val 1.000  8 both" in text


def test_braille_tells_train_and_val_apart_without_colour():
    train = dots(chart(losses([1.0, 1.0, 2.0]), width=80))
    both = dots(chart(losses([1.0, 1.0, 2.0], [2.0, 2.0, 1.0]), width=80))
    assert train < both
    val = {x for x, y in both - train if y == 0 and x < 60}
    assert val and len(val) < 0.6 * (max(val) + 1)  # dashed: about half of the columns


@pytest.mark.parametrize("unicode", [True, False])
def test_colour_only_adds_escape_codes(unicode):
    lines = records(30)
    painted = chart(lines, unicode=unicode, color=True)
    assert painted != plain(painted) == chart(lines, unicode=unicode)


def test_panels_stand_beside_each_other_from_100_columns_on():
    below, beside = chart(records(9), width=99).splitlines(), chart(records(9), width=100).splitlines()
    assert len(below) == 2 * len(beside) + 1
    assert "loss" in beside[0] and "accuracy" in beside[0]
    assert len(chart(records(9), width=99, height=5).splitlines()) == len(below) - 6


@pytest.mark.parametrize("gap", [NAN, INF, -INF, None])
def test_what_is_not_finite_leaves_a_gap(gap):
    whole = dots(chart(losses([4.0, 1.0, 3.0, 2.0, 1.0])))
    torn = dots(chart(losses([4.0, 1.0, gap, 2.0, 1.0])))
    assert torn < whole
    left, right = max(x for x, _ in torn if x < 50), min(x for x, _ in torn if x > 50)
    assert right - left > 50


@pytest.mark.parametrize("value", [NAN, INF, None])
def test_a_diverged_run_keeps_its_epochs_and_says_so(value):
    text = chart(records(20, train_loss=value, val_loss=value))
    header = text.splitlines()[0]
    assert f"train {'inf' if value == INF else 'nan'}" in header
    assert text.splitlines()[10].split()[-1] == "20"


@pytest.mark.parametrize("unicode", [True, False])
def test_nothing_to_draw_is_no_error(unicode):
    assert chart([], unicode=unicode) == ""
    assert chart([{"epoch": 1, "lr": 0.1}], unicode=unicode) == ""
    hollow = chart(losses([NAN, None], [INF, NAN]), unicode=unicode)
    assert not any(cells.strip() for cells in field(hollow))


@pytest.mark.parametrize("width", range(60, 68))
def test_a_lone_epoch_of_val_is_seen_too(width):
    assert len(dots(chart([{"epoch": 1, "val/loss": 0.5}], width=width))) == 1


def test_one_epoch_is_a_dot_and_a_constant_is_a_line_in_the_middle():
    assert len(dots(chart(losses([0.5])))) == 1
    rows = {y for _, y in dots(chart(losses([0.5, 0.5, 0.5]), height=8))}
    assert rows == {16}
    assert chart(losses([0.5, 0.5])).splitlines()[5].split()[0] == "0.5"


def test_a_value_that_only_some_epochs_have_is_drawn():
    lines = losses([3.0, 2.0, 1.0])
    lines[1]["val/loss"] = 2.5
    assert "val 2.500" in chart(lines)


def test_needs_neither_torch_nor_numpy_nor_rich():
    code = "import sys, dltips.plots.text_chart; sys.exit(bool({'torch', 'numpy', 'rich'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
