"""Takes over a trained net's weights, and the form of the inputs that they were trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import nn

from dltips.config.validation import Config
from dltips.errors import ConfigError
from dltips.feed.load import RequiredInputs
from dltips.formatting import few
from dltips.nets import stages
from dltips.tips.finetune import FinetunePlan
from dltips.train import model_contract
from dltips.train.resumed import Resumed

if TYPE_CHECKING:
    from dltips.weights.match import Loaded
    from dltips.weights.source import Pretrained


def find(config: Config) -> Pretrained | None:
    """Returns the weights that the run starts from, or None without fine-tuning. Raises ConfigError."""
    strategy, common = config.tip("finetune").name, config.common["finetune"]()
    if strategy == "none":
        for key in ("source", "file"):
            if getattr(common, key) is not None:
                raise ConfigError(
                    f"finetune.{key}: {getattr(common, key)} is given, but finetune=none trains from scratch; choose"
                    " a strategy, such as finetune=linear_probe (dltips ls finetune)"
                )
        return None
    if common.source is None:
        raise ConfigError(
            f"finetune.source: is missing; finetune={strategy} starts from trained weights: give a run folder,"
            " timm:NAME or a weights file, or write finetune=none"
        )
    model_contract.refuse(
        config,
        "preprocessing",
        f"finetune={strategy}: the inputs are prepared as the weights want; a bare file takes finetune.mean and .std",
    )
    from dltips.weights.match import refuse_foreign
    from dltips.weights.source import find as find_source

    pretrained = find_source(config)
    refuse_foreign(pretrained, config.tip("model"), common)
    return pretrained


def wanted(config: Config, pretrained: Pretrained | None, resumed: Resumed | None) -> RequiredInputs | None:
    """Returns the required form of the inputs; None: unchanged."""
    if resumed is not None and config.tip("finetune").name != "none":
        return RequiredInputs(None, None, resumed.input_shape)
    if pretrained is None:
        return None
    return RequiredInputs(pretrained.channels, pretrained.sides, pretrained.shape)


def load_weights(pretrained: Pretrained, model: nn.Module, config: Config) -> Loaded:
    """Loads the weights into the net, except for its head. Raises ConfigError."""
    from dltips.weights.match import load_into

    return load_into(pretrained, model, config.tip("model"), config.common["finetune"]())


def check_missing(
    origin: str, missing: Sequence[str], model: nn.Module, plan: FinetunePlan, *, freeze_norm: bool
) -> None:
    """Raises ConfigError if a frozen stage lacks some of its weights, which would stay random.

    With freeze_norm the statistics of batch norm are frozen everywhere.
    """
    trained = set(plan.phases[0].rates)
    names = [stage.name for stage in stages.stages_of(model)]
    names_before_top = names if plan.top is None else names[: names.index(plan.top.stage) + 1]
    frozen_stages = [
        stage for stage in stages.stages_of(model) if stage.name in names_before_top and stage.name not in trained
    ]
    frozen = {name for stage in frozen_stages for name in stages.tensors_of(model, stage)}
    if freeze_norm:
        frozen |= {name for name, _ in model.named_buffers()}
    random = sorted(frozen & set(missing))
    if random:
        raise ConfigError(
            f"finetune.source: {origin} has no {few(random)} of this shape, and finetune={plan.strategy}"
            f"{' with freeze_norm' if freeze_norm else ''} would leave that random; take finetune=full, inputs of the"
            " size that the weights were made for, or fix finetune.keys"
        )
