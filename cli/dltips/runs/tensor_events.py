"""Writes a training's TensorBoard events: those of runs/events.py, and pictures and histograms of tensors."""

# mypy: disable-error-code="import-untyped"
# (TensorBoard ships no types.)

from __future__ import annotations

import io
import math
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from tensorboard.compat.proto import types_pb2
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from torch import Tensor

from dltips.files import replacing
from dltips.runs.events import FILE_PATTERN, HPARAMS_PREFIX, EventFile, metadata, record, records, shape

READABLE_PIXELS = 64  # minimum pixels of the longer side of a picture in a grid
HISTOGRAM_BINS = 30  # bins of a histogram, as TensorBoard itself makes them


class Events(EventFile):
    """One event file in a run folder; each call flushes what it writes."""

    def images(self, tag: str, images: Tensor) -> None:
        """Writes pictures (N, C, H, W) in [0, 1] as one grid, at step 0; each magnified to at least 64 pixels."""
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
        self.write(Event(wall_time=time.time(), summary=Summary(value=[Summary.Value(tag=tag, image=image)])))

    def histograms(self, step: int, tensors: Mapping[str, Tensor]) -> None:
        """Writes the distribution of each tensor's finite values at a step."""
        summary = Summary(value=[_histogram(tag, tensor) for tag, tensor in tensors.items()])
        self.write(Event(wall_time=time.time(), step=step, summary=summary))


def cut(folder: Path, last_step: int) -> None:
    """Drops the events after a step, before a run is resumed, and those that start, images and finish write anew.

    (TensorBoard would show the first session's HParams, and how that one ended.) Each file is replaced atomically; one
    that becomes empty is removed.
    """
    for path in folder.glob(FILE_PATTERN):
        kept = [data for data in records(path.read_bytes()) if _stays(Event.FromString(data), last_step)]
        if not kept:
            path.unlink()
            continue
        with replacing(path) as temporary:
            temporary.write_bytes(b"".join(map(record, kept)))


def _stays(event: Event, last_step: int) -> bool:
    values = event.summary.value
    return event.step <= last_step and not any(v.tag.startswith(HPARAMS_PREFIX) or v.HasField("image") for v in values)


def _histogram(tag: str, tensor: Tensor) -> Summary.Value:
    """Returns rows of left edge, right edge, count."""
    values = tensor.detach().cpu().double().flatten()  # on a GPU, histc is not deterministic
    values = values[values.isfinite()]
    rows: list[float] = []
    if values.numel():
        low, high = (float(value) for value in values.aminmax())
        if low == high:
            low, high = low - 0.5, high + 0.5
        counts = values.histc(HISTOGRAM_BINS, low, high).tolist()
        edges = torch.linspace(low, high, HISTOGRAM_BINS + 1, dtype=values.dtype).tolist()
        rows = [number for row in zip(edges, edges[1:], counts, strict=False) for number in row]
    proto = TensorProto(dtype=types_pb2.DT_DOUBLE, double_val=rows, tensor_shape=shape(len(rows) // 3, 3))
    return Summary.Value(tag=tag, tensor=proto, metadata=metadata("histograms"))


def _grid(images: Tensor) -> Tensor:
    """Returns a grid of pictures (N, C, H, W) in [0, 1]: (height, width, 3), or the mean as grey; uint8."""
    images = images.detach().float().cpu().nan_to_num().clamp(0, 1)
    if images.shape[1] != 3:
        images = images.mean(1, keepdim=True)
    count, channels, height, width = images.shape
    scale = max(1, math.ceil(READABLE_PIXELS / max(height, width)))
    images = images.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    images = torch.nn.functional.pad(images, (0, 2, 0, 2), value=0.5)  # a grey line, which shows on black and on white
    side = math.ceil(math.sqrt(count))
    columns = min(range(side, 2 * side), key=lambda columns: -count % columns)  # about square, with few empty cells
    rows = math.ceil(count / columns)
    blank = torch.full((rows * columns - count, *images.shape[1:]), 0.5)
    cells = torch.cat([images, blank]).reshape(rows, columns, *images.shape[1:])
    pixels = cells.permute(0, 3, 1, 4, 2).reshape(rows * images.shape[2], columns * images.shape[3], channels)
    cropped = pixels[:-2, :-2].squeeze(2)
    return (cropped * 255).round().to(torch.uint8)
