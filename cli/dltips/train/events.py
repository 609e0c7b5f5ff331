"""TensorBoard events: scalars, HParams, the config, pictures and histograms of a run, in one file per session."""

# mypy: disable-error-code="import-untyped"
# (TensorBoard ships no types.)
#
# The records are written here, with TensorBoard's protos alone: they import in 9 ms after torch, its EventFileWriter in
# 30, torch.utils.tensorboard in 33, and the digits mlp trains for 250. There is also no thread to stop, and TensorFlow,
# where it is installed, stays out.

from __future__ import annotations

import io
import math
import os
import re
import struct
import textwrap
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from tensorboard.compat.proto import types_pb2
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.plugins.custom_scalar.layout_pb2 import Category, Chart, Layout, MultilineChartContent
from tensorboard.plugins.hparams import api_pb2
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo
from torch import Tensor

CHARTS = {"loss": ("train/loss", "val/loss"), "accuracy": ("train/accuracy", "val/accuracy"), "learning rate": ("lr",)}
PATTERN = "events.out.tfevents.*"  # TensorBoard reads whatever has "tfevents" in its name, in the order of the names
HPARAMS = "_hparams_/"  # how the tags begin that TensorBoard looks for
FIELD_TYPES = {
    "bool_value": api_pb2.DATA_TYPE_BOOL,
    "number_value": api_pb2.DATA_TYPE_FLOAT64,
    "string_value": api_pb2.DATA_TYPE_STRING,
}
READABLE = 64  # pixels that the longer side of a picture in a grid has at the least
BINS = 30  # of a histogram: as many as TensorBoard itself makes


class Events:
    """One event file in a run folder; what a call has written is there for others to read when it returns."""

    def __init__(self, folder: Path) -> None:
        self._trial = _trial(folder.name)
        self._path = folder / PATTERN.replace("*", str(time.time_ns()))
        self._path.touch(exist_ok=False)
        self._has_scalars = False
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def _write(self, event: Event) -> None:
        # 20 microseconds, a few times per epoch; so there is nothing to close when a run breaks off
        with self._path.open("ab") as file:
            file.write(_record(event.SerializeToString()))

    def start(
        self,
        columns: Mapping[str, bool | int | float | str],
        values: Mapping[str, bool | int | float | str],
        metrics: Sequence[str],
        config_text: str,
        *,
        varied: Collection[str] = (),
    ) -> None:
        """The run as one line of the HParams tab, its config as text, and the charts of the Custom Scalars tab.

        TensorBoard takes the columns of the HParams tab from one run for all of them: they have to be flat keys, and
        the same in every run, each with an example of its type; a run has values for some of them. Only five columns
        are shown until more are ticked, those in `varied` first. `metrics` are tags of scalars, e.g. val/accuracy.
        """
        experiment = api_pb2.Experiment(
            hparam_infos=[
                api_pb2.HParamInfo(name=key, type=FIELD_TYPES[_field(value)], differs=key in varied)
                for key, value in columns.items()
            ],
            metric_infos=[api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag)) for tag in metrics],
            time_created_secs=time.time(),
        )
        session = SessionStartInfo(group_name=self._trial, start_time_secs=time.time())
        for key, value in values.items():
            setattr(session.hparams[key], _field(value), value)
        charts = [
            Chart(title=title, multiline=MultilineChartContent(tag=[f"^{tag}$" for tag in tags]))
            for title, tags in CHARTS.items()
        ]
        layout = Layout(category=[Category(title="curves", chart=charts)])
        # indented, not fenced: nothing that a config holds ends the block
        code = textwrap.indent(config_text, "    ", lambda line: True)
        summary = Summary(
            value=[
                _hparams("experiment", HParamsPluginData(experiment=experiment)),
                _hparams("session_start_info", HParamsPluginData(session_start_info=session)),
                _string("config", "text", code.encode()),
                _string("custom_scalars__config__", "custom_scalars", layout.SerializeToString()),
            ]
        )
        self._write(Event(wall_time=time.time(), summary=summary))

    def scalars(self, step: int, values: Mapping[str, float], wall_time: float) -> None:
        """The values by tag, e.g. train/loss, at a step; NaN and infinity are shown as such."""
        if not self._has_scalars:
            # a TensorBoard that has been open since before a resume drops what it has seen from this step on
            self._write(Event(wall_time=wall_time, step=step, session_log=SessionLog(status=SessionLog.START)))
            self._has_scalars = True
        summary = Summary(value=[Summary.Value(tag=tag, simple_value=float(value)) for tag, value in values.items()])
        self._write(Event(wall_time=wall_time, step=step, summary=summary))

    def images(self, tag: str, images: Tensor) -> None:
        """Pictures (N, C, H, W) in [0, 1] as one grid, at step 0; each magnified until it is 64 pixels long."""
        from PIL import Image

        pixels = _grid(images)
        picture = io.BytesIO()
        Image.fromarray(pixels.numpy()).save(picture, "PNG")
        image = Summary.Image(
            height=pixels.shape[0],
            width=pixels.shape[1],
            colorspace=pixels.shape[2] if pixels.dim() == 3 else 1,
            encoded_image_string=picture.getvalue(),
        )
        self._write(Event(wall_time=time.time(), summary=Summary(value=[Summary.Value(tag=tag, image=image)])))

    def histograms(self, step: int, tensors: Mapping[str, Tensor]) -> None:
        """The distribution of each tensor's finite values at a step."""
        summary = Summary(value=[_histogram(tag, tensor) for tag, tensor in tensors.items()])
        self._write(Event(wall_time=time.time(), step=step, summary=summary))

    def finish(self, status: str) -> None:
        """How the session ended, finished or otherwise, for the HParams tab."""
        outcome = api_pb2.STATUS_SUCCESS if status == "finished" else api_pb2.STATUS_FAILURE
        end = SessionEndInfo(status=outcome, end_time_secs=time.time())
        summary = Summary(value=[_hparams("session_end_info", HParamsPluginData(session_end_info=end))])
        self._write(Event(wall_time=time.time(), summary=summary))


