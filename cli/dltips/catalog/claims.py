"""The tips and claims of the four articles that dltips started from, each with the switch that tests it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

# The letters by which cards cite them.
SOURCES = {
    "K": "Must Know Tips for Deep Learning Neural Networks",
    "S": "a study note on Must Know Tips",
    "B": "The Black Magic of Deep Learning (2017)",
    "T": "Tips and Tricks for Deep Learning (2020)",
}


@dataclass(frozen=True)
class ArticleTip:
    """One tip or claim. `overrides` select a run that has it, or the grid that compares; empty where a verb answers."""

    id: str
    letters: str  # of SOURCES: "ST"
    switch: str
    says: str
    overrides: tuple[str, ...]
    later: bool = False  # no switch exists yet

    @property
    def state(self) -> str:
        return "not yet" if self.later else "available"

    @property
    def command(self) -> str:
        """Returns the command to type; "" if there is none yet."""
        if self.later:
            return ""
        if not self.overrides:
            return self.switch if self.switch.startswith("dltips") else ""
        grid = "-m " if any(SEVERAL.match(override) for override in self.overrides) else ""
        return f"dltips train {grid}+recipe=quickstart {shlex.join(self.overrides)}"


# a=1,2 and a=[1],[2] and a=range(3), but not a=[1,2]
SEVERAL = re.compile(r"[^=]+=(?:range\(.*|(?:\[[^\]]*\]|[^,\[\]]*),.*)$")


def cited(text: str) -> dict[str, str]:
    """Returns the articles whose letters a card's source names: `tips K, S and T; He et al. 2015`."""
    letters = {letter for part in re.findall(r"\btips? ([A-Z](?:(?:, | and )[A-Z]\b)*)", text) for letter in part}
    return {letter: title for letter, title in SOURCES.items() if letter in letters}


def row(name: str) -> ArticleTip | None:
    """Returns the row with this id."""
    return next((row for row in ROWS if row.id == name), None)


def _tip(name: str, source: str, switch: str, says: str, *overrides: str, later: bool = False) -> ArticleTip:
    """A tip: its switch is its run, unless overrides give more: a model that has the knob, a value to compare with."""
    verb = switch.startswith("dltips") or later
    return ArticleTip(name, source, switch, says, overrides or (() if verb else (switch,)), later)


def _claim(name: str, source: str, says: str, *overrides: str, later: bool = False) -> ArticleTip:
    """A claim: its switch is the comparison that would settle it."""
    return ArticleTip(name, source, shlex.join(overrides), says, overrides, later)


RUN = "finetune.source=RUN"  # stands for a folder of the reader's own

