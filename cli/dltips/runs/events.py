"""Writes TensorBoard events without torch: scalars, HParams and the config of a run, and the custom charts' layout."""

# mypy: disable-error-code="import-untyped"
# (TensorBoard ships no types.)
#
# The records are written here, with TensorBoard's protos alone: they import in 9 ms after torch, its EventFileWriter in
# 30, torch.utils.tensorboard in 33, and the digits mlp trains for 250. There is also no thread to stop, and TensorFlow,
# where it is installed, stays out.

from __future__ import annotations

import re
import struct
import textwrap
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from tensorboard.compat.proto import types_pb2
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.plugins.custom_scalar.layout_pb2 import (
    Category,
    Chart,
    Layout,
    MarginChartContent,
    MultilineChartContent,
)
from tensorboard.plugins.hparams import api_pb2
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo

CHARTS = {"loss": ("train/loss", "val/loss"), "accuracy": ("train/accuracy", "val/accuracy"), "learning rate": ("lr",)}
# TensorBoard reads every file with "tfevents" in its name, in the order of the names
FILE_PATTERN = "events.out.tfevents.*"
HPARAMS_PREFIX = "_hparams_/"  # the prefix of the tags that TensorBoard looks for
FIELD_TYPES = {
    "bool_value": api_pb2.DATA_TYPE_BOOL,
    "number_value": api_pb2.DATA_TYPE_FLOAT64,
    "string_value": api_pb2.DATA_TYPE_STRING,
}

Setting = bool | int | float | str


class EventFile:
    """One event file in a folder; each call flushes what it writes.

    `name` ends the file's name, by default the time; `trial` is the run's name in the HParams tab, `started` the run's
    start in seconds since 1970.
    """

    def __init__(
        self, folder: Path, name: str | None = None, trial: str | None = None, started: float | None = None
    ) -> None:
        self._trial = trial or trial_name(folder.name)
        self._path = folder / FILE_PATTERN.replace("*", name or str(time.time_ns()))
        self._path.touch(exist_ok=False)
        self._has_scalars = False
        self._started = started or time.time()
        self.write(Event(wall_time=self._started, file_version="brain.Event:2"))

    def write(self, event: Event) -> None:
        # 20 microseconds, a few times per epoch; so nothing has to be closed when a run is cut off
        with self._path.open("ab") as file:
            file.write(record(event.SerializeToString()))

    def start(
        self,
        columns: Mapping[str, Setting],
        values: Mapping[str, Setting],
        metrics: Sequence[str],
        config_text: str,
        *,
        varied: Collection[str] = (),
    ) -> None:
        """Writes the run's line of the HParams tab, its config as text, and the charts of the Custom Scalars tab."""
        # indented, not fenced: no text of a config ends the block
        code = textwrap.indent(config_text, "    ", lambda line: True)
        charts = [_lines(title, tags) for title, tags in CHARTS.items()]
        self._write_values(
            *self._line(columns, values, metrics, varied),
            _string("config", "text", code.encode()),
            _layout("curves", charts),
        )

    def line(
        self,
        columns: Mapping[str, Setting],
        values: Mapping[str, Setting],
        metrics: Sequence[str],
        varied: Collection[str] = (),
    ) -> None:
        """Writes the run as one line of the HParams tab.

        TensorBoard takes the columns of the HParams tab from one run for all of them: they have to be flat keys, and
        the same in every run, each with an example of its type; a run has values for some of them. Only five columns
        are shown until more are ticked, those in `varied` first. `metrics` are tags of scalars, e.g. val/accuracy.
        """
        self._write_values(*self._line(columns, values, metrics, varied))

    def _line(
        self,
        columns: Mapping[str, Setting],
        values: Mapping[str, Setting],
        metrics: Sequence[str],
        varied: Collection[str],
    ) -> tuple[Summary.Value, Summary.Value]:
        experiment = api_pb2.Experiment(
            hparam_infos=[
                api_pb2.HParamInfo(name=key, type=FIELD_TYPES[_field(value)], differs=key in varied)
                for key, value in columns.items()
            ],
            metric_infos=[api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag)) for tag in metrics],
            time_created_secs=self._started,
        )
        session = SessionStartInfo(group_name=self._trial, start_time_secs=self._started)
        for key, value in values.items():
            setattr(session.hparams[key], _field(value), value)
        return (
            _hparams("experiment", HParamsPluginData(experiment=experiment)),
            _hparams("session_start_info", HParamsPluginData(session_start_info=session)),
        )

    def _write_values(self, *values: Summary.Value) -> None:
        self.write(Event(wall_time=self._started, summary=Summary(value=values)))

    def begin_anew(self) -> None:
        """Makes the next step replace everything that a TensorBoard has read from that step on."""
        self._has_scalars = False

    def moved_to(self, folder: Path) -> None:
        """Continues with the file at its new path."""
        self._path = folder / self._path.name

    def scalars(self, step: int, values: Mapping[str, float], wall_time: float | None = None) -> None:
        """Writes the values by tag, e.g. train/loss, at a step; NaN and infinity are shown as such."""
        wall_time = time.time() if wall_time is None else wall_time
        if not self._has_scalars:
            # an open TensorBoard drops what it has read from this step on, before the resume
            self.write(Event(wall_time=wall_time, step=step, session_log=SessionLog(status=SessionLog.START)))
            self._has_scalars = True
        summary = Summary(value=[Summary.Value(tag=tag, simple_value=float(value)) for tag, value in values.items()])
        self.write(Event(wall_time=wall_time, step=step, summary=summary))

    def bands(self, title: str, charts: Mapping[str, tuple[str, str, str]]) -> None:
        """Writes charts for the Custom Scalars tab: by title a curve's tag, and those of its band's two edges."""
        self._write_values(_layout(title, [_band(name, *tags) for name, tags in charts.items()]))

    def finish(self, status: str) -> None:
        """Writes how the session ended, finished or otherwise, for the HParams tab."""
        outcome = api_pb2.STATUS_SUCCESS if status == "finished" else api_pb2.STATUS_FAILURE
        end = SessionEndInfo(status=outcome, end_time_secs=time.time())
        summary = Summary(value=[_hparams("session_end_info", HParamsPluginData(session_end_info=end))])
        self.write(Event(wall_time=time.time(), summary=summary))


