"""Features that are computed once train the head as the whole net would."""

import re
from pathlib import Path

import pytest
import torch

from dltips.config.composition import compose
from dltips.config.validation import validate
from dltips.main import main
from dltips.train.build import Run, build_run
from dltips.train.fit import fit

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


@pytest.mark.parametrize("strategy", ["linear_probe", "earlier_stage_svm", "earlier_stage_linear", "auto"])
def test_features_that_are_not_finite_are_refused(
    source: Path, strategy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.yaml").write_bytes((source / "config.yaml").read_bytes())
    payload = torch.load(source / "best.pt", weights_only=True)
    payload["model"]["stage2.conv1.norm.running_var"].fill_(-1.0)
    torch.save(payload, broken / "best.pt")
    assert main(["train", *TARGET, f"finetune.source={broken}", f"finetune={strategy}"]) == 2
    error = capsys.readouterr().err
    assert re.match(r"dltips: finetune\.source: .*not finite .*take others$", error.rstrip("\n"))
    assert error.count("\n") == 1 and not list(Path("outputs").glob("*"))


def train(*overrides: str) -> Path:
    before = set(Path("outputs").glob("*"))
    assert main(["train", *overrides]) == 0
    (folder,) = set(Path("outputs").glob("*")) - before
    return folder


def test_kept_features_train_the_head_as_the_whole_net_would(source: Path) -> None:
    """Without augmentation: the same weights up to rounding, whether features are kept or computed at each step."""
    heads = []
    for views in (1, 0):
        run = ready(source, "finetune=linear_probe", f"finetune.views={views}", "epochs=4")
        assert (run.training.inputs.model is run.training.net.module) == (views == 0)
        fit(run)
        heads.append(run.training.net.parameters)
    torch.testing.assert_close(heads[0], heads[1], atol=1e-5, rtol=1e-4)


def test_each_view_is_what_an_epoch_without_kept_features_would_draw(source: Path) -> None:
    run = ready(source, "finetune=linear_probe", "finetune.views=3", "augmentation=crop", "data.shuffle=false")
    assert run.training.inputs.train.prepared is not None
    features = run.training.inputs.train.prepared.inputs
    count = len(run.splits.train)
    assert len(features) == 3 * count
    first, second = features[:count], features[count : 2 * count]
    assert not torch.equal(first, second)
    orders = [run.training.inputs.order(epoch) for epoch in range(50)]
    drawn = torch.stack([order // count for order in orders])
    assert all(torch.equal(order % count, torch.arange(count)) for order in orders)
    assert drawn.unique().tolist() == [0, 1, 2]
    assert torch.bincount(drawn.flatten()).float().div(drawn.numel()).sub(1 / 3).abs().max() < 0.03
