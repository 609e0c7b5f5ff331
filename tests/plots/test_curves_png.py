"""curves.png: the figure holds the records, whatever they are, and the file is whole or untouched."""

import math

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from dltips.plots.curves_png import curves

NAN, INF = math.nan, math.inf


def records(count):
    return [
        {
            "epoch": n,
            "train/loss": 2 / n,
            "val/loss": 0.3 + (n - 7) ** 2 / 50,
            "train/accuracy": 1 - 0.5 / n,
            "val/accuracy": 0.9 - abs(n - 5) / 2000,
            "lr": 0.1 * 0.5**n,
        }
        for n in range(1, count + 1)
    ]


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Draws records; gives the panels that went into the file."""
    figures = []
    print_figure = FigureCanvasAgg.print_figure

    def listen(canvas, *arguments, **options):
        figures.append(canvas.figure)
        return print_figure(canvas, *arguments, **options)

    monkeypatch.setattr(FigureCanvasAgg, "print_figure", listen)

    def draw(lines, title=""):
        curves(lines, tmp_path / "curves.png", title)
        return figures[-1].axes

    return draw


def line(axes, label):
    return next(line for line in axes.get_lines() if line.get_label().startswith(label))


@pytest.mark.parametrize("count", [1, 2, 30, 1000])
def test_the_lines_are_the_records(drawn, tmp_path, count):
    lines = records(count)
    loss, accuracy, rate = drawn(lines, "a run")
    for axes, label, key in (
        (loss, "train", "train/loss"),
        (loss, "val", "val/loss"),
        (accuracy, "train", "train/accuracy"),
        (accuracy, "val", "val/accuracy"),
        (rate, "lr", "lr"),
    ):
        assert line(axes, label).get_xydata().tolist() == [[record["epoch"], record[key]] for record in lines]
        assert (line(axes, label).get_marker() == "o") == (count <= 30)  # a single epoch would not be seen as a line
    with Image.open(tmp_path / "curves.png") as image:
        assert image.format == "PNG" and image.size == (1430, 429)


def test_stars_mark_the_best_of_val(drawn):
    loss, accuracy, _ = drawn(records(30))
    assert line(loss, "best val 0.3, epoch 7").get_xydata().tolist() == [[7, 0.3]]
    assert line(accuracy, "best val 0.9, epoch 5").get_xydata().tolist() == [[5, 0.9]]


def test_of_equal_bests_the_first_is_marked(drawn):
    _, accuracy, _ = drawn([{"epoch": n, "val/accuracy": value} for n, value in enumerate([0.1, 0.5, 0.5], 1)])
    assert line(accuracy, "best val").get_xydata().tolist() == [[2, 0.5]]


@pytest.mark.parametrize(
    ("rates", "scale"), [([0.1, 0.02], "linear"), ([0.1, 0.001], "log"), ([0.1, 0.0], "linear"), ([0.1, 0.1], "linear")]
)
def test_the_rate_has_a_logarithmic_axis_where_it_spans_a_decade(drawn, rates, scale):
    axes = drawn([{"epoch": n, "lr": rate} for n, rate in enumerate(rates, 1)])[2]
    assert axes.get_yscale() == scale


@pytest.mark.parametrize("hole", [NAN, INF, -INF, None, "missing"])
def test_what_is_not_finite_is_blank_and_never_best(drawn, hole):
    lines = records(20)
    for record in (lines[0], *lines[9:]):
        for key in ("train/loss", "val/loss", "val/accuracy"):
            if hole == "missing":
                del record[key]
            else:
                record[key] = hole
    loss, accuracy, _ = drawn(lines)
    assert [math.isnan(value) for value in line(loss, "val").get_ydata()] == [True] + [False] * 8 + [True] * 11
    assert line(accuracy, "best val").get_xdata()[0] == 5
    assert loss.get_xlim()[1] >= 20  # the epochs after the divergence are there, though empty


@pytest.mark.parametrize("lines", [[], [{"epoch": 1}], [{"epoch": 1, "train/loss": NAN, "val/loss": INF, "lr": None}]])
def test_nothing_to_draw_is_said(drawn, lines):
    for axes in drawn(lines):
        assert [text.get_text() for text in axes.texts] == ["nothing to draw"]


@pytest.mark.parametrize("title", ["$\\frac{$", "名前", "long " * 99])
def test_any_title_will_do(drawn, tmp_path, title):
    drawn(records(2), title)
    assert (tmp_path / "curves.png").stat().st_size > 0


def test_a_failure_leaves_the_old_picture(monkeypatch, tmp_path):
    path = tmp_path / "curves.png"
    path.write_bytes(b"old")

    def full(canvas, file, **options):
        file.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(FigureCanvasAgg, "print_figure", full)
    with pytest.raises(OSError, match="No space left"):
        curves(records(3), path)
    assert [file.name for file in tmp_path.iterdir()] == ["curves.png"] and path.read_bytes() == b"old"


@pytest.mark.parametrize(("count", "marker"), [(40, "o"), (41, "")])
def test_up_to_forty_epochs_are_marked_by_dots(drawn, count, marker):
    lines = [
        line for axes in drawn(records(count)) for line in axes.get_lines() if not line.get_label().startswith("b")
    ]
    assert {line.get_marker() for line in lines} == {marker}
    assert len(lines) == 5


def test_stars_are_stars_and_only_val_has_them(drawn):
    loss, accuracy, rate = drawn(records(30))
    for axes in (loss, accuracy):
        assert [each.get_marker() for each in axes.get_lines() if each.get_label().startswith("best")] == ["*"]
        assert [text.get_text() for text in axes.get_legend().get_texts()][:2] == ["train", "val"]
    assert rate.get_legend() is None and len(rate.get_lines()) == 1


def test_each_panel_names_its_quantity_and_the_scale(drawn):
    assert [axes.get_title() for axes in drawn(records(3))] == ["loss", "accuracy", "learning rate"]
    wide = [{"epoch": n, "train/loss": 10.0**-n, "train/accuracy": 10.0**-n, "lr": 10.0**-n} for n in range(4)]
    panels = drawn(wide)
    assert [axes.get_title() for axes in panels] == ["loss (log)", "accuracy", "learning rate (log)"]
    assert {axes.get_xlabel() for axes in panels} == {"epoch"}
    low, high = panels[0].get_xlim()
    assert (low, high) == pytest.approx((-0.09, 3.09))


@pytest.mark.parametrize(("length", "shown"), [(120, "x" * 120), (121, "x" * 60 + " … " + "x" * 57)])
def test_a_title_keeps_its_ends_within_120_signs(drawn, length, shown):
    assert drawn(records(2), "x" * length)[0].figure.get_suptitle() == shown
    assert drawn(records(2))[0].figure.get_suptitle() == ""
