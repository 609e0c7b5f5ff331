"""Models: `(input_shape, num_classes, activation, *, knobs) -> nn.Module`, whose children are its named stages."""

from dltips.nets.blocks import Activation, block, model
from dltips.tips.model.airbench import airbench
from dltips.tips.model.audio import audio_cnn
from dltips.tips.model.cnn import cnn
from dltips.tips.model.library import timm_net
from dltips.tips.model.mlp import mlp
from dltips.tips.model.mobilenet import mobilenet_v2
from dltips.tips.model.recurrent import gru, lstm
from dltips.tips.model.resnet import resnet
from dltips.tips.model.squeezenet import squeezenet
from dltips.tips.model.svm import svm
from dltips.tips.model.vgg import vgg

__all__ = [
    "Activation",
    "airbench",
    "audio_cnn",
    "block",
    "cnn",
    "gru",
    "lstm",
    "mlp",
    "mobilenet_v2",
    "model",
    "resnet",
    "squeezenet",
    "svm",
    "timm_net",
    "vgg",
]
