"""Pictures and histograms of tensors in TensorBoard's files, and what a resumed run cuts off."""

import io
import math
import struct

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.plugins.hparams import api_pb2, metadata

from dltips.runs.events import records
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


def picture(folder, images):
    Events(folder).images("train/augmented", images)
    image = read(folder).Images("train/augmented")[0]
    pixels = np.asarray(Image.open(io.BytesIO(image.encoded_image_string)))
    assert pixels.shape[:2] == (image.height, image.width)
    return pixels


def test_small_pictures_are_magnified_into_a_grid(tmp_path):
    images = torch.rand(7, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    pixels = picture(tmp_path, images)
    assert pixels.shape == (2 * 66 - 2, 4 * 66 - 2)  # 2 rows of 4, each 64 pixels and a line of 2 between them
    for n, image in enumerate(images):
        top, left = n // 4 * 66, n % 4 * 66
        cell = pixels[top : top + 64, left : left + 64]
        assert (cell == np.kron((image[0] * 255).round().numpy(), np.ones((8, 8)))).all()
    assert (pixels[66:, 198:] == 128).all()  # the place that is left over


@pytest.mark.parametrize(("count", "rows", "columns"), [(1, 1, 1), (2, 1, 2), (16, 4, 4), (32, 4, 8), (64, 8, 8)])
def test_a_grid_is_full_where_it_can_be(tmp_path, count, rows, columns):
    assert picture(tmp_path, torch.zeros(count, 1, 64, 64)).shape == (rows * 66 - 2, columns * 66 - 2)


@pytest.mark.parametrize(("channels", "colorspace"), [(1, 1), (3, 3), (2, 1)])
def test_a_picture_says_its_size_and_whether_it_has_colours(tmp_path, channels, colorspace):
    Events(tmp_path).images("x", torch.rand(1, channels, 70, 90))
    (file,) = tmp_path.iterdir()  # not by TensorBoard's loader, which keeps the pixels alone
    *_, event = map(Event.FromString, records(file.read_bytes()))
    image = event.summary.value[0].image
    assert (image.height, image.width, image.colorspace) == (70, 90, colorspace)


def test_colour_stays_colour_and_large_pictures_their_size(tmp_path):
    images = torch.rand(1, 3, 70, 90)
    pixels = picture(tmp_path, images)
    assert (pixels == (images[0] * 255).round().permute(1, 2, 0).numpy()).all()


def test_other_channels_are_averaged_and_odd_values_bounded(tmp_path):
    images = torch.tensor([[1.0, 0.5], [math.nan, 0.5], [-3.0, 2.0]]).T.reshape(2, 3, 1, 1).repeat(1, 2, 64, 64)
    pixels = picture(tmp_path, images)
    assert set(pixels[:, :64].flat) == {85} and set(pixels[:, 66:].flat) == {170}  # (0.5 + 0.5 + 1) / 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_histogram_counts_every_finite_value(tmp_path, dtype):
    values = torch.randn(1000, generator=torch.Generator().manual_seed(0)).to(dtype)
    values[:3] = torch.tensor([math.nan, math.inf, -math.inf])
    parameter = torch.nn.Parameter(values)
    Events(tmp_path).histograms(4, {"weights/0": parameter})
    (event,) = read(tmp_path).Tensors("weights/0")
    rows = np.array(event.tensor_proto.double_val).reshape(-1, 3)
    finite = values[3:].double().numpy()
    assert event.step == 4 and len(rows) == 30
    assert rows[0, 0] == pytest.approx(finite.min()) and rows[-1, 1] == pytest.approx(finite.max())
    assert (rows[1:, 0] == rows[:-1, 1]).all()
    assert rows[:, 2].tolist() == pytest.approx(np.histogram(finite, [*rows[:, 0], rows[-1, 1]])[0], abs=1)
    assert rows[:, 2].sum() == 997


@pytest.mark.parametrize("values", [[2.0, 2.0], [0.0], [math.nan], [], [3e38, -3e38]])
def test_a_histogram_of_odd_values_counts_them_too(tmp_path, values):
    Events(tmp_path).histograms(1, {"weights/0": torch.tensor(values)})
    (event,) = read(tmp_path).Tensors("weights/0")
    rows = np.array(event.tensor_proto.double_val).reshape(-1, 3)
    assert rows[:, 2].sum() == sum(map(math.isfinite, values))
    assert (rows[:, 0] < rows[:, 1]).all()


@pytest.mark.parametrize("last_step", range(-1, 7))
def test_cut_keeps_exactly_the_steps_up_to_the_last(tmp_path, last_step):
    write(tmp_path, range(1, 6), "interrupted")
    before = scalars(read(tmp_path))
    cut(tmp_path, last_step)
    kept = {tag: [point for point in points if point[0] <= last_step] for tag, points in before.items()}
    after = read(tmp_path)
    assert scalars(after) == {tag: points for tag, points in kept.items() if points}
    if last_step > 0:
        assert [event.step for event in after.Tensors("weights/0")] == list(range(1, min(last_step, 5) + 1))
    assert (list(tmp_path.iterdir()) == []) == (last_step < 0)


def test_cut_changes_nothing_the_second_time(tmp_path):
    write(tmp_path, range(1, 6))
    cut(tmp_path, 3)
    (path,) = tmp_path.iterdir()
    once = path.read_bytes()
    cut(tmp_path, 3)
    assert path.read_bytes() == once and list(tmp_path.iterdir()) == [path]


def test_cut_drops_a_torn_last_record(tmp_path):
    write(tmp_path, range(1, 4))
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    cut(tmp_path, 3)
    expected = scalars(read(tmp_path))
    session_free = path.read_bytes()
    (last,) = struct.unpack("<Q", _last_record(session_free)[:8])
    for missing in range(1, last + 17):
        path.write_bytes(whole[:-missing])
        cut(tmp_path, 3)
        assert path.read_bytes() == session_free[: -(last + 16)]
    assert scalars(read(tmp_path)) == expected  # the torn record was the last histogram


def test_cut_drops_what_follows_a_damaged_record(tmp_path):
    write(tmp_path, range(1, 4))
    (path,) = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    content[-10:] = bytes(10)  # zeros, as a crash of the machine may leave
    path.write_bytes(content)
    cut(tmp_path, 3)
    assert [event.step for event in read(tmp_path).Tensors("weights/0")] == [1, 2]


def _last_record(content):
    start = 0
    while start < len(content):
        last, (length,) = start, struct.unpack("<Q", content[start : start + 8])
        start += length + 16
    return content[last:]


def test_a_resumed_run_reads_like_one_that_was_not_interrupted(tmp_path):
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    write(tmp_path / "whole", range(1, 9), "finished", epochs=8)
    write(tmp_path / "parts", range(1, 6), "interrupted", epochs=5)
    cut(tmp_path / "parts", 3)
    write(tmp_path / "parts", range(4, 7), "interrupted", epochs=6)
    cut(tmp_path / "parts", 5)
    write(tmp_path / "parts", range(6, 9), "finished", epochs=8)
    whole, parts = read(tmp_path / "whole"), read(tmp_path / "parts")
    assert scalars(parts) == scalars(whole)
    for tag in ("weights/0", "config"):
        assert [(e.step, e.tensor_proto) for e in parts.Tensors(tag)] == [
            (e.step, e.tensor_proto) for e in whole.Tensors(tag)
        ]
    assert len(parts.Images("train/augmented")) == 1
    (start,) = hparams(tmp_path / "parts", "session_start_info")
    (end,) = hparams(tmp_path / "parts", "session_end_info")
    assert start.hparams["epochs"].number_value == 8 and end.status == api_pb2.STATUS_SUCCESS


def test_a_tensorboard_that_is_open_forgets_what_was_cut(tmp_path):
    write(tmp_path, range(1, 6))
    watching = read(tmp_path)
    cut(tmp_path, 3)
    write(tmp_path, range(4, 9), offset=100.0)
    watching.Reload()
    assert scalars(watching) == scalars(read(tmp_path))


def test_cut_that_fails_leaves_the_events(tmp_path, monkeypatch):
    write(tmp_path, range(1, 6))
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()

    def full(source, target):
        raise OSError("No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space left"):
        cut(tmp_path, 2)
    assert path.read_bytes() == whole and list(tmp_path.iterdir()) == [path]


def test_cut_leaves_other_files_alone(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    cut(tmp_path, 1)
    assert (tmp_path / "metrics.jsonl").read_text() == "{}\n"