def trial_name(name: str) -> str:
    """Returns a run's name in the HParams tab, whose table shows 15 characters: the time moves to the end."""
    timed = re.fullmatch(r"(\d{8}-\d{6}-\d{6})-(.+)", name)
    return f"{timed[2]} {timed[1]}" if timed else name


def _field(value: bool | int | float | str) -> str:
    """Returns the field of a protobuf Value."""
    if isinstance(value, bool):  # bool is a subclass of int
        return "bool_value"
    return "string_value" if isinstance(value, str) else "number_value"


def _hparams(tag: str, data: HParamsPluginData) -> Summary.Value:
    empty = TensorProto(dtype=types_pb2.DT_FLOAT, tensor_shape=shape(0))
    return Summary.Value(tag=HPARAMS_PREFIX + tag, tensor=empty, metadata=metadata("hparams", data.SerializeToString()))


def _string(tag: str, plugin: str, content: bytes) -> Summary.Value:
    tensor = TensorProto(dtype=types_pb2.DT_STRING, string_val=[content], tensor_shape=shape())
    return Summary.Value(tag=tag, tensor=tensor, metadata=metadata(plugin))


def metadata(plugin: str, content: bytes = b"") -> SummaryMetadata:
    return SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name=plugin, content=content))


def shape(*sizes: int) -> TensorShapeProto:
    return TensorShapeProto(dim=[TensorShapeProto.Dim(size=size) for size in sizes])


def _layout(title: str, charts: Sequence[Chart]) -> Summary.Value:
    layout = Layout(category=[Category(title=title, chart=charts)])
    return _string("custom_scalars__config__", "custom_scalars", layout.SerializeToString())


def _lines(title: str, tags: Sequence[str]) -> Chart:
    return Chart(title=title, multiline=MultilineChartContent(tag=[f"^{tag}$" for tag in tags]))


def _band(title: str, value: str, lower: str, upper: str) -> Chart:
    series = MarginChartContent.Series(value=value, lower=lower, upper=upper)
    return Chart(title=title, margin=MarginChartContent(series=[series]))


# TFRecord: length (8 bytes), its checksum (4), the data, their checksum (4)


def record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return b"".join((length, struct.pack("<I", _checksum(length)), data, struct.pack("<I", _checksum(data))))


def records(content: bytes) -> Iterator[bytes]:
    """Yields the data of each record up to the first torn or damaged one."""
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
    """Returns the CRC-32C, masked as in TFRecord files."""
    crc, table = 0xFFFFFFFF, CRC_TABLE
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF
