"""Fine-tuning strategies: `(subject, *, knobs) -> Plan`: what trains, at which rate, from when."""

from dltips.tips.finetune.base import (
    Features,
    FinetuneKnobs,
    FinetunePlan,
    Phase,
    PretrainedNet,
    ReplacedHead,
    finetune,
)

__all__ = ["Features", "FinetuneKnobs", "FinetunePlan", "Phase", "PretrainedNet", "ReplacedHead", "finetune"]
