"""TensorBoard events: TensorBoard's own readers find in the file what went in, also after a resume."""

import math

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.hparams import api_pb2, metadata

from dltips.runs.events import EventFile
from dltips.runs.tensor_events import Events, cut

HYPERPARAMETERS = {"seed": 3, "optimizer.lr": 0.1, "optimizer.name": "sgd", "compile": False, "model.widths": "[8, 8]"}
COLUMNS = {  # examples: every run has these, whatever its own values
    "seed": 0,
    "epochs": 30,
    "optimizer.lr": 0.5,
    "optimizer.beta1": 0.5,
    "optimizer.name": "",
    "compile": True,
    "model.widths": "",
}
CONFIG = "seed: 3\noptimizer:\n  name: sgd\n\nnote: '```'\n"
METRICS = ["val/accuracy", "val/loss"]
EVERYTHING = {"scalars": 0, "tensors": 0, "images": 0}  # keep all, rather than a sample


def read(folder):
    accumulator = EventAccumulator(str(folder), size_guidance=EVERYTHING)
    accumulator.Reload()
    return accumulator


def scalars(accumulator):
    return {
        tag: [(event.step, event.value) for event in accumulator.Scalars(tag)] for tag in accumulator.Tags()["scalars"]
    }


def events(folder):
    """Every event as TensorBoard's file loader gives it, which checks lengths and checksums; files in order."""
    return [event for path in sorted(folder.glob("events*")) for event in EventFileLoader(str(path)).Load()]


def hparams(folder, tag):
    """The plugin data of every event with the tag."""
    values = [value for event in events(folder) for value in event.summary.value if value.tag == f"_hparams_/{tag}"]
    parse = getattr(metadata, f"parse_{tag}_plugin_data")
    return [parse(value.metadata.plugin_data.content) for value in values]


def write(folder, steps, status=None, offset=0.0, **hyperparameters):
    """A session with two scalars and a histogram per step."""
    session = Events(folder)
    session.start(COLUMNS, HYPERPARAMETERS | hyperparameters, METRICS, CONFIG)
    for step in steps:
        session.scalars(step, {"val/loss": step / 4 + offset, "train/loss": step / 8}, 1e9 + step)
        session.histograms(step, {"weights/0": torch.full((5,), float(step))})
    if status is not None:
        session.images("train/augmented", torch.zeros(1, 1, 8, 8))
        session.finish(status)


def test_every_scalar_comes_back(tmp_path):
    session = Events(tmp_path)
    wanted = {"train/loss": [], "val/accuracy": [], "layers/0.weight/mean": []}
    generator = torch.Generator().manual_seed(0)
    for step in range(1, 60):
        values = dict(zip(wanted, torch.randn(3, generator=generator).tolist(), strict=True))
        session.scalars(step, values, 1e9 + step)
        for tag, value in values.items():
            wanted[tag].append((step, value))
    accumulator = read(tmp_path)  # before the end: a run can be watched
    assert scalars(accumulator) == wanted
    assert [event.wall_time for event in accumulator.Scalars("train/loss")] == [1e9 + step for step in range(1, 60)]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, torch.tensor(0.5), np.float32(2), 7])
def test_a_scalar_may_be_any_number(tmp_path, value):
    Events(tmp_path).scalars(1, {"val/loss": value}, 1e9)
    assert read(tmp_path).Scalars("val/loss")[0].value == pytest.approx(float(value), nan_ok=True)


def test_a_step_may_be_written_in_parts(tmp_path):
    session = Events(tmp_path)
    session.scalars(1, {"val/loss": 1.0}, 1e9)
    session.scalars(1, {"layers/0/mean": 2.0}, 1e9)
    assert scalars(read(tmp_path)) == {"val/loss": [(1, 1.0)], "layers/0/mean": [(1, 2.0)]}


def test_the_run_is_one_hparams_session_with_the_scalars_tags_as_metrics(tmp_path):
    write(tmp_path, range(1, 4), "finished")
    assert len(list(tmp_path.iterdir())) == 1  # no second run beside the scalars
    (experiment,) = hparams(tmp_path, "experiment")
    assert [info.name.tag for info in experiment.metric_infos] == METRICS
    assert {info.name: info.type for info in experiment.hparam_infos} == {
        "seed": api_pb2.DATA_TYPE_FLOAT64,
        "epochs": api_pb2.DATA_TYPE_FLOAT64,
        "optimizer.lr": api_pb2.DATA_TYPE_FLOAT64,
        "optimizer.beta1": api_pb2.DATA_TYPE_FLOAT64,
        "optimizer.name": api_pb2.DATA_TYPE_STRING,
        "compile": api_pb2.DATA_TYPE_BOOL,
        "model.widths": api_pb2.DATA_TYPE_STRING,
    }
    (start,) = hparams(tmp_path, "session_start_info")
    kinds = {key: value.WhichOneof("kind") for key, value in start.hparams.items()}
    assert {key: getattr(value, kinds[key]) for key, value in start.hparams.items()} == HYPERPARAMETERS
    assert kinds["compile"] == "bool_value" and kinds["seed"] == "number_value"


def test_the_varied_hyperparameters_come_first(tmp_path):
    Events(tmp_path).start(COLUMNS, HYPERPARAMETERS, METRICS, CONFIG, varied={"seed"})
    (experiment,) = hparams(tmp_path, "experiment")
    assert [info.name for info in experiment.hparam_infos if info.differs] == ["seed"]


@pytest.mark.parametrize(
    ("folder", "trial"),
    [
        ("20240501-100312-654321-d4e5f6-adam", "d4e5f6-adam 20240501-100312-654321"),
        ("20240501-100312-654321-d4e5f6", "d4e5f6 20240501-100312-654321"),
        ("17-d4e5f6", "17-d4e5f6"),
    ],
)
def test_a_trial_is_called_by_what_tells_it_from_others(tmp_path, folder, trial):
    (tmp_path / folder).mkdir()
    Events(tmp_path / folder).start(COLUMNS, HYPERPARAMETERS, METRICS, CONFIG)
    assert hparams(tmp_path / folder, "session_start_info")[0].group_name == trial


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        ("finished", api_pb2.STATUS_SUCCESS),
        ("interrupted", api_pb2.STATUS_FAILURE),
        ("diverged", api_pb2.STATUS_FAILURE),
        ("failed", api_pb2.STATUS_FAILURE),
    ],
)
def test_the_session_ends_with_its_status(tmp_path, status, outcome):
    write(tmp_path, [1])
    assert hparams(tmp_path, "session_end_info") == []
    cut(tmp_path, 1)
    write(tmp_path, [2], status)
    assert [end.status for end in hparams(tmp_path, "session_end_info")] == [outcome]


def test_the_config_is_one_block_of_code(tmp_path):
    write(tmp_path, [1])
    (text,) = read(tmp_path).Tensors("config")
    shown = text.tensor_proto.string_val[0].decode().split("\n")
    assert all(line.startswith("    ") for line in shown[:-1])
    assert "\n".join(line.removeprefix("    ") for line in shown) == CONFIG


def test_train_and_val_share_a_custom_chart(tmp_path):
    write(tmp_path, [1])
    (layout,) = read(tmp_path).Tensors("custom_scalars__config__")
    (category,) = Layout.FromString(layout.tensor_proto.string_val[0]).category
    assert {chart.title: list(chart.multiline.tag) for chart in category.chart} == {
        "loss": ["^train/loss$", "^val/loss$"],
        "accuracy": ["^train/accuracy$", "^val/accuracy$"],
        "learning rate": ["^lr$"],
    }


def test_a_band_names_the_tags_of_its_curve_and_its_edges(tmp_path):
    EventFile(tmp_path).bands("means", {"val/loss": ("middle", "low", "high"), "val/accuracy": ("m", "l", "h")})
    (layout,) = read(tmp_path).Tensors("custom_scalars__config__")
    (category,) = Layout.FromString(layout.tensor_proto.string_val[0]).category
    assert category.title == "means" and [chart.title for chart in category.chart] == ["val/loss", "val/accuracy"]
    found = [(each.value, each.lower, each.upper) for chart in category.chart for each in chart.margin.series]
    assert found == [("middle", "low", "high"), ("m", "l", "h")]
