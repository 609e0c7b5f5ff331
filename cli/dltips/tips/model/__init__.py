"""Models: `(input_shape, num_classes, activation, *, knobs) -> nn.Module`, whose children are its named stages."""

from dltips.tips.model.airbench import airbench
from dltips.tips.model.blocks import Activation, block, model
from dltips.tips.model.cnn import cnn
from dltips.tips.model.mlp import mlp

__all__ = ["Activation", "airbench", "block", "cnn", "mlp", "model"]
