"""What a person sees of two runs in a real TensorBoard, and of a sweep in dltips board, in a real browser."""

import contextlib
import json
import math
import os
import re
import select
import shutil
import subprocess
import sys

import pytest

from dltips.insight.groups import group_runs
from dltips.insight.mean_curves import mean_curve
from dltips.runs.past_runs import runs_in
from dltips.runs.tensor_events import Events, cut

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install -e '.[test]'")
CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium: apt-get install chromium"),
]
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),  # as root there is no sandbox
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
PATIENCE = 60_000  # milliseconds; a busy machine needs seconds

SGD, ADAM = "20240501-100000-123456-a1b2c3-sgd", "20240501-100312-654321-d4e5f6-adam"
EPOCHS = 6
METRICS = ["val/accuracy", "val/loss"]


def values(run, epoch):
    """Any numbers that differ between runs, epochs and tags."""
    slow = 1.0 if run == SGD else 0.5
    return {
        "train/loss": 2 * math.exp(-slow * epoch),
        "val/loss": 2 * math.exp(-slow * epoch) + 0.125,
        "train/accuracy": 1 - math.exp(-slow * epoch),
        "val/accuracy": 0.875 - 0.75 * math.exp(-slow * epoch),
        "lr": 0.1 / epoch,
        "layers/0/mean": 0.5,
    }


def write(folder, epochs, status):
    columns = {
        "batch_size": 1,
        "compile": True,
        "model.name": "",
        "model.widths": "",
        "optimizer.beta1": 0.5,
        "optimizer.lr": 0.5,
        "optimizer.name": "",
        "seed": 0,
    }
    hyperparameters = {
        "batch_size": 64,
        "compile": False,
        "model.name": "mlp",
        "model.widths": "[128, 128]",
        "optimizer.lr": 0.1 if folder.name == SGD else 0.003,
        "optimizer.name": folder.name.split("-")[-1],
        "seed": 0,
    }
    events = Events(folder)
    if folder.name == ADAM:
        hyperparameters["optimizer.beta1"] = 0.9
    events.start(columns, hyperparameters, METRICS, "seed: 0\n", varied=["optimizer.name", "optimizer.lr"])
    for epoch in epochs:
        events.scalars(epoch, values(folder.name, epoch), 1.7e9 + epoch)
    events.finish(status)


@pytest.fixture
def runs(tmp_path):
    """One run that went through, and one that was interrupted after epoch 5 and resumed from epoch 3."""
    folder = tmp_path / "outputs"
    for name in (SGD, ADAM):
        (folder / name).mkdir(parents=True)
    write(folder / SGD, range(1, EPOCHS + 1), "finished")
    write(folder / ADAM, range(1, 6), "interrupted")
    cut(folder / ADAM, 3)
    write(folder / ADAM, range(4, EPOCHS + 1), "finished")
    return folder


@pytest.fixture
def address(runs):
    """Of a TensorBoard on a free port."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(runs), "--port", "0", "--host", "127.0.0.1"]
    with subprocess.Popen([*command, "--load_fast=false"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as board:
        try:
            said = b""
            while (found := re.search(rb"(http://\S+) ", said)) is None:
                ready = select.select([board.stderr], [], [], PATIENCE / 1000)[0]
                heard = os.read(board.stderr.fileno(), 4096) if ready else b""
                assert heard, f"TensorBoard did not start: {said.decode()}"
                said += heard
            yield found[1].decode()
        finally:
            board.terminate()


@pytest.fixture
def page():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS, timeout=PATIENCE)
        sync_api.expect.set_options(timeout=PATIENCE)
        page = browser.new_page(viewport={"width": 1800, "height": 1200})
        page.set_default_timeout(PATIENCE)
        yield page
        browser.close()


def test_tensorboard_shows_the_runs(address, page, tmp_path):
    for look in (see_time_series, see_hparams, see_custom_scalars):
        look(page, address)
        page.screenshot(path=tmp_path / f"{look.__name__}.png")


def see_time_series(page, address):
    """One card per scalar; its table has a row per run, with the value at the last epoch."""
    page.goto(f"{address}?tagFilter=%2F(loss|accuracy)%24#timeseries")
    for tag in ("train/loss", "val/loss", "train/accuracy", "val/accuracy"):
        card = page.locator("scalar-card").filter(has=page.locator(f'[title="{tag}"]'))
        for run in (SGD, ADAM):
            row = card.locator("tb-data-table-content-row", has_text=run)
            sync_api.expect(row).to_have_count(1)
            *_, value, epoch, _ = [text for text in row.inner_text().split("\n") if text.strip()]
            assert epoch == str(EPOCHS)
            assert float(value) == pytest.approx(values(run, EPOCHS)[tag], rel=1e-2)
    sync_api.expect(page.locator("scalar-card")).to_have_count(4)


def see_hparams(page, address):
    """One row per run: what was varied first, then other hyperparameters, then the metrics' last values."""
    page.goto(f"{address}#hparams")
    cells = page.locator("#sessionGroupsTable vaadin-grid-cell-content")
    rows = {SGD: "a1b2c3-sgd 20240501-100000-123456", ADAM: "d4e5f6-adam 20240501-100312-654321"}
    for trial in rows.values():
        sync_api.expect(cells.get_by_text(trial)).to_be_visible()
    texts = [text.strip() for text in cells.all_inner_texts() if text.strip()]
    columns = ["optimizer.lr", "optimizer.name", "batch_size", "compile", "model.name", *METRICS]
    assert texts[: 2 + len(columns)] == ["Trial ID", "Show Metrics", *columns]
    for run, trial in rows.items():
        start = texts.index(trial) + 1
        row = dict(zip(columns, texts[start : start + len(columns)], strict=True))
        assert float(row["optimizer.lr"]) == (0.1 if run == SGD else 0.003)
        assert row["optimizer.name"] == run.split("-")[-1]
        assert float(row["batch_size"]) == 64 and row["compile"] == "false" and row["model.name"] == "mlp"
        for metric in METRICS:
            assert float(row[metric]) == pytest.approx(values(run, EPOCHS)[metric], rel=1e-4)


def see_custom_scalars(page, address):
    """Train and val in one chart; hovering over its right end names every curve and its last value."""
    page.goto(f"{address}#custom_scalars")
    cards = page.locator("tf-custom-scalar-multi-line-chart-card")
    sync_api.expect(cards).to_have_count(3)
    # a tooltip leaves out what lies above or below the chart, as outliers do
    page.get_by_text("Ignore outliers in chart scaling").filter(visible=True).click()
    for n, tags in enumerate((["train/loss", "val/loss"], ["train/accuracy", "val/accuracy"], ["lr"])):
        card = cards.nth(n)
        curves = {f"{tag} ({run})": values(run, EPOCHS)[tag] for tag in tags for run in (SGD, ADAM)}
        sync_api.expect(card.locator(".match-list-entry")).to_have_count(len(curves))
        lines = page.locator("vz-line-chart-tooltip tr", has_text=re.compile(rf"({'|'.join(tags)}) \("))
        hover(page, card.locator("vz-line-chart2"), lines, len(curves))
        shown = {}
        for line in lines.all_inner_texts():
            name, _, value, epoch, *_ = line.strip().split("\t")
            assert epoch == str(EPOCHS)
            shown[name] = float(value)
        assert shown == pytest.approx(curves, rel=1e-2)


def hover(page, chart, lines, count):
    """Move over the right end of a chart until it tells so many lines; while it is being drawn it tells none."""
    for n in range(PATIENCE // 1000):
        box = chart.bounding_box()
        page.mouse.move(box["x"] + box["width"] * (0.9 + n % 2 / 100), box["y"] + box["height"] * 0.5)
        with contextlib.suppress(AssertionError):
            sync_api.expect(lines).to_have_count(count, timeout=1000)
            return
    pytest.fail(f"the tooltip has {lines.count()} lines, not {count}")


INITS, RATES, SEEDS = ("he", "xavier", "zeros"), (0.1, 0.01), range(4)
SHOWN = ("val/accuracy", "val/loss", "train/accuracy", "train/loss")
LONG = 600  # seconds, for a hang


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """24 runs of 3 epochs on the digits, by dltips train -m: the last values of each, by its name on the board."""
    place = tmp_path_factory.mktemp("sweep")
    grid = ["init=he,xavier,zeros", "optimizer.lr=0.1,0.01", "seed=range(4)"]
    command = [
        sys.executable,
        "-m",
        "dltips",
        "train",
        "-m",
        "+recipe=quickstart",
        "epochs=3",
        "log.images=false",
        *grid,
    ]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=LONG)
    assert done.returncode == 0, done.stderr
    return place


@pytest.fixture(scope="module")
def past(sweep):
    """The runs by their names on the board."""
    found = {}
    for run in runs_in([str(sweep / "outputs")]):
        settings = json.loads((run.path / "summary.json").read_text())["settings"]
        found[f"init={settings['init']} lr={settings['optimizer.lr']}/seed {settings['seed']}"] = run
    assert sorted(found) == sorted(
        f"init={init} lr={rate}/seed {seed}" for init in INITS for rate in RATES for seed in SEEDS
    )
    return found


@pytest.fixture
def board(sweep):
    """The address that dltips board prints."""
    command = [sys.executable, "-m", "dltips", "board", "--port", "0"]
    with subprocess.Popen(command, cwd=sweep, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


@pytest.mark.slow
def test_the_board_shows_a_sweep(board, page, tmp_path, past):
    means = {
        f"init={group.settings['init']} lr={group.settings['optimizer.lr']}/mean": group
        for group in group_runs(list(past.values()))
    }
    assert len(means) == 6
    for look in (see_every_run, see_every_trial, see_bands):
        look(page, board, past, means)
        page.screenshot(path=tmp_path / f"{look.__name__}.png")


def last(run, tag):
    return json.loads((run.path / "summary.json").read_text())["last"][tag]


def see_every_run(page, board, past, means):
    """The charts of Time Series have a row per run and per mean, all ticked, with the last epoch's values."""
    page.goto(board.replace("#", "&tagFilter=%5E(train%7Cval)%2F(loss%7Caccuracy)%24#"))
    sync_api.expect(page.locator("runs-data-table input[type=checkbox]:checked")).to_have_count(31)  # and that of all
    for tag in SHOWN:
        card = page.locator("scalar-card").filter(has=page.locator(f'[title="{tag}"]'))
        rows = card.locator("tb-data-table-content-row")
        sync_api.expect(rows).to_have_count(30)
        shown = {}
        for row in rows.all_inner_texts():
            name, value, epoch, _ = [text for text in row.split("\n") if text.strip()]
            assert epoch == "3"
            shown[name] = float(value)
        wanted = {name: last(run, tag) for name, run in past.items()}
        wanted |= {name: mean_curve(group, tag)[-1].mean for name, group in means.items()}
        assert shown == pytest.approx(wanted, rel=1e-2, abs=1e-4)


def see_every_trial(page, board, past, means):
    """The table of HParams has a row per run: first what was varied, then the metrics, as summary.json has them."""
    page.goto(f"{board.partition('?')[0]}#hparams")
    cells = page.locator("#sessionGroupsTable vaadin-grid-cell-content")
    for run in past.values():
        sync_api.expect(cells.get_by_text(run.path.name, exact=True)).to_be_visible()
    texts = [text.strip() for text in cells.all_inner_texts() if text.strip()]
    columns = ["init", "optimizer.lr", "seed", "accumulate", "activation", *SHOWN]
    assert texts[: 2 + len(columns)] == ["Trial ID", "Show Metrics", *columns]
    for name, run in past.items():
        start = texts.index(run.path.name) + 1
        row = dict(zip(columns, texts[start : start + len(columns)], strict=True))
        assert name == f"init={row['init']} lr={float(row['optimizer.lr'])}/seed {float(row['seed']):.0f}"
        for tag in SHOWN:
            assert float(row[tag]) == pytest.approx(last(run, tag), rel=1e-4)


def see_bands(page, board, past, means):
    """The first charts of Custom Scalars have a curve with a band per group: hovering tells mean, low and high."""
    page.goto(f"{board.partition('?')[0]}#custom_scalars")
    cards = page.locator("tf-custom-scalar-margin-chart-card")
    sync_api.expect(cards).to_have_count(len(SHOWN))
    page.get_by_text("Ignore outliers in chart scaling").filter(visible=True).click()
    for tag in SHOWN:
        card = cards.filter(has_text=f"~interval/{tag}/mean")
        sync_api.expect(card.locator(".match-list-entry")).to_have_count(len(means))
        sync_api.expect(card.get_by_text("Missing Tags")).to_have_count(0)
        lines = page.locator("vz-line-chart-tooltip tr", has_text=re.compile(rf"{tag}/mean \("))
        hover(page, card.locator("vz-line-chart2"), lines, len(means))
        shown = {}
        for line in lines.all_inner_texts():
            name, value, low, high, epoch, *_ = line.strip().split("\t")
            assert epoch == "3"
            shown[re.search(r"\((.+)\)$", name)[1]] = float(value), float(low), float(high)
        points = {name: mean_curve(group, tag)[-1] for name, group in means.items()}
        assert shown.keys() == points.keys()
        for name, point in points.items():
            assert shown[name] == pytest.approx((point.mean, point.low, point.high), rel=1e-2, abs=1e-3)
