"""Loads a trained net from its run folder, as data only: nothing in the folder is executed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import nn

from dltips.config.validation import Config, validate
from dltips.errors import ConfigError
from dltips.feed.batches import Batch, Feed
from dltips.feed.placement import place_split
from dltips.feed.splits import Split
from dltips.nets.size import measure
from dltips.runs import checkpoint, folder
from dltips.tips.preprocessing import restore
from dltips.train import device as devices
from dltips.train.build import build_model
from dltips.train.finetuning import plans
from dltips.train.loop import predictions


@dataclass(frozen=True)
class TrainedNet:
    """A net with its fitted preprocessing, on a device."""

    config: Config
    model: nn.Module
    preprocess: nn.Module
    input_shape: tuple[int, ...]
    device: torch.device

    def outputs(self, split: Split) -> Batch:
        """Returns (outputs, targets) of raw samples in order: for the validation split the same bits as in training."""
        settings, common = self.config.settings, self.config.common["data"]()
        autocast = devices.autocast(settings.precision, self.device)
        flops = measure(self.model, self.input_shape, self.device).flops_per_sample
        threads = devices.threads(3.0 * flops * settings.batch_size)
        with devices.conditions(self.device, thread_count=threads, deterministic=settings.deterministic):
            feed = Feed(place_split(split, common.placement, self.device), len(split), self.preprocess)
            parts = list(predictions(self.model, feed, settings.batch_size, autocast))
        return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])


def load(config: Config, payload: dict[str, Any], device_name: str) -> TrainedNet:
    """Loads what `read` returns, ready for use on a device. Raises ConfigError."""
    device = devices.choose(device_name)
    input_shape = tuple(payload["input_shape"])
    model, preprocess = load_net(config, payload)
    model = model.to(device)
    if len(input_shape) == 3:  # as in training
        model = model.to(memory_format=torch.channels_last)
    return TrainedNet(config, model, preprocess.to(device), input_shape, device)


def read(path: Path, name: str) -> tuple[Config, dict[str, Any]]:
    """Reads a run's config, and one of its checkpoints: checkpoint.BEST or LAST. Raises ConfigError."""
    config = validate(OmegaConf.create(folder.read_config(path)))
    file, other = path / name, checkpoint.LAST if name == checkpoint.BEST else checkpoint.BEST
    remedy = f"; try --checkpoint {other.removesuffix('.pt')}"
    if not file.exists():
        instead = remedy if (path / other).exists() else ""
        raise ConfigError(f"{file}: does not exist; the run has not saved it yet{instead}")
    try:
        return config, checkpoint.read(file)
    except checkpoint.Damaged as error:
        raise ConfigError(f"{error}{remedy}") from error


def load_net(config: Config, payload: dict[str, Any]) -> tuple[nn.Module, nn.Module]:
    """Returns the net and the fitted preprocessing of a checkpoint. Raises ConfigError if it belongs to another net."""
    regularizations = [tip() for tip in config.tips["regularization"]]
    model = build_model(config, tuple(payload["input_shape"]), len(payload["classes"]), regularizations)
    preprocess = restore(payload["preprocessing"])
    if payload.get("plan") is not None:  # the net as fine-tuning has changed it
        plan = plans.read_plan(payload["plan"], payload["model"], len(payload["classes"]))
        model = plans.with_replaced_head(model, plan.top)
    try:
        model.load_state_dict(payload["model"])
    except (KeyError, TypeError, RuntimeError) as error:
        raise ConfigError(
            f"the checkpoint's net is another one than the config's: {str(error).splitlines()[0]}"
        ) from error
    return model, preprocess
