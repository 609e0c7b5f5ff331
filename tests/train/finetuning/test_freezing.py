"""What trains changes, what is frozen stays to the bit, and each phase begins at its epoch."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dltips.config.composition import compose
from dltips.config.validation import validate
from dltips.main import main
from dltips.nets import stages
from dltips.train.build import Run, build_run
from dltips.train.fit import fit

QUIET = ["device=cpu", "log.tensorboard=false", "log.pictures=none", "data.subset=120", "batch_size=20"]


NET = ["model=cnn", "model.widths=[4,6,8]", "model.depth=1"]


SOURCE = [*QUIET, *NET, "epochs=2", "data.only_classes=[0,1,2,3,4]"]


TARGET = [*QUIET, *NET, "epochs=2", "data.only_classes=[5,6,7,8,9]", "optimizer.lr=0.05"]


TRAINS = {
    "full": {"stage1", "stage2", "stage3", "head"},
    "linear_probe": {"head"},
    "top_layers": {"stage2", "stage3", "head"},
    "most_layers": {"stage2", "stage3", "head"},
    "discriminative": {"stage1", "stage2", "stage3", "head"},
}


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


def stage_of(model: nn.Module) -> dict[str, str]:
    return {name: stage.name for stage in stages.stages_of(model) for name in stages.tensors_of(model, stage)}


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


def stored(source: Path, name: str = "best.pt") -> dict[str, Tensor]:
    model: dict[str, Tensor] = torch.load(source / name, weights_only=True)["model"]
    return model


@pytest.mark.parametrize("strategy", TRAINS)
def test_what_trains_changes_and_what_rests_stays_to_the_bit(source: Path, strategy: str) -> None:
    run = ready(source, f"finetune={strategy}", "augmentation=crop")
    net = run.training.net
    where, before = stage_of(net.module), state(net.module)
    assert changed({name: value for name, value in stored(source).items() if where[name] != "head"}, before) == set()
    assert {where[segment.name] for segment in net.segments} == TRAINS[strategy]
    assert fit(run).status == "finished"
    after = state(net.module)
    # of a stage that trains every tensor has moved, batch norm's statistics too
    assert changed(before, after) == {name for name in before if where[name] in TRAINS[strategy]}


@pytest.mark.parametrize("strategy", ["full", "top_layers", "most_layers", "gradual", "discriminative"])
def test_with_freeze_norm_no_statistic_moves_and_all_weights_still_train(source: Path, strategy: str) -> None:
    run = ready(source, f"finetune={strategy}", "finetune.freeze_norm=true")
    module = run.training.net.module
    before = state(module)
    fit(run)
    moved = changed(before, state(module))
    assert moved and not {name for name in moved if "running" in name or "batches" in name}
    assert any(name.endswith("norm.weight") for name in moved)


@pytest.mark.parametrize("strategy", ["linear_probe", "top_layers", "gradual"])
def test_what_rests_has_no_gradient_and_no_optimizer_state(source: Path, strategy: str) -> None:
    run = ready(source, f"finetune={strategy}", "optimizer=adam", "optimizer.lr=0.01")
    net = run.training.net
    fit(run)
    training = {segment.name for segment in net.segments}
    for name, parameter in net.module.named_parameters():
        assert parameter.requires_grad == (name in training)
        assert (parameter.grad is not None) == (name in training)
    # the moments are as long as what trains, and no longer
    moments = [value for value in run.training.optimizer.state.values() if value.dim() == 1 and len(value) > 1]
    assert moments and all(len(value) == len(net.parameters) for value in moments)
    assert net.count < sum(parameter.numel() for parameter in net.module.parameters())


def test_rates_are_what_the_strategy_says(source: Path) -> None:
    """Plain descent: a stage's first step is its rate times the gradient."""
    plain = ["optimizer.momentum=0", "epochs=1", "batch_size=120", "data.shuffle=false"]
    steps = {}
    for strategy in (["finetune=full", "finetune.rate=1"], ["finetune=discriminative", "finetune.decay=0.5"]):
        run = ready(source, *strategy, *plain)
        module = run.training.net.module
        before = state(module)
        fit(run)
        after = state(module)
        steps[strategy[0]] = {name: after[name] - before[name] for name, _ in module.named_parameters()}
    where = stage_of(module)
    factor = {"head": 1.0, "stage3": 0.5, "stage2": 0.25, "stage1": 0.125}
    for name, step in steps["finetune=full"].items():
        torch.testing.assert_close(
            steps["finetune=discriminative"][name], factor[where[name]] * step, atol=1e-7, rtol=1e-3
        )


def test_gradual_thaws_from_head_to_stem(source: Path) -> None:
    run = ready(source, "finetune=gradual", "finetune.every=2", "epochs=7", "regularization=[ema,l2]")
    module = run.training.net.module
    where, seen = stage_of(module), []

    class Watch:
        def __init__(self) -> None:
            self.before = state(module)

        def epoch(self, record: object, snapshot: object) -> None:
            after = state(module)
            seen.append({where[name] for name in changed(self.before, after)})
            self.before = after

    fit(run, Watch())
    head, third, second = {"head"}, {"head", "stage3"}, {"head", "stage3", "stage2"}
    assert seen == [head, head, third, third, second, second, {*second, "stage1"}]


def test_the_best_weights_are_those_of_the_best_epoch_whatever_thawed_after_it(source: Path) -> None:
    """The flat layout has changed twice since."""
    run = ready(source, "finetune=gradual", "finetune.every=1", "epochs=3", "optimizer.lr=0.001")
    module, copies = run.training.net.module, []

    class Copy:
        def epoch(self, record: object, snapshot: object) -> None:
            copies.append(state(module))

    # what the first epoch ends with is the best by far
    scores = iter([0.9, 0.1, 0.1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dltips.train.fit.validate", lambda training: {"accuracy": next(scores), "loss": 1.0})
        result = fit(run, Copy())
    assert result.best is not None and result.best.metrics["epoch"] == 1
    named = result.best.weights.named(run.training.net)
    assert changed(copies[0], named) == set()
    assert changed(copies[2], named) != set()


def test_what_is_kept_per_parameter_follows_a_thaw(source: Path) -> None:
    """max_norm bounds the stages that have thawed, noise reaches them, averages are of all that trains."""
    options = ["finetune=gradual", "finetune.every=1", "epochs=4", "finetune.rate=1", "batch_size=120"]
    run = ready(source, *options, "regularization=[max_norm,ema]", "regularization.max_norm.limit=0.3")
    fit(run)
    net = run.training.net
    assert {stage_of(net.module)[segment.name] for segment in net.segments} == TRAINS["full"]
    for segment, weight in net.views(net.parameters):
        if segment.is_weight:
            assert float(torch.linalg.vector_norm(weight.flatten(1), dim=1).max()) <= 0.3 + 1e-5
    (average,) = [part for part in run.regularizations if "parameters" in part.state]
    assert len(average.state["parameters"]) == len(net.parameters)
    noisy = ready(source, *options, "regularization=gradient_noise", "regularization.gradient_noise.eta=1e-12")
    fit(noisy)
    plain = ready(source, *options)
    fit(plain)
    torch.testing.assert_close(noisy.training.net.parameters, plain.training.net.parameters, atol=1e-4, rtol=1e-3)


def test_rates_may_name_what_thaws_later(source: Path) -> None:
    options = ["finetune=gradual", "finetune.every=1", "epochs=4", "optimizer.rates={stage1: 0}"]
    run = ready(source, *options)
    module = run.training.net.module
    before = state(module)
    fit(run)
    where = stage_of(module)
    weights = {name for name, _ in module.named_parameters()}
    assert {where[name] for name in changed(before, state(module)) & weights} == TRAINS["full"] - {"stage1"}


def test_the_summary_counts_what_has_trained(source: Path) -> None:
    folder = train(*TARGET, f"finetune.source={source}", "finetune=gradual", "finetune.every=1", "epochs=2")
    summary = json.loads((folder / "summary.json").read_text())
    run = ready(source, "finetune=full")
    where = stage_of(run.training.net.module)
    sizes = {name: parameter.numel() for name, parameter in run.training.net.module.named_parameters()}
    assert summary["trained_parameters"] == sum(
        size for name, size in sizes.items() if where[name] in ("head", "stage3")
    )


def train(*overrides: str) -> Path:
    before = set(Path("outputs").glob("*"))
    assert main(["train", *overrides]) == 0
    (folder,) = set(Path("outputs").glob("*")) - before
    return folder
