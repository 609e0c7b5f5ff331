"""Applies the freezing schedule: frozen stages are in eval mode, without gradients or optimizer state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from dltips.nets import stages
from dltips.tips.finetune import Phase


class FreezeSchedule:
    """The phases of a plan, bound to a net. Without phases everything always trains."""

    def __init__(self, model: nn.Module, phases: Sequence[Phase], *, freeze_norm: bool) -> None:
        self.model = model
        self.phases = phases
        self.modules: Mapping[str, Sequence[nn.Module]] = {}
        self.stage_of: Mapping[str, str] = {}  # parameter -> stage
        self.frozen_norms: Sequence[nn.Module] = ()
        if phases:
            all_stages = stages.stages_of(model)
            self.modules = {stage.name: stages.modules_of(model, stage) for stage in all_stages}
            self.stage_of = {name: stage.name for stage in all_stages for name in stages.tensors_of(model, stage)}
            if freeze_norm:
                head = all_stages[-1].name
                self.frozen_norms = [  # norm layers with running statistics
                    layer
                    for name, parts in self.modules.items()
                    for part in parts
                    for layer in part.modules()
                    if isinstance(layer, nn.modules.batchnorm._NormBase) and name != head
                ]

    def begins_phase(self, epoch: int) -> bool:
        """Returns whether a new phase begins with this epoch."""
        return any(phase.epoch == epoch for phase in self.phases)

    def rates(self, epoch: int) -> dict[str, float]:
        """Returns parameter -> factor of its learning rate in this epoch; frozen parameters are left out."""
        phase = self._phase(epoch)
        if phase is None:
            return {}
        return {name: phase.rates[stage] for name, stage in self.stage_of.items() if stage in phase.rates}

    def trained(self, epochs: int) -> set[str] | None:
        """Returns the parameters trained in the first so many epochs; None for all."""
        stages_then = {stage for phase in self.phases if phase.epoch < max(1, epochs) for stage in phase.rates}
        return {name for name, stage in self.stage_of.items() if stage in stages_then} if self.phases else None

    def trained_later(self, epoch: int) -> list[str]:
        """Returns the parameters that are frozen in this epoch and train in a later one."""
        phase = self._phase(epoch)
        coming = {stage for other in self.phases if other.epoch > epoch for stage in other.rates}
        return [name for name, stage in self.stage_of.items() if phase and stage in coming - set(phase.rates)]

    def freeze(self, epoch: int) -> list[nn.Module]:
        """Sets requires_grad for this epoch's stages only; returns the frozen modules."""
        phase = self._phase(epoch)
        if phase is None:
            return []
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(self.stage_of[name] in phase.rates)
        return self._frozen(set(phase.rates))

    def always_frozen(self) -> list[nn.Module]:
        """Returns the stages that are frozen in every epoch."""
        return self._frozen({stage for phase in self.phases for stage in phase.rates}) if self.phases else []

    def _frozen(self, training: set[str]) -> list[nn.Module]:
        return [
            *(part for name, parts in self.modules.items() if name not in training for part in parts),
            *self.frozen_norms,
        ]

    def _phase(self, epoch: int) -> Phase | None:
        begun = [phase for phase in self.phases if phase.epoch <= epoch]
        return max(begun, key=lambda phase: phase.epoch, default=None)
