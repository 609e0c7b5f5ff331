"""A resumed run: its folder, its own config, and the decisions stored in its last checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from dltips.config.validation import Config
from dltips.tips import preprocessing
from dltips.train.device import Threads
from dltips.train.snapshot import FORMAT


@dataclass
class Resumed:
    """A run folder and what its continuation needs. Without a checkpoint the run starts again."""

    path: Path
    config: Config
    payload: dict[str, Any] | None  # of the checkpoint; None if the run was stopped before its first one
    threads: Threads | None
    data_hash: str | None
    weights_hash: str | None  # of the weights that fine-tuning started from
    test_reads: int  # the number of reads of the test split so far
    notes: list[str] = field(default_factory=list)

    @property
    def is_settled(self) -> bool:
        """Whether there is a checkpoint in this version's format."""
        return self.payload is not None and self.payload.get("format") == FORMAT

    @property
    def checkpoint(self) -> dict[str, Any]:
        assert self.payload is not None
        return self.payload

    @cached_property
    def preprocess(self) -> nn.Module:
        """The fitted preprocessing. Raises ConfigError if the checkpoint has none."""
        return preprocessing.restore(self.checkpoint["preprocessing"])

    @property
    def input_shape(self) -> tuple[int, ...]:
        return tuple(self.checkpoint["input_shape"])

    @property
    def epoch(self) -> int:
        """Completed epochs."""
        epoch: int = self.checkpoint["epoch"]
        return epoch

    @property
    def model(self) -> Mapping[str, Tensor]:
        """The net's state dict."""
        state: Mapping[str, Tensor] = self.checkpoint["model"]
        return state

    @property
    def plan(self) -> str | None:
        """The fine-tuning plan as `write_plan` wrote it; None for a run without fine-tuning."""
        return self.checkpoint.get("plan")
