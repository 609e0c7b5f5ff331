"""What TensorBoard is shown of runs: names, HParams, means with intervals, and what changes while it looks."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.hparams import metadata

from dltips.errors import ConfigError
from dltips.insight.board_logdir import Board, arrange_runs, hparams_table
from dltips.runs.events import EventFile, records
from dltips.runs.past_runs import runs_in

SETTINGS = {"epochs": 3, "metric": "val/accuracy", "init": "he", "optimizer": "sgd", "optimizer.lr": 0.1, "seed": 0}
KEEP_ALL = {"scalars": 0, "tensors": 0}
METRICS = ["val/accuracy", "val/loss", "train/accuracy", "train/loss"]


def make(folder, values=(0.5, 0.75), *, status="finished", events=True, **settings):
    """A run folder whose val/accuracy is `values`, epoch by epoch."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = SETTINGS | {key.replace("__", "."): value for key, value in settings.items()}
    (folder / "config.yaml").write_text("seed: 0\n")
    append(folder, values)
    if events:
        file = EventFile(folder)
        for epoch, value in enumerate(values, 1):
            file.scalars(epoch, {"val/accuracy": value}, 1e9 + epoch)
    if status is not None:
        summary = {"status": status, "seed": settings["seed"], "settings": settings}
        (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def append(folder, values, first=1):
    with (folder / "metrics.jsonl").open("a") as file:
        for epoch, value in enumerate(values, first):
            file.write(json.dumps({"epoch": epoch, "val/accuracy": value, "layers/0/mean": 0.5}) + "\n")


def names(folder):
    layout = arrange_runs(runs_in([str(folder)]))
    return {name: run.path.relative_to(folder).as_posix() for name, run in layout.runs.items()}, list(layout.means)


def read(board, name):
    accumulator = EventAccumulator(str(board.logs / name), size_guidance=KEEP_ALL)
    accumulator.Reload()
    return accumulator


def curve(board, name, tag="val/accuracy"):
    return [(event.step, event.value) for event in read(board, name).Scalars(tag)]


def hparams(board, name, tag):
    content = read(board, name).PluginTagToContent("hparams")[f"_hparams_/{tag}"]
    return getattr(metadata, f"parse_{tag}_plugin_data")(content)


@pytest.fixture
def outputs(tmp_path):
    return tmp_path / "outputs"


@pytest.fixture
def board(outputs, tmp_path):
    (tmp_path / "shown").mkdir()
    return Board([str(outputs)], tmp_path / "shown")


def events_of(file):
    return [Event.FromString(data) for data in records(file.read_bytes())]


def two_groups(outputs):
    for number, (init, seed) in enumerate([("he", 0), ("he", 1), ("zeros", 0), ("zeros", 1)]):
        make(outputs / f"{number:03d}", [0.5 + seed / 4, 1.0 - seed / 2], init=init, seed=seed)


def test_runs_are_called_by_what_differs_and_their_seed(outputs):
    two_groups(outputs)
    assert names(outputs) == (
        {"init=he/seed 0": "000", "init=he/seed 1": "001", "init=zeros/seed 0": "002", "init=zeros/seed 1": "003"},
        ["init=he/mean", "init=zeros/mean"],
    )


def test_a_run_without_others_of_its_kind_has_no_mean(outputs):
    make(outputs / "a", optimizer__lr=0.1)
    make(outputs / "b", optimizer__lr=0.01)
    assert names(outputs) == ({"lr=0.1": "a", "lr=0.01": "b"}, [])


def test_a_run_alone_is_called_by_its_folder(outputs):
    make(outputs / "20240501-adam")
    assert names(outputs) == ({"20240501-adam": "20240501-adam"}, [])


def test_a_key_is_shortened_only_where_that_says_which(outputs):
    make(outputs / "a", optimizer__lr=0.1, init__scale=1.0, model__scale=1.0)
    make(outputs / "b", optimizer__lr=0.2, init__scale=2.0, model__scale=2.0)
    found, _ = names(outputs)
    assert list(found) == ["model.scale=1 init.scale=1 lr=0.1", "model.scale=2 init.scale=2 lr=0.2"]


@pytest.mark.parametrize(
    ("source", "called"),
    [("a/b/../c", "source=a_b_.._c"), ("x\n\x1b[31m", "source=x[31m"), ("..", "source="), ("CON:*?", "source=CON___")],
)
def test_a_name_is_one_folder_that_can_be_shown(outputs, source, called):
    make(outputs / "a", finetune__source=source)
    make(outputs / "b", finetune__source="other")
    assert list(names(outputs)[0]) == [called, "source=other"]


def test_a_long_name_gives_way_to_the_folders(outputs):
    make(outputs / "a", note="x" * 90)
    make(outputs / "b", note="y" * 90)
    make(outputs / "c", note="y" * 90, seed=1)
    found, means = names(outputs)
    assert found == {"a": "a", f"note={'y' * 54}…/seed 0": "b", f"note={'y' * 54}…/seed 1": "c"}
    assert means == [f"note={'y' * 54}…/mean"]


def test_names_that_would_be_the_same_are_numbered(outputs):
    for folder in "ab":
        make(outputs / folder, note="z" * 90 + folder)
        make(outputs / f"{folder}-again", note="z" * 90 + folder)
    long = f"note={'z' * 54}…"
    assert list(names(outputs)[0]) == [
        f"{long}/seed 0",
        f"{long}/seed 0 (2)",
        f"{long} (2)/seed 0",
        f"{long} (2)/seed 0 (2)",
    ]


def test_sweeps_are_named_apart_and_by_what_they_vary(outputs):
    for sweep, init in (("first", "he"), ("second", "zeros")):
        (outputs / sweep).mkdir(parents=True)
        (outputs / sweep / "sweep.json").write_text(json.dumps({"varied": ["init", "optimizer.lr", "seed"]}))
        make(outputs / sweep / "000", init=init)
        make(outputs / sweep / "001", init=init, seed=1)
    assert list(names(outputs)[0]) == [
        f"{sweep}/init={init} lr=0.1/seed {seed}"
        for sweep, init in (("first", "he"), ("second", "zeros"))
        for seed in (0, 1)
    ]
    assert list(names(outputs / "first")[0]) == ["init=he lr=0.1/seed 0", "init=he lr=0.1/seed 1"]


@pytest.mark.parametrize("content", ["", "[]", '{"varied": 3}', '{"varied": [3]}', '{"varied": ["unknown"]}'])
def test_a_damaged_sweep_file_leaves_what_differs(outputs, content):
    two_groups(outputs)
    (outputs / "sweep.json").write_text(content)
    assert names(outputs)[1] == ["init=he/mean", "init=zeros/mean"]


def test_a_half_written_run_is_shown(outputs, board):
    make(outputs / "a")
    (outputs / "b").mkdir()
    (outputs / "b" / "config.yaml").write_text("{{")
    layout = board.refresh()
    assert sorted(layout.runs) == ["a", "b"] and layout.without_events() == []
    assert curve(board, "a") == [(1, 0.5), (2, 0.75)]


def test_the_columns_are_every_key_of_any_run(outputs):
    make(outputs / "a", compile=True, widths=[8, 8], note=None, mixed=1)
    make(outputs / "b", seed=1, compile=False, beta=0.5, mixed="x")
    columns, values, varied = hparams_table(runs_in([str(outputs)]))
    assert columns == {
        "beta": 0.0,
        "compile": False,
        "epochs": 0.0,
        "init": "",
        "metric": "",
        "mixed": "",
        "optimizer": "",
        "optimizer.lr": 0.0,
        "seed": 0.0,
        "widths": "",
    }
    assert values[0] == SETTINGS | {"compile": True, "widths": "[8,8]", "mixed": "1"}
    assert values[1] == SETTINGS | {"seed": 1, "compile": False, "beta": 0.5, "mixed": "x"}
    assert {type(values[0][key]) for key in ("epochs", "seed")} == {float}
    assert varied == ["compile", "mixed", "seed"]


def test_all_runs_agree_on_the_columns_whatever_they_wrote(outputs, board):
    make(outputs / "a", init="he")
    make(outputs / "b", init="zeros", beta=0.5)
    EventFile(outputs / "a").line({"old": 1.0}, {"old": 1.0}, ["old/loss"])
    board.refresh()
    for name in ("init=he", "init=zeros"):
        experiment = hparams(board, name, "experiment")
        assert [info.name for info in experiment.hparam_infos] == ["beta", *sorted(SETTINGS)]
        assert [info.name for info in experiment.hparam_infos if info.differs] == ["init"]
        assert [info.name.tag for info in experiment.metric_infos] == METRICS
        start = hparams(board, name, "session_start_info")
        assert start.hparams["init"].string_value == name.removeprefix("init=")
        assert start.group_name == {"init=he": "a", "init=zeros": "b"}[name]


def test_the_mean_is_a_run_with_a_band(outputs, board):
    two_groups(outputs)
    board.refresh()
    # 0.5 and 0.75, then 1 and 0.5; the half width for n = 2 is 12.7062 standard errors, which are 0.125 and 0.25
    middle = [(1, 0.625), (2, 0.75)]
    assert curve(board, "init=he/mean") == middle == curve(board, "init=he/mean", "~interval/val/accuracy/mean")
    for tag, sign in (("low", -1), ("high", 1)):
        edge = curve(board, "init=he/mean", f"~interval/val/accuracy/{tag}")
        assert [value for _, value in edge] == pytest.approx(
            [0.625 + sign * 12.7062 * 0.125, 0.75 + sign * 12.7062 * 0.25], rel=1e-5
        )
    (layout,) = read(board, "init=he/mean").Tensors("custom_scalars__config__")
    (category,) = Layout.FromString(layout.tensor_proto.string_val[0]).category
    assert category.title == "mean and 95 % interval over seeds"
    assert [chart.title for chart in category.chart] == METRICS
    (series,) = category.chart[0].margin.series
    assert [series.value, series.lower, series.upper] == [
        f"~interval/val/accuracy/{name}" for name in ("mean", "low", "high")
    ]


def test_the_metric_that_decides_comes_first(outputs, board):
    make(outputs / "a", metric="val/macro_f1")
    layout = board.refresh()
    assert layout.metrics() == ["val/macro_f1", *METRICS]


def test_the_mean_follows_the_runs(outputs, board):
    two_groups(outputs)
    board.refresh()
    watching = read(board, "init=he/mean")
    append(outputs / "000", [1.0], first=3)
    append(outputs / "001", [0.5], first=3)
    make(outputs / "004", [0.0, 0.0, 0.0], init="he", seed=2)
    layout = board.refresh()
    assert "init=he/seed 2" in layout.runs
    wanted = [(1, pytest.approx(1.25 / 3)), (2, 0.5), (3, 0.5)]
    assert curve(board, "init=he/mean") == wanted
    watching.Reload()  # a TensorBoard that has been open all the time
    assert [(event.step, event.value) for event in watching.Scalars("val/accuracy")] == wanted


def test_the_mean_ends_with_the_first_seed_that_ends(outputs, board):
    two_groups(outputs)
    append(outputs / "000", [1.0], first=3)
    board.refresh()
    assert curve(board, "init=he/mean") == [(1, 0.625), (2, 0.75)]


def test_a_seed_that_finishes_joins_the_mean_and_one_that_is_lost_leaves_it(outputs, board):
    two_groups(outputs)
    make(outputs / "004", [0.0, 0.0], status=None, init="he", seed=2)
    board.refresh()
    assert curve(board, "init=he/mean") == [(1, 0.625), (2, 0.75)]
    make(outputs / "004", [], init="he", seed=2)
    board.refresh()
    assert curve(board, "init=he/mean") == [(1, pytest.approx(1.25 / 3)), (2, 0.5)]
    make(outputs / "004", [], status="diverged", init="he", seed=2)
    board.refresh()
    assert curve(board, "init=he/mean") == [(1, 0.625), (2, 0.75)]


def test_what_no_run_writes_costs_no_board(outputs, board):
    two_groups(outputs)
    odd = make(outputs / "004", [], events=False, **{"batch_size": 10**400, "odd\ud800": "\ud800x"})
    (odd / "metrics.jsonl").write_text('{"epoch": 1, "val/accuracy": "x", "val/loss": [1], "train/loss": true}\n')
    append(odd, [0.25], first=2)
    with (odd / "metrics.jsonl").open("a") as file:
        file.write(f'{{"epoch": {10**400}, "val/accuracy": 0.5}}\n')
    layout = board.refresh()
    (name,) = (name for name, run in layout.runs.items() if run.path == odd)
    (first, second) = curve(board, name)
    assert first[0] == 1 and first[1] != first[1] and second == (2, 0.25)
    assert hparams(board, name, "session_start_info").hparams["odd"].string_value == "x"


def test_nothing_is_written_where_nothing_has_changed(outputs, board):
    two_groups(outputs)
    board.refresh()
    before = {path: path.stat().st_mtime_ns for path in board.logs.rglob("*")}
    board.refresh()
    assert {path: path.stat().st_mtime_ns for path in board.logs.rglob("*")} == before


def test_what_is_gone_is_shown_no_more_and_names_may_change(outputs, board):
    make(outputs / "a", init="he")
    make(outputs / "b", init="zeros")
    assert sorted(board.refresh().runs) == ["init=he", "init=zeros"]
    make(outputs / "c", init="he", seed=1)
    shutil.rmtree(outputs / "b")
    assert sorted(board.refresh().runs) == ["all/seed 0", "all/seed 1"]
    assert sorted(path.name for path in board.logs.iterdir()) == ["all"]
    make(outputs / "b", init="zeros")
    board.refresh()
    shown = {str(path.parent.relative_to(board.logs)) for path in board.logs.rglob("events*")}
    assert shown == {"init=he/seed 0", "init=he/seed 1", "init=he/mean", "init=zeros"}


def test_a_session_that_comes_later_is_linked_and_a_file_that_goes_is_not(outputs, board):
    run = make(outputs / "a", [0.5], status=None)
    board.refresh()
    EventFile(run).scalars(2, {"val/accuracy": 0.25}, 1e9)
    board.refresh()
    assert curve(board, "a") == [(1, 0.5), (2, 0.25)]
    min(run.glob("events*")).unlink()
    board.refresh()
    assert curve(board, "a") == [(2, 0.25)]


def test_a_run_without_events_shows_the_curves_of_its_metrics(outputs, board):
    run = make(outputs / "a", [0.5], events=False, status=None)
    (run / "config.yaml").write_text("seed: 0\nlog:\n  tensorboard: false\n")
    assert board.refresh().without_events() == [run_ := next(iter(board.refresh().runs.values()))]
    assert run_.status == "unfinished" and curve(board, "a") == [(1, 0.5)]
    append(run, [None, 0.75], first=2)
    (run / "summary.json").write_text('{"status": "finished", "settings": {"log.tensorboard": false}}')
    board.refresh()
    assert [step for step, _ in curve(board, "a")] == [1, 2, 3] and curve(board, "a")[2] == (3, 0.75)
    assert hparams(board, "a", "session_end_info").status == 1  # STATUS_SUCCESS


def test_a_run_that_has_not_written_its_events_yet_is_waited_for(outputs, board):
    run = make(outputs / "a", events=False, status=None)
    assert board.refresh().without_events() == []
    EventFile(run).scalars(1, {"val/accuracy": 0.5}, 1e9)
    board.refresh()
    assert curve(board, "a") == [(1, 0.5)]


def test_the_runs_are_left_as_they_are(outputs, board):
    two_groups(outputs)
    make(outputs / "silent", events=False)
    before = {path: path.read_bytes() for path in outputs.rglob("*") if path.is_file()}
    board.refresh()
    shutil.rmtree(board.logs)  # as the command does at its end
    assert {path: path.read_bytes() for path in outputs.rglob("*") if path.is_file()} == before


def test_a_place_without_runs_is_refused(tmp_path, board, outputs):
    outputs.mkdir()
    with pytest.raises(ConfigError, match=r"outputs: .*give a run, a sweep"):
        board.refresh()


def test_the_board_takes_no_torch(tmp_path):
    make(tmp_path / "a")
    make(tmp_path / "b", seed=1)
    (tmp_path / "shown").mkdir()
    code = (
        "import sys; from pathlib import Path; from dltips.insight.board_logdir import Board;"
        f"Board([{str(tmp_path)!r}], Path({str(tmp_path / 'shown')!r})).refresh();"
        "print(sorted({'torch', 'tensorflow', 'pandas', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ))
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")


def test_the_mean_s_file_is_dated_before_the_first_run_s_whose_charts_would_else_hide_its_own(outputs, board):
    two_groups(outputs)
    for number in range(4):
        os.utime(outputs / f"{number:03d}" / "config.yaml", (1e9 + number, 1e9 + number))
    board.refresh()
    he, first, zeros = (
        events_of(board.logs / name / "events.out.tfevents.0")[0].wall_time
        for name in ("init=he/mean", "init=he/seed 0", "init=zeros/mean")
    )
    assert (he, first, zeros) == (1e9 - 1, 1e9, 1e9 - 1)
