"""One run from end to end: what it writes, that its bits depend on what they should and on nothing else."""

import json
from pathlib import Path

import pytest
import torch

from dltips.main import main

SHORT = ["train", "device=cpu", "epochs=2", "log.tensorboard=false", "log.pictures=none", "data.subset=300"]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def train(*overrides: str, code: int = 0) -> Path:
    """The folder of a run that ends with the given exit code."""
    before = set(Path("outputs").glob("*"))
    assert main([*SHORT, *overrides]) == code
    (folder,) = set(Path("outputs").glob("*")) - before
    return folder


def weights(folder: Path, name: str = "last.pt") -> dict[str, torch.Tensor]:
    model: dict[str, torch.Tensor] = torch.load(folder / name, weights_only=True)["model"]
    return model


def metrics(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def curves(folder: Path) -> list[tuple[float, ...]]:
    keys = ("train/loss", "train/accuracy", "val/loss", "val/accuracy", "lr")
    return [tuple(record[key] for key in keys) for record in metrics(folder)]


def same(one: Path, other: Path) -> bool:
    first, second = weights(one), weights(other)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_two_runs_of_one_seed_are_bitwise_equal_and_of_two_seeds_are_not() -> None:
    options = ("augmentation=[flip,crop]", "regularization=[dropout,ema]", "regularization.dropout.min_units=64")
    one, other, third = train(*options), train(*options), train(*options, "seed=1")
    assert same(one, other)
    assert curves(one) == curves(other)
    assert not same(one, third)


@pytest.mark.parametrize(
    "override",
    [
        "log.layers=false",
        "log.histograms=true",
        "log.tensorboard=true",
        "checkpoint.interval=0",
        "data.placement=stream",
        "name=other",
    ],
)
def test_what_only_watches_or_places_changes_no_bit(override: str) -> None:
    options = ("augmentation=[crop]", "regularization=[dropout]", "regularization.dropout.min_units=64")
    assert same(train(*options), train(*options, override))


def test_without_augmentation_resident_and_streamed_runs_are_bitwise_equal() -> None:
    for model in ("model=mlp", "model=cnn"):
        resident, streamed = train(model, "data.placement=resident"), train(model, "data.placement=stream")
        assert curves(resident) == curves(streamed)
        assert same(resident, streamed)


def test_accumulated_parts_add_up_to_the_whole_batch() -> None:
    # without batch norm, which sees other batches
    options = ("model.norm=none", "optimizer.lr=0.01", "epochs=1")
    whole, parts = weights(train(*options)), weights(train(*options, "accumulate=4"))
    for name in whole:
        torch.testing.assert_close(parts[name], whole[name], rtol=1e-4, atol=1e-5)


def test_the_split_hangs_on_split_seed_alone() -> None:
    hashes = {
        override: json.loads((train("epochs=0", override) / "summary.json").read_text())["data_hash"]
        for override in ("seed=0", "seed=1", "data.split_seed=1")
    }
    assert hashes["seed=0"] == hashes["seed=1"] != hashes["data.split_seed=1"]


def test_zero_epochs_write_the_initialized_net_and_its_statistics() -> None:
    folder = train("epochs=0", "init=zeros")
    (record,) = metrics(folder)
    assert record["epoch"] == 0
    assert record["layers/head/variance"] == 0
    assert "val/accuracy" in record and "train/loss" not in record
    model = weights(folder)
    assert all(not model[name].any() for name in model if name.endswith("layer.weight"))
    assert weights(folder, "best.pt").keys() == model.keys()


def test_the_files_of_a_run_and_what_they_say() -> None:
    folder = train("name=my run", "log.tensorboard=true", "log.pictures=best", "metric=val/loss")
    assert folder.name.endswith("-my-run")
    found = {path.name.split(".")[0] if path.name.startswith("events") else path.name for path in folder.iterdir()}
    assert found == {
        "config.yaml", "environment.json", "metrics.jsonl", "summary.json", "run.log", "curves.png", "events",
        "last.pt", "best.pt", ".lock",
    }  # fmt: skip
    summary = json.loads((folder / "summary.json").read_text())
    records = metrics(folder)
    best = min(records, key=lambda record: record["val/loss"])
    assert summary["status"] == "finished"
    assert summary["best"]["epoch"] == best["epoch"] and summary["best"]["val/loss"] == best["val/loss"]
    assert summary["last"]["val/accuracy"] == records[-1]["val/accuracy"]
    assert summary["parameters"] == sum(weight.numel() for name, weight in weights(folder).items()
                                        if "running" not in name and "num_batches" not in name)  # fmt: skip
    assert summary["test_reads"] == 0 and summary["seed"] == 0
    assert records[-1]["step"] == 2 * 5  # 300 samples in batches of 64


def test_a_remainder_of_one_is_no_error() -> None:
    folder = train("data.subset=257", "epochs=1")
    assert metrics(folder)[0]["step"] == 4


def test_the_best_weights_are_those_of_the_best_epoch() -> None:
    folder = train("epochs=4", "optimizer.lr=0.5")
    best = torch.load(folder / "best.pt", weights_only=True)
    upto = train("epochs=4", "optimizer.lr=0.5", f"epochs={best['epoch']}")
    assert all(torch.equal(best["model"][name], value) for name, value in weights(upto).items())


def test_early_stopping_ends_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    folder = train("epochs=30", "regularization=early_stopping", "regularization.early_stopping.patience=1")
    summary = json.loads((folder / "summary.json").read_text())
    losses = [record["val/loss"] for record in metrics(folder)]
    assert summary["stopped_early"] and summary["status"] == "finished"
    assert losses[-1] >= min(losses[:-1]) and losses[:-1] == sorted(losses[:-1], reverse=True)


def test_ema_validates_and_keeps_the_average_and_trains_on_its_own_weights() -> None:
    plain, averaged = train(), train("regularization=ema")
    # the trained weights do not know of the average
    assert same(plain, averaged)
    assert not all(
        torch.equal(weights(plain, "best.pt")[name], value) for name, value in weights(averaged, "best.pt").items()
    )


def test_no_import_of_the_compiler_and_of_what_is_not_used() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from dltips.main import main; main(sys.argv[1:]);"
        "unused = ('torch._dynamo', 'torchvision', 'sklearn', 'matplotlib', 'tensorboard', 'rich');"
        "print([name for name in unused if name in sys.modules])"
    )
    train()  # the data are in the cache from now on
    done = subprocess.run(
        [sys.executable, "-c", code, *SHORT, "optimizer=adamw"], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_run_in_bfloat16_differs_and_learns() -> None:
    full, half = train(), train("precision=bfloat16")
    assert not same(full, half)
    assert metrics(half)[-1]["train/accuracy"] > 0.5


def test_quickstart_learns_the_digits() -> None:
    before = set(Path("outputs").glob("*"))
    assert main(["train", "+recipe=quickstart", "device=cpu", "log.tensorboard=false", "log.pictures=none"]) == 0
    (folder,) = set(Path("outputs").glob("*")) - before
    assert metrics(folder)[-1]["val/accuracy"] >= 0.97


@pytest.mark.slow
def test_quickstart_reaches_97_percent_on_every_seed_of_twenty() -> None:
    options = ["log.tensorboard=false", "log.pictures=none", "device=cpu", "seed=range(20)"]
    assert main(["train", "-m", "+recipe=quickstart", *options]) == 0
    runs = [json.loads(path.read_text()) for path in Path("outputs").glob("*/*/summary.json")]
    assert len(runs) == 20
    assert min(run["last"]["val/accuracy"] for run in runs) >= 0.97
