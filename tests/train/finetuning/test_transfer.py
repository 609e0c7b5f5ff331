"""Fine-tuning as a run: what trains, what must not change to the bit, what is kept, resumed and loaded again."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor, nn

from dltips.config.composition import compose
from dltips.config.validation import validate
from dltips.main import main
from dltips.nets import stages
from dltips.train.build import Run, build_model, build_run
from dltips.train.fit import fit
from dltips.use import inference

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


def test_weights_that_are_missing_may_not_rest(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A net with a stage more than the file has: trained if it is to train, refused if it would stay random."""
    state_file = Path("fewer.pth")
    torch.save({name: value for name, value in stored(source).items() if "stage2." not in name}, state_file)
    options = [*TARGET, f"finetune.source={state_file}", "finetune.min_match=0.5", "finetune.mean=[0.5]"]
    options.append("finetune.std=[0.5]")
    assert main(["train", *options, "finetune=full"]) == 0
    capsys.readouterr()
    for strategy in ("linear_probe", "earlier_stage_svm", "top_layers", "gradual"):
        n = ["finetune.n=1"] if strategy == "top_layers" else []
        assert main(["train", *options, f"finetune={strategy}", *n]) == 2
        error = capsys.readouterr().err
        assert re.search(
            rf"finetune\.source: fewer\.pth .*stage2\..*finetune={strategy} .*random; take finetune=full", error
        )


def test_statistics_that_are_missing_may_not_be_frozen(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({name: value for name, value in stored(source).items() if "running" not in name}, "bare.pth")
    options = [*TARGET, "finetune.source=bare.pth", "finetune.mean=[0.5]", "finetune.std=[0.5]", "finetune=full"]
    assert main(["train", *options]) == 0
    capsys.readouterr()
    assert main(["train", *options, "finetune.freeze_norm=true"]) == 2
    error = capsys.readouterr().err
    assert re.search(r"bare\.pth .*stage1\.conv1\.norm\.running_mean.*freeze_norm .*; take finetune=full", error)


def test_a_file_of_another_net_is_refused_before_any_data_are_read(capsys: pytest.CaptureFixture[str]) -> None:
    """Else pictures of several sizes would be what is complained of, since such a file says no size."""
    torch.save(torchvision.models.squeezenet1_1().state_dict(), "other.pth")
    chosen = ["data=image_folder", "data.root=nowhere", "model=mobilenet_v2", "finetune.source=other.pth"]
    assert main(["train", *chosen, "finetune=linear_probe"]) == 2
    error = capsys.readouterr().err
    assert re.match(r"dltips: finetune\.source: other\.pth .*0 of mobilenet_v2's 2,223,872 parameters \(0%\)", error)
    assert "a squeezenet: write model=squeezenet" in error and error.count("\n") == 1
    small = build("cnn", "model.widths=[4,6,8]").state_dict()
    torch.save(small, "own.pth")
    fitting = ["model=cnn", "model.widths=[4,6,8]", "finetune.source=own.pth", "data=image_folder", "data.root=nowhere"]
    assert main(["train", *fitting, "finetune=linear_probe"]) == 2
    assert re.search(r"data\.root: nowhere .*exist", capsys.readouterr().err)


def build(model: str, *overrides: str) -> nn.Module:
    return build_model(validate(compose([f"model={model}", *overrides])[0]), (3, 64, 64), 10, [])


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
    config, payload = inference.read(folder, "best.pt")
    net = inference.load(config, payload, "cpu")
    run = ready(source, f"finetune={strategy}")
    outputs, targets = net.outputs(run.splits.val)
    accuracy = float((outputs.argmax(1) == targets).double().mean())
    assert accuracy == pytest.approx(payload["metrics"]["val/accuracy"])
    assert main(["evaluate", str(folder)]) == 0


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


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["finetune=full"],
            r"finetune\.source: .*finetune=full .*give a run folder, .*or write finetune=none",
        ),
        (
            ["finetune.source=SOURCE"],
            r"finetune\.source: SOURCE .*finetune=none .*such as finetune=linear_probe \(dltips ls finetune\)",
        ),
        (
            ["finetune.source=SOURCE", "finetune=full", "preprocessing=min_max"],
            r"preprocessing: min_max .*finetune=full: .*finetune\.mean and \.std",
        ),
        (
            ["finetune.source=SOURCE", "finetune=linear_probe", "augmentation=mixup"],
            r"augmentation: mixup .*write finetune\.views=0, or leave it out",
        ),
        (
            ["finetune.source=SOURCE", "finetune=earlier_stage_svm", "augmentation=crop"],
            r"augmentation: finetune=earlier_stage_svm .*write augmentation=none",
        ),
        (
            ["finetune.source=SOURCE", "finetune=earlier_stage_linear", "data.balance=loss"],
            r"data\.balance: finetune=earlier_stage_linear .*loss; write data\.balance=none",
        ),
        (
            ["finetune.source=SOURCE", "finetune=gradual", "batch_size=1"],
            r"batch_size: 1 .*accumulate=1 .*batch norm .*write model\.norm=none",
        ),
        (
            ["finetune.source=SOURCE", "finetune=top_layers", "finetune.n=4"],
            r"finetune\.n: 4 .*3 stages .*cnn .*write finetune\.n=3, or finetune=full",
        ),
        (
            ["finetune.source=SOURCE", "finetune=most_layers", "finetune.freeze_first=9"],
            r"finetune\.freeze_first: 9 .*3 stages .*write finetune\.freeze_first=3, or finetune=linear_probe",
        ),
        (
            ["finetune.source=SOURCE", "finetune=earlier_stage_svm", "finetune.stage=stag2"],
            r"finetune\.stage: 'stag2' .*cnn; did you mean stage2\?",
        ),
        (
            ["finetune.source=SOURCE", "finetune=top_layers", "optimizer.rates={stage1: 2}", "finetune.n=1"],
            r"optimizer\.rates\.stage1: .*did you mean stage3\?",
        ),
    ],
)
def test_what_makes_no_sense_is_one_line_and_leaves_nothing(
    source: Path, overrides: Sequence[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = [override.replace("SOURCE", str(source)) for override in overrides]
    assert main(["train", *TARGET, *chosen]) == 2
    assert re.fullmatch(f"dltips: {message.replace('SOURCE', str(source))}\n", capsys.readouterr().err)
    assert not list(Path("outputs").glob("*"))
