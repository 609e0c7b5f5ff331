"""Fine-tuning strategies: `(subject, *, knobs) -> Plan`: what trains, at which rate, from when."""

from dltips.tips.finetune.base import Common, Features, Phase, Plan, Subject, Top, finetune

__all__ = ["Common", "Features", "Phase", "Plan", "Subject", "Top", "finetune"]
