"""dltips ls stages MODEL: a net's stages, by the names that fine-tuning takes."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dltips import paths
from dltips.catalog import source_reader
from dltips.catalog.registry import user_file
from dltips.commands.arguments import Parser
from dltips.errors import ConfigError, suggest
from dltips.exit_codes import EXIT_OK

if TYPE_CHECKING:
    from types import ModuleType

    from dltips.config.validation import Config

EPILOG = """\
examples:
  dltips ls stages resnet model.depth=18 model.stem=imagenet
  dltips ls stages cnn data=fashion_mnist
  dltips ls stages convnext_atto data.image_size=160
"""

# The sample shape without chosen data, and that of data sets which need not be read for it
SMALL, LARGE = (3, 32, 32), (3, 224, 224)
SHAPES = {"mlp": (1, 8, 8), "svm": (1, 8, 8), "cnn": SMALL, "airbench": SMALL} | dict.fromkeys(
    ("audio_cnn", "lstm", "gru"), (1, 8000)
)
DATA: dict[str, tuple[tuple[int, ...], int]] = {
    "digits": ((1, 8, 8), 10),
    "mnist": ((1, 28, 28), 10),
    "fashion_mnist": ((1, 28, 28), 10),
    "cifar10": (SMALL, 10),
    "cifar100": (SMALL, 100),
}
IMAGENET = 1000  # classes


def run(arguments: list[str]) -> int:
    parser = Parser(
        prog="dltips ls stages",
        description="A net's stages from stem to head: parameters, outputs, and the names that finetune takes.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "model", nargs="?", metavar="MODEL", help="an option of the model family, or an architecture of timm"
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="what dltips train would get")
    parser.add_argument("--json", action="store_true", help="for programs")
    chosen = parser.parse_intermixed_args(arguments)
    if chosen.model is None:
        raise ConfigError("ls stages: of which net? Write dltips ls stages resnet; `dltips ls model` lists them")
    for module in paths.user_modules():
        user_file(module)
    found = about(chosen.model, chosen.overrides)
    print(json.dumps(found, indent=2) if chosen.json else "\n".join(_lines(found)))
    return EXIT_OK


def about(model: str, overrides: Sequence[str]) -> dict[str, Any]:
    """Returns the net and its stages as plain data; trains and downloads nothing. Raises ConfigError."""
    choice = _choice(model)
    from dltips.config.composition import compose  # late: what follows imports torch
    from dltips.config.overrides import typed_keys
    from dltips.config.validation import validate

    typed = list(overrides)
    composed, _ = compose([*choice, *typed])
    config = validate(composed)
    shape, classes = _sample(config, typed_keys(typed))

    import torch

    from dltips.nets import stages
    from dltips.train.build import build_model

    net = build_model(config, shape, classes, ())
    with torch.inference_mode():
        outputs = stages.shapes(net.eval(), torch.zeros(1, *shape))
    sizes = {name: parameter.numel() for name, parameter in net.named_parameters()}
    total = sum(sizes.values())
    rows = []
    for stage in stages.stages_of(net):
        count = sum(sizes.get(name, 0) for name in stages.tensors_of(net, stage))
        output = outputs.get(stage.name)
        rows.append({"stage": stage.name, "parameters": count, "share": count / total, "output": output})
    return {
        "model": config.tip("model").knobs.get("architecture", config.tip("model").name),
        "override": choice,
        "input": shape,
        "classes": classes,
        "parameters": total,
        "in_order": list(outputs) == [row["stage"] for row in rows],
        "stages": rows,
    }


# The request


def _choice(model: str) -> list[str]:
    """Returns the overrides that choose the model. Raises ConfigError with the nearest name."""
    name = model.removeprefix("model=")
    options = source_reader.options("model")
    if name in options:
        return [f"model={name}"]
    timm = _timm()
    architectures = timm.list_models() if timm is not None else []
    # finetune.source=timm:NAME.TAG names the weights, too
    name = name.removeprefix("timm:").partition(".")[0]
    if name in architectures:
        return ["model=timm", f"model.architecture={name}"]
    more = f", and timm's {len(architectures)} architectures" if architectures else ""
    near = suggest(name, options) or suggest(name, [*options, *architectures])
    hint = near.or_else(f"{suggest('', options)}{more}")
    raise ConfigError(f"ls stages: {model!r} is not a model{hint}")


def _timm() -> ModuleType | None:
    try:
        import timm
    except ImportError:
        return None
    module: ModuleType = timm
    return module


def _sample(config: Config, typed: Sequence[str]) -> tuple[tuple[int, ...], int]:
    """Returns a sample's shape and the number of classes: those of the chosen data, or the net's usual ones."""
    data, common = config.tip("data"), config.common["data"]()
    shape, classes = _usual(config)
    if any(key in ("data", "recipe") or (key.startswith("data.") and key != "data.image_size") for key in typed):
        if data.name in DATA and "data.only_classes" not in typed:
            shape, classes = DATA[data.name]
        else:
            from dltips.feed.load import load

            source = load(data, common)
            shape, classes = tuple(source.inputs.shape[1:]), len(source.classes)
    if common.image_size is None:
        return shape, classes
    if len(shape) != 3:
        raise ConfigError(f"data.image_size: is for images, but a sample's shape is {shape}; leave it out")
    return (shape[0], common.image_size, common.image_size), classes


def _usual(config: Config) -> tuple[tuple[int, ...], int]:
    model = config.tip("model")
    architecture, timm = model.knobs.get("architecture"), _timm() if model.name == "timm" else None
    if timm is not None and architecture in timm.list_models():
        return tuple(timm.get_pretrained_cfg(architecture).input_size), IMAGENET
    shape = SMALL if model.knobs.get("stem") == "cifar" else SHAPES.get(model.name, LARGE)
    return shape, IMAGENET if shape == LARGE else 10


# The printed table


def _lines(found: dict[str, Any]) -> list[str]:
    rows = found["stages"]
    texts = [(row["stage"], f"{row['parameters']:,}", _percent(row["share"]), _sides(row["output"])) for row in rows]
    texts = [("stage", "parameters", "share", "output"), *texts]
    widths = [max(len(text[column]) for text in texts) for column in range(3)]
    parameters = f"{found['parameters']:,} parameter{'s' * (found['parameters'] != 1)}"
    lines = [f"{found['model']}: {parameters} for inputs {_sides(found['input'])}, {found['classes']} classes", ""]
    lines += [
        f"  {name:<{widths[0]}}  {count:>{widths[1]}}  {share:>{widths[2]}}  {output}"
        for name, count, share, output in texts
    ]
    if not found["in_order"]:
        lines += ["", "The net does not run through them one after the other: some cannot be the last to be kept."]
    body = [row["stage"] for row in rows[:-1]]
    if not body:
        return [*lines, "", "It is one stage: there is nothing to take over from another task."]
    count = min(2, len(body))
    earlier = body[-2] if len(body) > 1 else body[0]
    return [
        *lines,
        "",
        f"Train {', '.join(body[-count:])} and the head, and no other stage:",
        f"  finetune=top_layers finetune.n={count}",
        f"Fit a support vector machine to what {earlier} puts out:",
        f"  finetune=earlier_stage_svm finetune.stage={earlier}",
    ]


def _percent(share: float) -> str:
    return "<0.1 %" if 0 < share < 0.0005 else f"{100 * share:.1f} %"


def _sides(shape: Sequence[int] | None) -> str:
    return "-" if shape is None else "x".join(map(str, shape))
