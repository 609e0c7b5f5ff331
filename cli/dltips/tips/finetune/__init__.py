"""Fine-tuning strategies: `(net, *, knobs) -> FinetunePlan`: which stages train, at which rate, from which epoch."""

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
