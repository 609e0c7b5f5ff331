"""The picture of a comparison: which curves are in it, and that a bad target is refused before anything is drawn."""

import itertools
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from dltips.errors import ConfigError
from dltips.insight import comparison_plot
from dltips.insight.comparison import compare
from dltips.insight.mean_curves import Point
from dltips.runs.past_runs import PastRun


def run(folder: Path, init: str, seed: int, scores: list[Any]) -> PastRun:
    place = folder / f"{init}-{seed}".replace("/", "-")
    place.mkdir()
    records = [{"epoch": epoch, "val/accuracy": score} for epoch, score in enumerate(scores, 1)]
    (place / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    summary = {"best": {"val/accuracy": scores[-1] if scores else 0.5}, "seconds": 1.0}
    return PastRun(place, "finished", {"seed": seed, "init": init}, summary, seed)


def colors(path: Path) -> set[str]:
    """Those of the eight that are in the picture."""
    pixels = {
        f"#{red:02X}{green:02X}{blue:02X}" for _, (red, green, blue) in Image.open(path).convert("RGB").getcolors(10**6)
    }
    return pixels & set(comparison_plot.COLORS[:6])


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Those that went into a file."""
    seen: list[Figure] = []
    print_figure = FigureCanvasAgg.print_figure

    def listen(canvas: Any, *arguments: Any, **options: Any) -> Any:
        seen.append(canvas.figure)
        return print_figure(canvas, *arguments, **options)

    monkeypatch.setattr(FigureCanvasAgg, "print_figure", listen)
    return seen


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_each_group_has_a_curve_and_a_band(tmp_path: Path) -> None:
    runs = [
        run(tmp_path, init, seed, [start, start + 0.1 * seed, start + 0.2])
        for init, start in (("he", 0.7), ("zeros", 0.1))
        for seed in range(3)
    ]
    target = tmp_path / "curves.png"
    assert comparison_plot.draw_curves(compare(runs), target) == [f"picture   {target}"]
    assert colors(target) == set(comparison_plot.COLORS[:2])
    assert [path.name for path in tmp_path.glob(".*")] == []
    # the band is the colour at 15 % on white: an area, not the edge of a line
    blended = [255 - 0.15 * (255 - channel) for channel in bytes.fromhex(comparison_plot.COLORS[0][1:])]
    counted = Image.open(target).convert("RGB").getcolors(10**6)
    area = sum(n for n, pixel in counted if max(abs(a - b) for a, b in zip(pixel, blended, strict=True)) <= 1.5)
    assert area > 2000


def test_what_goes_on_over_fewer_seeds_is_dashed_and_a_group_without_a_curve_is_named(tmp_path: Path) -> None:
    runs = [run(tmp_path, "he", 0, [0.5] * 20), run(tmp_path, "he", 1, [0.5] * 4), run(tmp_path, "zeros", 0, [])]
    target = tmp_path / "curves.png"
    picture, without, dashed = comparison_plot.draw_curves(compare(runs), target)
    assert picture == f"picture   {target}" and re.search(r"^no curve of init=zeros: .*val/accuracy", without)
    assert dashed.startswith("dashed")
    image = Image.open(target).convert("RGB")
    blue = tuple(bytes.fromhex(comparison_plot.COLORS[0][1:]))
    rows = [[x for x in range(image.width) if image.getpixel((x, y)) == blue] for y in range(image.height)]
    line = max(rows, key=len)  # the mean is level
    gaps = [after for before, after in itertools.pairwise(line) if after - before > 1]
    # whole up to the fourth of twenty epochs, dashed from there on
    assert len(gaps) > 10 and line[0] + 3 / 19 * (line[-1] - line[0]) == pytest.approx(gaps[0], abs=15)


def test_of_more_than_eight_groups_the_best_and_the_baseline_are_drawn(tmp_path: Path, figures: list[Figure]) -> None:
    runs = [run(tmp_path, f"init{number:02}", 0, [number / 100]) for number in range(12)]
    notes = comparison_plot.draw_curves(compare(runs), tmp_path / "a.png")
    assert len(notes) == 2 and re.search(r"best 8 of 12 groups$", notes[1])
    assert legend(figures[-1]) == [f"init=init{number:02} (1)" for number in range(11, 3, -1)]
    notes = comparison_plot.draw_curves(compare(runs, baseline="init=init00"), tmp_path / "a.png")
    assert len(notes) == 2 and re.search(r"best 7 of 12 groups, .*baseline$", notes[1])
    assert legend(figures[-1])[-2:] == ["init=init05 (1)", "init=init00 (1)"]


def limits(curves: list[list[Point]], metric: str) -> tuple[float, float, bool]:
    """Of the y axis, and whether a band is said to be cut."""
    axes = Figure().subplots()
    cut = comparison_plot.scale_axes(axes, [("", points) for points in curves], metric)
    return *axes.get_ylim(), cut


def test_the_axis_holds_the_bands() -> None:
    wide = [Point(1, 4, 0.81, 0.79, 0.83), Point(2, 4, 0.88, 0.86, 0.90)]
    narrow = [Point(1, 8, 0.80, 0.79, 0.81), Point(2, 8, 0.86, 0.85, 0.87)]
    low, high, cut = limits([wide, narrow], "val/accuracy")
    assert (low, high, cut) == (pytest.approx(0.79 - 0.0055), pytest.approx(0.90 + 0.0055), False)
    # wider than what the means do: noise, which is to be seen
    low, high, cut = limits([[Point(1, 5, 1.0, 0.5, 1.5), Point(2, 5, 1.1, 0.6, 1.6)]], "val/loss")
    assert low < 0.5 and high > 1.6 and not cut
    # one epoch, two seeds
    low, high, cut = limits([[Point(1, 2, 0.5, 0.3, 0.7)]], "val/accuracy")
    assert low < 0.3 and high > 0.7 and not cut
    # nothing but two seeds: their bands are the rule
    low, high, cut = limits([[Point(1, 2, 0.5, 0.3, 0.7), Point(2, 2, 0.51, 0.3, 0.72)]], "val/accuracy")
    assert low < 0.3 and high > 0.72 and not cut
    # no band at all, and nothing but one value
    assert limits([[Point(1, 1, 0.5, 0.5, 0.5)]], "val/accuracy") == (pytest.approx(0.475), pytest.approx(0.525), False)


def test_a_band_of_two_seeds_does_not_squash_the_curves() -> None:
    usual = [Point(epoch, 8, 1 - epoch / 10, 0.95 - epoch / 10, 1.05 - epoch / 10) for epoch in range(1, 6)]
    absurd = [Point(1, 2, 0.9, -40.0, 41.8), Point(2, 2, 0.8, -30.0, 31.6)]
    low, high, cut = limits([usual, absurd], "val/loss")
    assert (low, high, cut) == (pytest.approx(0.45 - 0.025), pytest.approx(0.95 + 0.025), True)


def test_a_logarithmic_axis_holds_the_bands_and_cuts_what_is_absurd() -> None:
    low, high, cut = limits([[Point(1, 4, 2.0, 1.0, 3.0), Point(2, 4, 0.1, 0.05, 0.15)]], "val/loss")
    assert (low, high, cut) == (pytest.approx(0.05 / 1.1), pytest.approx(3.3), False)
    low, high, cut = limits([[Point(1, 2, 2.0, -9.0, 900.0), Point(2, 2, 0.1, -3.0, 4.0)]], "val/loss")
    assert (low, high, cut) == (pytest.approx(0.1 / 1.1), pytest.approx(4.4), True)


def test_a_fraction_is_not_drawn_beyond_0_and_1() -> None:
    low, high, _ = limits([[Point(1, 3, 0.5, -0.1, 1.1), Point(2, 3, 0.99, 0.9, 1.08)]], "val/accuracy")
    assert (low, high) == (-0.02, 1.02)


def test_a_cut_is_said_and_losses_stand_in_the_legend(tmp_path: Path, figures: list[Figure]) -> None:
    runs = [run(tmp_path, "he", seed, [0.5, 0.5 + seed / 5]) for seed in range(2)]
    runs += [run(tmp_path, "zeros", seed, [0.5, 0.6 + seed / 1000]) for seed in range(4)]
    lost = run(tmp_path, "zeros", 4, [])
    runs.append(PastRun(lost.path, "diverged", lost.settings, lost.summary, 4))
    target = tmp_path / "a.png"
    picture, cut = comparison_plot.draw_curves(compare(runs), target)
    assert picture == f"picture   {target}" and re.search(r"interval.* cut", cut)
    assert legend(figures[-1]) == ["init=he (2)", "init=zeros (4/5)"]


@pytest.mark.parametrize("label", ["$\\frac{$", "[bold]", "_hidden", "x" * 500, "\u4f60\u597d", "a " * 200])
def test_odd_labels_are_drawn_as_they_are(tmp_path: Path, label: str) -> None:
    runs = [run(tmp_path, "he", 0, [0.5, 0.6])]
    odd = run(tmp_path, "odd", 0, [0.1, 0.2])
    runs.append(PastRun(odd.path, odd.status, dict(odd.settings) | {"init": label}, odd.summary, 0))
    comparison_plot.draw_curves(compare(runs), tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (1155, 572)
    assert len(colors(tmp_path / "a.png")) == 2


@pytest.mark.parametrize("scores", [[0.5], [0.5, 0.5], [0.0, 0.0], [None, 0.5], [0.5, float("nan")], [1e90, -1e90]])
def test_short_flat_and_broken_curves_are_drawn(tmp_path: Path, scores: list[Any]) -> None:
    runs = [run(tmp_path, "x", 0, [*scores, 0.5])]
    comparison_plot.draw_curves(compare(runs), tmp_path / "b.png")
    assert (tmp_path / "b.png").stat().st_size > 1000


def test_what_cannot_be_drawn_is_refused(tmp_path: Path) -> None:
    runs = [run(tmp_path, "he", 0, [])]
    with pytest.raises(ConfigError, match=r"^plot: .*val/accuracy.*; choose .*metrics\.jsonl"):
        comparison_plot.draw_curves(compare(runs), tmp_path / "a.png")
    with pytest.raises(ConfigError, match=r"^plot: seconds .*--metric val/loss$"):
        comparison_plot.draw_curves(compare(runs, metric="seconds"), tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


def test_a_target_that_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.png").mkdir()
    for target, message in {
        "a.bmp": r"a\.bmp .*\.png, \.svg, \.pdf$",
        "a": r"a .*\.png, \.svg, \.pdf$",
        "gone/a.png": r"gone .*; make it first",
        "folder.png": r"folder\.png .*; choose another file$",
    }.items():
        with pytest.raises(ConfigError, match=f"^plot: {message}"):
            comparison_plot.check_target(Path(target))
    comparison_plot.check_target(Path("good.PNG"))
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ConfigError, match=r"^plot: good\.png .*; choose another file$"):
        comparison_plot.check_target(Path("good.png"))


def test_title_axes_and_legend_say_what_is_drawn(tmp_path: Path, figures: list[Figure]) -> None:
    runs = [run(tmp_path, "he", seed, [0.5, 0.6 + seed / 100, 0.7]) for seed in range(2)]
    runs += [run(tmp_path, "zeros", 0, [0.1, 0.2, 0.3])]
    comparison_plot.draw_curves(compare(runs), tmp_path / "a.png")
    (axes,) = figures[-1].axes
    assert axes.get_title() == "val/accuracy: mean and 95 % interval over seeds" and axes.get_xlabel() == "epoch"
    assert axes.get_xlim() == (1, 3)
    assert figures[-1].legends[0].get_title().get_text() == "group (seeds)"
    assert legend(figures[-1]) == ["init=he (2)", "init=zeros (1)"]
    he, zeros = axes.get_lines()
    assert he.get_xydata().tolist() == [[1, 0.5], [2, pytest.approx(0.605)], [3, pytest.approx(0.7)]]
    assert [line.get_color() for line in (he, zeros)] == list(comparison_plot.COLORS[:2])
    assert he.get_zorder() > zeros.get_zorder()  # the best lies on top
    comparison_plot.draw_curves(compare(runs[2:]), tmp_path / "a.png")
    assert figures[-1].axes[0].get_title() == "val/accuracy: one seed each"


@pytest.mark.parametrize(("lowest", "scale"), [(0.019, "log"), (0.021, "linear")])
def test_a_loss_that_spans_a_decade_is_on_a_logarithmic_axis_and_the_title_says_so(lowest: float, scale: str) -> None:
    axes = Figure().subplots()
    comparison_plot.scale_axes(
        axes, [("", [Point(1, 1, 0.2, 0.2, 0.2), Point(2, 1, lowest, lowest, lowest)])], "val/loss"
    )
    assert axes.get_yscale() == scale
    assert axes.get_title() == {"log": "val/loss (log): one seed each", "linear": "val/loss: one seed each"}[scale]


def test_a_single_epoch_is_a_dot_and_several_are_a_line(tmp_path: Path, figures: list[Figure]) -> None:
    comparison_plot.draw_curves(
        compare([run(tmp_path, "he", 0, [0.5]), run(tmp_path, "zeros", 0, [0.4, 0.5])]), tmp_path / "a.png"
    )
    markers = {line.get_label(): line.get_marker() for line in figures[-1].axes[0].get_lines()}
    assert markers == {"init=he (1)": "o", "init=zeros (1)": ""}


def test_a_long_label_is_wrapped_beside_the_curves(tmp_path: Path, figures: list[Figure]) -> None:
    label = "word " * 19 + "word"
    odd, other = run(tmp_path, "odd", 0, [0.1, 0.2]), run(tmp_path, "he", 0, [0.3, 0.4])
    settings = dict(odd.settings) | {"init": label}
    comparison_plot.draw_curves(
        compare([PastRun(odd.path, odd.status, settings, odd.summary, 0), other]), tmp_path / "a.png"
    )
    short, wrapped = legend(figures[-1])
    assert short == "init=he (1)" and wrapped.replace("\n", " ") == f"init={label} (1)"
    assert [len(line) <= 38 for line in wrapped.splitlines()] == [True] * 3
