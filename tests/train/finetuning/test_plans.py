"""A plan is what the strategy makes of the net, and a checkpoint gives it back."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dltips.config.composition import compose
from dltips.config.validation import validate
from dltips.main import main
from dltips.train.build import Run, build_run
from dltips.train.fit import fit
from dltips.use import trained_net

QUIET = ["device=cpu", "log.tensorboard=false", "log.pictures=none", "data.subset=120", "batch_size=20"]


NET = ["model=cnn", "model.widths=[4,6,8]", "model.depth=1"]


SOURCE = [*QUIET, *NET, "epochs=2", "data.only_classes=[0,1,2,3,4]"]


TARGET = [*QUIET, *NET, "epochs=2", "data.only_classes=[5,6,7,8,9]", "optimizer.lr=0.05"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cnn with batch norm, trained on five of the digits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("source"))
        assert main(["train", *SOURCE]) == 0
        (folder,) = Path("outputs").iterdir()
        return folder.absolute()


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def ready(source: Path, *overrides: str) -> Run:
    composed, _ = compose([*TARGET, f"finetune.source={source}", *overrides])
    return build_run(validate(composed))


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


def stored(source: Path, name: str = "best.pt") -> dict[str, Tensor]:
    model: dict[str, Tensor] = torch.load(source / name, weights_only=True)["model"]
    return model


def test_what_auto_leaves_out_is_left_out(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it chooses the machine: the run is that without augmentation and balance, to the bit."""
    monkeypatch.setattr("dltips.tips.finetune.auto.similarity", lambda *_: (False, []))
    runs = [ready(source, "finetune=auto", *more) for more in ((), ("augmentation=crop", "data.balance=loss"))]
    said = r"auto: augmentation=crop and data\.balance=loss .*earlier_stage_svm"
    assert [any(re.match(said, note) for note in run.notes) for run in runs] == [False, True]
    ends = [fit(run).records[-1]["train/loss"] for run in runs]
    assert ends[0] == ends[1] and runs[1].plan.strategy == "earlier_stage_svm"
    assert changed(*(state(run.training.net.module) for run in runs)) == set()


def lines(folder: Path) -> list[dict[str, float]]:
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: line[key] for key in line if key not in ("seconds", "samples_per_second")} for line in found]


def train(*overrides: str) -> Path:
    before = set(Path("outputs").glob("*"))
    assert main(["train", *overrides]) == 0
    (folder,) = set(Path("outputs").glob("*")) - before
    return folder


RESUMED: Sequence[Sequence[str]] = (
    ("finetune=gradual", "finetune.every=1", "regularization=[ema]", "optimizer=adam", "optimizer.lr=0.003"),
    ("finetune=gradual", "finetune.every=2", "regularization=[lookahead,weight_decay]"),
    ("finetune=gradual", "finetune.every=1", "regularization=[swa,max_norm,gradient_noise,early_stopping]"),
    ("finetune=linear_probe", "augmentation=[crop]", "finetune.views=3"),
    ("finetune=top_layers", "finetune.n=1", "augmentation=[crop]", "finetune.freeze_norm=true"),
    ("finetune=earlier_stage_svm", "finetune.stage=stage2"),
    ("finetune=auto",),
)


@pytest.mark.parametrize("strategy", RESUMED, ids=lambda overrides: overrides[0])
def test_resumed_equals_uninterrupted_and_needs_the_source_no_more(
    source: Path, strategy: Sequence[str], tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("best.pt", "config.yaml"):
        (copy / name).write_bytes((source / name).read_bytes())
    options = [*TARGET, f"finetune.source={copy}", *strategy, "checkpoint.interval=0"]
    whole = train(*options, "epochs=4")
    part = train(*options, "epochs=2")
    for file in copy.iterdir():
        file.unlink()
    environment = json.loads((part / "environment.json").read_text())
    assert main(["train", f"resume={part}", "epochs=4"]) == 0
    assert changed(stored(whole, "last.pt"), stored(part, "last.pt")) == set()
    assert changed(stored(whole), stored(part)) == set()
    assert lines(whole) == lines(part)
    now = json.loads((part / "environment.json").read_text())
    assert all(now[name] == environment[name] for name in ("weights_hash", "threads", "feature_threads"))
    assert len(environment["weights_hash"]) == 16


@pytest.mark.parametrize(
    "strategy", ["linear_probe", "earlier_stage_svm", "earlier_stage_linear", "top_layers", "auto"]
)
def test_the_run_folder_alone_gives_the_net_back(source: Path, strategy: str) -> None:
    """evaluate and predict: the same validation accuracy, from the checkpoint, with nothing of the source."""
    folder = train(*TARGET, f"finetune.source={source}", f"finetune={strategy}")
    config, payload = trained_net.read(folder, "best.pt")
    net = trained_net.load(config, payload, "cpu")
    run = ready(source, f"finetune={strategy}")
    outputs, targets = net.outputs(run.splits.val)
    accuracy = float((outputs.argmax(1) == targets).double().mean())
    assert accuracy == pytest.approx(payload["metrics"]["val/accuracy"])
    assert main(["evaluate", str(folder)]) == 0