TABLE: Mapping[str, tuple[ArticleTip, ...]] = {
    "data, pre-processing": (
        _tip("whiten_expand", "B", "augmentation=whiten", "whitened copies of the images as more data"),
        _tip("shuffle", "B", "data.shuffle", "a new order in every epoch", "data.shuffle=true"),
        _tip("flip", "ST", "augmentation=flip", "mirror images left to right"),
        _tip("crop", "ST", "augmentation=crop", "pad, then cut at a random place"),
        _tip("color_jitter", "SBT", "augmentation=color_jitter", "shift brightness, contrast, saturation and hue"),
        _tip("contrast", "T", "augmentation=contrast", "shift contrast alone"),
        _tip("rotate", "BT", "augmentation=rotate", "rotate by a few degrees"),
        _tip("noise", "BT", "augmentation=noise", "add noise"),
        _tip("blur", "B", "augmentation=blur", "blur"),
        _tip("drop_pixels", "B", "augmentation=drop_pixels", "black out single pixels"),
        _tip("fancy_pca", "S", "augmentation=fancy_pca", "AlexNet's lighting, along the colours' principal axes"),
        _tip(
            "on_the_fly",
            "B",
            "augmentation.*",
            "draw anew per sample and step, so that no sample comes twice",
            "augmentation=[flip,crop]",
        ),
        _tip(
            "over_expansion",
            "B",
            "data.expand",
            "frozen copies help less and less",
            "augmentation=crop",
            "data.expand=4",
        ),
        _tip(
            "audio",
            "B",
            "augmentation=[time_shift,distort]",
            "shift and distort recordings",
            "data=spoken_digits",
            "model=audio_cnn",
            "augmentation=[time_shift,distort]",
        ),
        _tip("standardize", "SB", "preprocessing=standardize", "mean 0 and standard deviation 1"),
        _tip("pca_whiten", "S", "preprocessing=pca_whiten", "rotate to the principal axes, divide by their spread"),
        _tip("minus_one_one", "B", "preprocessing=minus_one_one", "squeeze to [-1, 1] and leave the mean"),
        _tip("min_max", "T", "preprocessing=min_max", "scale to [0, 1]"),
        _tip("robust", "B", "preprocessing=robust", "clip the lowest and the highest 5 %, then standardize"),
        _tip("raw", "T", "preprocessing=none", "raw values: the control of the other five"),
    ),
    "initialization": (
        _tip("zeros", "KST", "init=zeros", "with all weights 0 the units of a layer stay the same"),
        _tip(
            "too_large",
            "T",
            "init.scale",
            "too large explodes, too small dies away",
            "model.norm=none",
            "init.scale=100",
        ),
        _tip("small_random", "KS", "init=small_random", "0.001 N(0, 1): enough for a shallow net"),
        _tip("calibrated", "KS", "init=calibrated", "N(0, 1) / sqrt(fan_in): the variance stays 1 without ReLU"),
        _tip("he", "KST", "init=he", "N(0, 1) sqrt(2 / fan_in): for deep nets of ReLUs"),
        _tip("xavier", "BT", "init=xavier", "variance 2 / (fan_in + fan_out): for sigmoid and tanh"),
        _tip(
            "xavier_fc_gaussian_conv",
            "B",
            "init=xavier_fc_gaussian_conv",
            "Xavier for large dense layers alone, a plain Gaussian for convolutions",
            "model=cnn",
            "init=xavier_fc_gaussian_conv",
        ),
        _tip("transfer", "KST", "finetune.*", "start from the weights of a trained net", "finetune=full", RUN),
        _tip("variance_check", "KS", "dltips check", "look at each layer's variance before training", later=True),
    ),
    "architecture": (
        _tip(
            "power_of_two",
            "K",
            "data.image_size",
            "powers of two, or what halves cleanly: 32, 64, 224, 384, 512",
            "model=cnn",
            "data.image_size=32",
        ),
        _tip("small_filters", "K", "model.kernel_size=3", "3x3, stride 1, padded", "model=cnn", "model.kernel_size=3"),
        _tip("pool", "KB", "model.pool=max2", "2x2 max pooling", "model=cnn", "model.pool=max2"),
        _tip(
            "no_lrn", "B", "model.norm=lrn", "slow; batch norm and max pooling do better", "model=cnn", "model.norm=lrn"
        ),
        _tip(
            "activation_after_pool",
            "B",
            "model.activation_after_pool=true",
            "the same result for less work, if the activation is monotonic",
            "model=cnn",
            "model.activation_after_pool=true",
        ),
        _tip(
            "conv1x1",
            "B",
            "model=squeezenet",
            "1x1 convolutions where they will do",
            "model=squeezenet",
            "data.image_size=32",
        ),
        _tip(
            "small_model",
            "B",
            "model=squeezenet",
            "small nets are easy to ship; every run states its MB",
            "model=squeezenet",
            "data.image_size=32",
        ),
        _tip("fully_conv", "B", "model=cnn", "convolutions from end to end, global pooling as the head"),
        _tip("batch_norm", "BT", "model.norm=batch", "normalize each mini-batch, layer by layer"),
        _tip(
            "parameterize", "B", "FAMILY.KNOB=VALUE", "every setting of a layer is a parameter", "model.widths=[64,32]"
        ),
    ),
    "activations": (
        _tip("sigmoid", "SB", "activation=sigmoid", "saturates, and its outputs are not centred"),
        _tip("tanh", "SB", "activation=tanh", "saturates, but is centred"),
        _tip("relu", "SBT", "activation=relu", "cheap and sparse; units can die"),
        _tip("leaky_relu", "S", "activation=leaky_relu", "a small negative slope: no dead units"),
        _tip("prelu", "SB", "activation=prelu", "a learned slope, from 0.1 or 0.25"),
        _tip("rrelu", "S", "activation=rrelu", "a random slope in training, its mean in use"),
        _tip("elu", "B", "activation=elu", "good, and dearer"),
    ),
    "training": (
        _tip("lr_start", "K", "optimizer.lr=0.1", "a first learning rate for sgd"),
        _tip(
            "mean_gradient",
            "K",
            "optimizer.reduction=mean",
            "gradients divided by the batch's size: a new size needs no new rate",
        ),
        _tip("lr_by_validation", "K", "dltips lr", "choose the learning rate on the validation split", later=True),
        _tip("plateau", "KS", "schedule=plateau", "halve the rate when the validation score stands still"),
        _tip(
            "momentum",
            "T",
            "optimizer=sgd",
            "momentum 0.9 speeds up plain descent",
            "optimizer=sgd",
            "optimizer.momentum=0.9",
        ),
        _tip("adagrad", "T", "optimizer=adagrad", "a rate per weight, from all gradients so far"),
        _tip("rmsprop", "T", "optimizer=rmsprop", "a rate per weight, from the latest gradients"),
        _tip("adam", "T", "optimizer=adam", "a rate per weight, with momentum"),
        _tip("overfit_subset", "B", "dltips check", "can the net learn a handful of samples by heart?", later=True),
        _tip("gpu", "B", "device=auto", "a GPU where there is one"),
    ),
    "regularization": (
        _tip("l2", "S", "regularization=l2", "diffuse weights rather than peaks"),
        _tip("l1", "S", "regularization=l1", "many weights near 0: chooses features"),
        _tip("max_norm", "S", "regularization=max_norm", "a bound on each unit's weights"),
        _tip("dropout", "SBT", "regularization=dropout", "drop 20 to 50 % of wide layers' outputs"),
        _tip("mc_dropout", "B", "dltips predict", "dropout at test time tells how sure the net is", later=True),
        _tip("early_stopping", "T", "regularization=early_stopping", "stop when the validation error rises"),
    ),
    "fine-tuning": (
        _tip(
            "linear_probe",
            "KST",
            "finetune=linear_probe",
            "few data, similar: the classifier alone",
            "finetune=linear_probe",
            RUN,
        ),
        _tip(
            "top_layers",
            "KST",
            "finetune=top_layers",
            "many data, similar: the top layers, slowly",
            "finetune=top_layers",
            RUN,
        ),
        _tip(
            "most_layers",
            "KS",
            "finetune=most_layers",
            "many data, different: most layers, slowly",
            "finetune=most_layers",
            RUN,
        ),
        _tip("full", "T", "finetune=full", "many data: nearly all layers, from trained weights", "finetune=full", RUN),
        _tip(
            "earlier_stage_svm",
            "KS",
            "finetune=earlier_stage_svm, finetune=earlier_stage_linear",
            "few data, different: a linear classifier on an earlier stage",
            "finetune=earlier_stage_svm,earlier_stage_linear",
            RUN,
        ),
        _tip("auto", "KS", "finetune=auto", "choose by the data's number and similarity", "finetune=auto", RUN),
        _tip(
            "keep_first_layers",
            "T",
            "finetune.freeze_first",
            "leave the first, general layers alone",
            "finetune=most_layers",
            "finetune.freeze_first=2",
            RUN,
        ),
    ),
    "reading the curves, ensembles": (
        _tip("loss_shape", "S", "dltips diagnose", "a rate too low or too high, seen in the loss", later=True),
        _tip("accuracy_gap", "S", "dltips diagnose", "more regularization, or more capacity", later=True),
        _tip("ensemble_inits", "SB", "dltips ensemble", "one net from several initializations", later=True),
        _tip("ensemble_cv", "S", "dltips ensemble", "the best nets of a cross-validation", later=True),
        _tip("ensemble_checkpoints", "S", "dltips ensemble", "several checkpoints of one run", later=True),
        _tip("late_fusion", "S", "dltips ensemble", "fuse scores", later=True),
        _tip("early_fusion", "S", "dltips ensemble", "fuse features, train one classifier on them", later=True),
    ),
    "claims to settle": (
        _claim(
            "half_positive",
            "K",
            "half of the trained weights are positive",
            "preprocessing=none,standardize",
            "log.histograms=true",
        ),
        _claim(
            "random_is_enough",
            "T",
            "plain random weights usually work",
            "model.norm=none",
            "init=small_random,default,he",
            "seed=range(10)",
        ),
        _claim(
            "xavier_needs_width",
            "B",
            "Xavier needs wide layers",
            "model.norm=none",
            "init=xavier,he",
            "model.widths=[16,16],[512,512]",
        ),
        _claim(
            "gaussian_conv_always",
            "B",
            "a plain Gaussian on convolutions always converges, Xavier at times",
            "model=cnn",
            "model.norm=none",
            "init=small_random,xavier",
            "seed=range(10)",
        ),
        _claim(
            "deep_needs_he",
            "B",
            "deep VGG nets need He or Xavier, not a plain Gaussian",
            "model=vgg",
            "data.image_size=32",
            "model.norm=none",
            "init=small_random,xavier,he",
        ),
        _claim(
            "prelu_finetune",
            "B",
            "PReLU from 0.1 moves where ReLU is stuck in fine-tuning",
            "finetune=top_layers",
            "activation=relu,prelu",
            RUN,
        ),
        _claim("bn_less_data", "B", "batch norm needs less data", "model.norm=none,batch", "data.subset=200,1000"),
        _claim(
            "bn_frees_init",
            "T",
            "with batch norm the initialization does not matter",
            "model.norm=none,batch",
            "init=small_random,xavier,he",
        ),
        _claim(
            "bn_frees_rate",
            "T",
            "with batch norm higher rates work",
            "model.norm=none,batch",
            "optimizer.lr=0.01,0.1,1",
        ),
        _claim(
            "init_decides",
            "T",
            "initialization decides how fast, how well and whether a net converges",
            "model.norm=none",
            "init=zeros,small_random,calibrated,xavier,he",
        ),
        _claim("normalize_anyway", "B", "normalize even what lies in (-3, 3)", "preprocessing=none,standardize"),
        _claim("tails_cost", "B", "cutting the tails off costs accuracy", "preprocessing=standardize,robust"),
        _claim("gru_lstm", "B", "a GRU trains faster than an LSTM", "data=spoken_digits", "model=gru,lstm"),
        _claim(
            "skip_kfold",
            "B",
            "strong augmentation and dropout make up for k-fold",
            "augmentation=none,crop",
            "regularization=none,dropout",
            "data.split_seed=range(5)",
        ),
        _claim("dl_not_always", "B", "with few data a simpler model can win", "model=svm,cnn", "data.subset=100,1000"),
        _claim(
            "adam_everywhere", "T", "RMSProp and Adam suit many nets", "optimizer=sgd,rmsprop,adam", "model=mlp,cnn"
        ),
        _claim(
            "early_at_once",
            "T",
            "stop as soon as the validation error rises",
            "regularization=early_stopping",
            "regularization.early_stopping.patience=1,10",
            "schedule=constant,plateau",
        ),
        _claim("dropout_always", "B", "always use dropout", "model.norm=none,batch", "regularization=none,dropout"),
        _claim("relu_sparse", "B", "ReLU and PReLU give sparse activations", "activation=sigmoid,tanh,relu,prelu"),
        _claim(
            "large_batch_rate",
            "K",
            "with mean gradients one rate serves batches of 16 to 256",
            "optimizer.reduction=mean,sum",
            "batch_size=16,64,256",
        ),
        _claim("grow_deeper", "B", "very deep VGG nets start from a shallower one's trained weights", later=True),
        _claim(
            "xavier_new_layers",
            "B",
            "Xavier suits the one or two layers that fine-tuning draws anew",
            "finetune=full",
            "init=small_random,xavier,he",
            RUN,
        ),
        _claim(
            "small_net_xavier",
            "B",
            "Xavier suits smaller models",
            "model=squeezenet",
            "data.image_size=32",
            "model.norm=none",
            "model.width=0.25,1",
            "init=small_random,xavier,he",
        ),
        _claim(
            "squeezenet_with_tips",
            "B",
            "SqueezeNet gains from PReLU, batch norm and dropout",
            "model=squeezenet",
            "data.image_size=32",
            "model.norm=none,batch",
            "activation=relu,prelu",
            "regularization=none,dropout",
        ),
        _claim(
            "per_megabyte",
            "B",
            "a smaller net is worth a little accuracy",
            "model=squeezenet,cnn,vgg",
            "data.image_size=32",
        ),
        _claim("gpu_needed", "B", "nothing can be trained without a good GPU", "model=cnn", "device=cpu,auto"),
        _claim("interpretable", "B", "what a prediction rests on cannot be seen", later=True),
        _claim(
            "covariate_shift",
            "T",
            "batch norm steadies each layer's mean and variance over the epochs",
            "model.norm=none,batch",
            "log.layers=true",
        ),
        _claim(
            "steadier",
            "T",
            "early stopping and dropout make results over seeds vary less",
            "regularization=none,dropout,early_stopping",
            "seed=range(10)",
        ),
        _claim("transfer_saves_time", "T", "trained weights reach a score in less time", later=True),
        _claim("dropout_features", "T", "dropout changes what the first layer learns", later=True),
        _claim("asymmetry", "T", "random weights do not guarantee that a layer's units differ", later=True),
        _claim(
            "draw_shape",
            "B",
            "the shape of the draw matters for convolutions",
            "model=cnn",
            "model.norm=none",
            "init=small_random,calibrated",
            "init.distribution=normal,uniform",
        ),
    ),
}

ROWS = tuple(row for section in TABLE.values() for row in section)
