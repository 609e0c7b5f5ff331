"""Shares loaded and split samples among the runs of one process."""

from __future__ import annotations

import json

from dltips.config.validation import Config
from dltips.feed.load import RequiredInputs, load
from dltips.feed.splits import Split, Splits, split
from dltips.tips.data import DataKnobs, Source

Samples = tuple[Source, Splits, Split]
MAX_KEPT = 4  # data sets: a sweep over more of them loads some again


class DatasetCache:
    """The samples of recent runs. Only data.split_seed decides them, no other seed."""

    def __init__(self) -> None:
        self._kept: dict[str, Samples] = {}

    def samples(self, config: Config, common: DataKnobs, wanted: RequiredInputs | None) -> Samples:
        """Returns a config's source, its splits, and its copied training samples. Raises ConfigError."""
        key = _key(config, wanted)
        if key in self._kept:
            self._kept[key] = self._kept.pop(key)  # move to the end: the least recently used is evicted first
            return self._kept[key]
        source = load(config.tip("data"), common, wanted)
        splits = split(source, common)
        self._kept[key] = source, splits, splits.train.taken()
        if len(self._kept) > MAX_KEPT:
            del self._kept[next(iter(self._kept))]
        return self._kept[key]


def _key(config: Config, wanted: RequiredInputs | None) -> str:
    return json.dumps([config.resolved["data"], repr(wanted)], sort_keys=True, default=str)