def cut(folder: Path, last_step: int) -> None:
    """Before a run is resumed: forget the events after a step, and what start, images and finish write anew each time.

    (TensorBoard would show the first session's HParams, and how that one ended.) Each file is replaced whole or not
    at all; one of which nothing is left goes.
    """
    for path in folder.glob(PATTERN):
        kept = [data for data in _records(path.read_bytes()) if _stays(Event.FromString(data), last_step)]
        if not kept:
            path.unlink()
            continue
        temporary = folder / ".events.tmp"
        try:
            temporary.write_bytes(b"".join(map(_record, kept)))
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def _stays(event: Event, last_step: int) -> bool:
    values = event.summary.value
    return event.step <= last_step and not any(v.tag.startswith(HPARAMS) or v.HasField("image") for v in values)


def _trial(name: str) -> str:
    """What the HParams tab calls a run. Its table shows 15 characters of it, so the time in front goes to the end."""
    timed = re.fullmatch(r"(\d{8}-\d{6}-\d{6})-(.+)", name)
    return f"{timed[2]} {timed[1]}" if timed else name


def _field(value: bool | int | float | str) -> str:
    """The field of a protobuf Value."""
    if isinstance(value, bool):  # which is an int too
        return "bool_value"
    return "string_value" if isinstance(value, str) else "number_value"


def _hparams(tag: str, data: HParamsPluginData) -> Summary.Value:
    metadata = _metadata("hparams", data.SerializeToString())
    empty = TensorProto(dtype=types_pb2.DT_FLOAT, tensor_shape=_shape(0))
    return Summary.Value(tag=HPARAMS + tag, tensor=empty, metadata=metadata)


def _string(tag: str, plugin: str, content: bytes) -> Summary.Value:
    tensor = TensorProto(dtype=types_pb2.DT_STRING, string_val=[content], tensor_shape=_shape())
    return Summary.Value(tag=tag, tensor=tensor, metadata=_metadata(plugin))


def _metadata(plugin: str, content: bytes = b"") -> SummaryMetadata:
    return SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name=plugin, content=content))


def _shape(*sizes: int) -> TensorShapeProto:
    return TensorShapeProto(dim=[TensorShapeProto.Dim(size=size) for size in sizes])


def _histogram(tag: str, tensor: Tensor) -> Summary.Value:
    """Rows of left edge, right edge, count."""
    values = tensor.detach().cpu().double().flatten()  # on a GPU, histc is not deterministic
    values = values[values.isfinite()]
    rows: list[float] = []
    if values.numel():
        low, high = (float(value) for value in values.aminmax())
        if low == high:
            low, high = low - 0.5, high + 0.5
        counts = values.histc(BINS, low, high).tolist()
        edges = torch.linspace(low, high, BINS + 1, dtype=values.dtype).tolist()
        rows = [number for row in zip(edges, edges[1:], counts, strict=False) for number in row]
    proto = TensorProto(dtype=types_pb2.DT_DOUBLE, double_val=rows, tensor_shape=_shape(len(rows) // 3, 3))
    return Summary.Value(tag=tag, tensor=proto, metadata=_metadata("histograms"))


def _grid(images: Tensor) -> Tensor:
    """(N, C, H, W) in [0, 1] -> (height, width, 3) or, where C is not 3, the mean as grey (height, width); uint8."""
    images = images.detach().float().cpu().nan_to_num().clamp(0, 1)
    if images.shape[1] != 3:
        images = images.mean(1, keepdim=True)
    count, channels, height, width = images.shape
    scale = max(1, math.ceil(READABLE / max(height, width)))
    images = images.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    images = torch.nn.functional.pad(images, (0, 2, 0, 2), value=0.5)  # a grey line, which shows on black and on white
    side = math.ceil(math.sqrt(count))
    columns = min(range(side, 2 * side), key=lambda columns: -count % columns)  # about square, few places left over
    rows = math.ceil(count / columns)
    blank = torch.full((rows * columns - count, *images.shape[1:]), 0.5)
    cells = torch.cat([images, blank]).reshape(rows, columns, *images.shape[1:])
    pixels = cells.permute(0, 3, 1, 4, 2).reshape(rows * images.shape[2], columns * images.shape[3], channels)
    cropped = pixels[:-2, :-2].squeeze(2)
    return (cropped * 255).round().to(torch.uint8)


# TFRecord: length (8 bytes), its checksum (4), the data, their checksum (4)


def _record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return b"".join((length, struct.pack("<I", _checksum(length)), data, struct.pack("<I", _checksum(data))))


def _records(content: bytes) -> Iterator[bytes]:
    """The data of each record up to the first that is torn or damaged."""
    start = 0
    while start + 16 <= len(content):
        length = content[start : start + 8]
        stop = start + 12 + struct.unpack("<Q", length)[0]
        data = content[start + 12 : stop]
        sums = content[start + 8 : start + 12] + content[stop : stop + 4]
        if sums != struct.pack("<II", _checksum(length), _checksum(data)):
            return
        yield data
        start = stop + 4


def _crc_table() -> Iterator[int]:
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        yield value


CRC_TABLE = tuple(_crc_table())


def _checksum(data: bytes) -> int:
    """CRC-32C, masked the way of TFRecord files."""
    crc, table = 0xFFFFFFFF, CRC_TABLE
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF
