"""Snapshots a training's complete state between two epochs; saved as a checkpoint and restored bit by bit."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from dltips.errors import ConfigError
from dltips.nets.flat import FlatModel
from dltips.tips.regularization import Regularization
from dltips.train.loop import Training

FORMAT = 2


@dataclass
class Weights:
    """A copy of a net's parameters (flat) and of everything else in its state dict that may change."""

    flat: Tensor
    others: dict[str, Tensor]

    @classmethod
    def of(cls, net: FlatModel) -> Weights:
        excluded = {segment.name for segment in net.segments} | net.constant
        others = {name: value.clone() for name, value in _state(net.module).items() if name not in excluded}
        return cls(net.parameters.clone(), others)

    def put_back(self, net: FlatModel) -> None:
        net.parameters.copy_(self.flat)
        current = _state(net.module)
        for name, value in self.others.items():
            current[name].copy_(value)

    @classmethod
    def from_named(cls, named: Mapping[str, Tensor], net: FlatModel) -> Weights:
        """Makes a copy from a state dict with everything that may change."""
        weights = cls.of(net)
        weights.flat.zero_()
        for segment, view in net.views(weights.flat):
            view.copy_(named[segment.name])
        for name in weights.others:
            weights.others[name].copy_(named[name])
        return weights

    def named(self, net: FlatModel) -> dict[str, Tensor]:
        """Returns a state dict of separate tensors: a view of the flat buffer would be saved with all of it."""
        trained = {segment.name: view.clone() for segment, view in net.views(self.flat)}
        return {name: trained.get(name, self.others.get(name, value)) for name, value in _state(net.module).items()}


def _state(module: nn.Module) -> dict[str, Tensor]:
    state: dict[str, Tensor] = module.state_dict()
    return state


@dataclass
class Best:
    """The best epoch so far, by the deciding metric."""

    metrics: dict[str, float]
    weights: Weights


@dataclass
class Snapshot:
    """Everything that the next epoch depends on, and the best epoch so far."""

    epoch: int  # completed epochs
    seconds: float
    weights: Weights
    optimizer: dict[str, Tensor]
    schedule: dict[str, float]
    regularizations: list[dict[str, Any]] = field(default_factory=list)
    best: Best | None = None
    stopped: bool = False  # a hook has declared this epoch the last

    @classmethod
    def take(
        cls,
        training: Training,
        regularizations: Sequence[Regularization],
        epoch: int,
        seconds: float,
        best: Best | None,
        *,
        stopped: bool = False,
    ) -> Snapshot:
        return cls(
            epoch,
            seconds,
            Weights.of(training.net),
            {name: value.clone() for name, value in training.optimizer.state.items()},
            dict(training.schedule.state),
            [_copied(part.state) for part in regularizations],
            best,
            stopped,
        )

    def put_back(self, training: Training, regularizations: Sequence[Regularization]) -> None:
        """Restores the training to the state of the snapshot."""
        self.weights.put_back(training.net)
        for name, value in self.optimizer.items():
            training.optimizer.state[name].copy_(value)
        training.schedule.state.update(self.schedule)
        for part, state in zip(regularizations, self.regularizations, strict=True):
            part.state.clear()
            part.state.update(_copied(state))

    def payload(self, training: Training) -> dict[str, Any]:
        """Returns plain tensors, numbers and texts, which torch.load reads with weights_only=True."""
        net = training.net
        return {
            "format": FORMAT,
            "epoch": self.epoch,
            "seconds": self.seconds,
            "model": self.weights.named(net),
            "optimizer": self.optimizer,
            "schedule": self.schedule,
            "regularizations": self.regularizations,
            "stopped": self.stopped,
            "best": None
            if self.best is None
            else {
                "metrics": self.best.metrics,
                "model": self.best.weights.named(net),
            },
        }

    @classmethod
    def from_payload(cls, payload: Mapping[str, Any], training: Training) -> Snapshot:
        """Returns the snapshot. Raises ConfigError if it belongs to another net or another version's format."""
        if payload.get("format") != FORMAT:
            raise ConfigError(
                f"resume: the checkpoint has format {payload.get('format')!r}, this dltips reads {FORMAT}"
            )
        device = training.device
        best = payload["best"]
        state = {name: value.shape for name, value in training.optimizer.state.items()}
        if {name: value.shape for name, value in payload["optimizer"].items()} != state:
            raise ConfigError("resume: the checkpoint's optimizer is of other parameters than those that train here")
        return cls(
            payload["epoch"],
            payload["seconds"],
            _weights(payload["model"], training.net),
            {name: value.to(training.optimizer.state[name].device) for name, value in payload["optimizer"].items()},
            dict(payload["schedule"]),
            [_to(state, device) for state in payload["regularizations"]],
            None if best is None else Best(dict(best["metrics"]), _weights(best["model"], training.net)),
            bool(payload["stopped"]),
        )


def _weights(named: Mapping[str, Tensor], net: FlatModel) -> Weights:
    current = _state(net.module)
    if set(named) != set(current) or any(named[name].shape != current[name].shape for name in current):
        raise ConfigError("resume: the checkpoint's net is another one than the config's")
    return Weights.from_named(named, net)


def _copied(state: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value.clone() if isinstance(value, Tensor) else copy.copy(value) for name, value in state.items()}


def _to(state: Mapping[str, Any], device: Any) -> dict[str, Any]:
    return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in state.items()}
