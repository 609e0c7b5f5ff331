"""A trained net from its run folder gives the numbers of training."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from dltips.errors import ConfigError
from dltips.feed.splits import Split, split
from dltips.runs import checkpoint
from dltips.tips.data.reading import read_samples
from dltips.train import device
from dltips.train.build import build_run
from dltips.train.loop import predictions
from dltips.use import trained_net


def save_images(images: Tensor, into: Path) -> Path:
    into.mkdir(parents=True)
    for number, image in enumerate(images):
        Image.fromarray(image.squeeze(0).numpy()).save(into / f"{number:04}.png")
    return into


def test_pictures_of_the_validation_samples_get_the_bits_that_validation_saw(run: str) -> None:
    config, payload = trained_net.read(Path(run), checkpoint.LAST)
    val = split(config.tip("data")(), config.common["data"]()).val.taken()
    samples, names = read_samples(json.loads(payload["reader"]), (1, 8, 8), save_images(val.inputs, Path("images")))
    assert torch.equal(samples, val.inputs) and len(names) == len(val) == 180
    outputs, _ = trained_net.load(config, payload, "cpu").outputs(Split(samples, torch.zeros(180, dtype=torch.int64)))

    again = build_run(config)
    training = again.training
    training.net.module.load_state_dict(payload["model"])
    with device.conditions(training.device, thread_count=again.threads.training, deterministic=False):
        seen = torch.cat(
            [part for part, _ in predictions(training.net.module, training.inputs.val, 32, training.autocast)]
        )
    assert torch.equal(outputs, seen)
    last = json.loads((Path(run) / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["val/accuracy"] == float((outputs.argmax(1) == val.targets).double().mean())
    assert last["val/loss"] == pytest.approx(float(torch.nn.functional.cross_entropy(outputs, val.targets)), rel=1e-6)


def test_the_other_checkpoint_is_the_remedy_where_it_is_there(run: str) -> None:
    (Path(run) / "best.pt").unlink()
    with pytest.raises(ConfigError, match=r"best\.pt: .*; try --checkpoint last$"):
        trained_net.read(Path(run), checkpoint.BEST)
    (Path(run) / "last.pt").unlink()
    with pytest.raises(ConfigError, match=r"best\.pt: ") as error:
        trained_net.read(Path(run), checkpoint.BEST)
    assert "--checkpoint" not in str(error.value)


def test_a_checkpoint_of_another_net_is_refused(run: str) -> None:
    file = Path(run) / "config.yaml"
    file.write_text(file.read_text().replace("  - 8\n", "  - 9\n"))
    config, payload = trained_net.read(Path(run), checkpoint.LAST)
    with pytest.raises(ConfigError, match="checkpoint's net"):
        trained_net.load_net(config, payload)
