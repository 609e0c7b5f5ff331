"""One run in several processes is the run of one: the same curve, exact metrics, one folder, an end with its reason."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from dltips.config.composition import compose
from dltips.config.validation import validate
from dltips.main import main
from dltips.nets.flat import FlatModel
from dltips.train.build import build_run
from dltips.train.fit import fit
from dltips.train.locate_divergence import locate
from dltips.train.loop import Interrupted, Meter, NotFinite, Training
from dltips.train.loop import validate as validation
from dltips.train.parallel import sharing
from dltips.train.parallel.group import ProcessGroup
from dltips.train.parallel.sharing import AGREEMENT_STEPS, Agreement, InterruptibleFeed, shares_of
from dltips.train.parallel.world import MESSAGES_VARIABLE
from dltips.train.resume import resumed_from
from dltips.train.run import SAME_SIGNAL_SECONDS, stop_on_signals
from dltips.train.snapshot import Snapshot

# One process of several, which train one config after the other: importing torch once is what takes the time.
DRIVER = """
import json, os, sys
import torch
from torch import distributed
from dltips.config.composition import compose
from dltips.config.validation import validate
from dltips.train.parallel.sharing import shard_run
from dltips.train.fit import fit
from dltips.train.parallel.group import current_group
from dltips.train.build import build_run

rank, size, configs = int(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])
distributed.init_process_group("gloo", init_method="file://" + sys.argv[4], rank=rank, world_size=size)
for number, overrides in enumerate(configs):
    run = build_run(validate(compose([*overrides, f"devices={size}"])[0]))
    run = shard_run(run, current_group())
    result = fit(run)
    torch.save(
        {"records": result.records, "net": run.training.net.module.state_dict(), "notes": list(run.notes),
         "status": result.status, "diverged_at": result.diverged_at, "epoch": result.snapshot.epoch},
        f"{number}-{rank}.pt",
    )
distributed.barrier()
os._exit(0)  # as dltips ends: torch 2.6 may wait in a teardown for the process that went first
"""


SMALL = ["device=cpu", "data.subset=154", "batch_size=32", "model.widths=[24]", "epochs=3", "log.tensorboard=false"]


PLAIN = [*SMALL, "model.norm=none", "optimizer.lr=0.05"]


IMAGES = ["model=cnn", "model.widths=[4,8]", "model.norm=none", "optimizer.lr=0.02"]


CONFIGS = {
    # of 154 samples the last batch has 26
    "plain": PLAIN,
    # a last batch of a single sample, which joins its neighbour: 18, and no batch divides by the processes
    "odd": [*PLAIN, "batch_size=17", "optimizer=adam", "optimizer.lr=0.003"],
    # a last batch of 2 samples, which one process takes
    "scarce": [*PLAIN, "batch_size=38", "optimizer.momentum=0.9", "optimizer.lr=0.02"],
    "accumulate": [*PLAIN, "accumulate=3", "optimizer.reduction=sum", "optimizer.lr=0.002"],
    "hooks": [*PLAIN, "regularization=[l2,clip_gradient,gradient_noise,ema,label_smoothing,max_norm]"],
    "plateau": [
        *PLAIN,
        "schedule=plateau",
        "schedule.patience=0",
        "regularization=early_stopping",
        "data.shuffle=false",
    ],
    "images": [*SMALL, *IMAGES, "augmentation=[crop,rotate,mixup]", "data.balance=loss"],
}


OTHERS = {
    "batch norm": [*SMALL, "model.norm=batch"],
    "averages": [*SMALL, "model.norm=batch", "regularization=[ema,swa]", "regularization.swa.start=2"],
    "dropout": [*PLAIN, "regularization=dropout", "regularization.dropout.min_units=8"],
    "diverges": [*PLAIN, "optimizer.lr=1e30", "epochs=2"],
}


TIMES = ("seconds", "samples_per_second")


def together(folder: Path, size: int, *configs: list[str]) -> list[list[dict[str, Any]]]:
    """The results of each config, by rank."""
    command = [sys.executable, "-W", "error", "-c", DRIVER]
    processes = [
        subprocess.Popen(
            [*command, str(rank), str(size), json.dumps(configs), str(folder / "meeting")],
            cwd=folder,
            stderr=subprocess.PIPE,
            env={**os.environ, "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(size), "TORCH_CPP_LOG_LEVEL": "FATAL"},
        )
        for rank in range(size)
    ]
    said = [process.communicate()[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0] * size, said
    return [
        [torch.load(folder / f"{number}-{rank}.pt", weights_only=True) for rank in range(size)]
        for number in range(len(configs))
    ]


def alone(overrides: list[str]) -> dict[str, Any]:
    run = build_run(validate(compose(overrides)[0]))
    result = fit(run)
    return {
        "records": result.records,
        "net": run.training.net.module.state_dict(),
        "status": result.status,
        "diverged_at": result.diverged_at,
    }


def metrics(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in record.items() if name not in TIMES and not name.startswith("layers/")}
        for record in records
    ]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """Every config, trained by two processes."""
    every = CONFIGS | OTHERS
    found = together(tmp_path_factory.mktemp("pairs"), 2, *every.values())
    return dict(zip(every, found, strict=True))


def assert_equal_to_one_device(results: list[dict[str, Any]], overrides: list[str]) -> None:
    expected = alone(overrides)
    for result in results:
        ours, theirs = metrics(result["records"]), metrics(expected["records"])
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert one == pytest.approx(other, rel=1e-5)
        for name, value in expected["net"].items():
            torch.testing.assert_close(result["net"][name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", CONFIGS)
def test_two_processes_have_the_curve_and_the_weights_of_one(name: str, pairs: dict[str, list[dict[str, Any]]]) -> None:
    assert_equal_to_one_device(pairs[name], CONFIGS[name])
    assert pairs[name][0]["notes"] == []


@pytest.mark.parametrize("name", ["plain", "odd", "images"])
def test_two_processes_have_the_bits_of_one_that_takes_the_batch_in_two_parts(
    name: str, pairs: dict[str, list[dict[str, Any]]]
) -> None:
    expected = alone([*CONFIGS[name], "accumulate=2"])
    assert all(torch.equal(pairs[name][0]["net"][key], value) for key, value in expected["net"].items())


@pytest.mark.parametrize("name", [*CONFIGS, "batch norm", "averages", "dropout"])
def test_all_processes_hold_the_same_bits(name: str, pairs: dict[str, list[dict[str, Any]]]) -> None:
    first, second = pairs[name]
    assert all(torch.equal(first["net"][key], value) for key, value in second["net"].items())
    assert metrics(first["records"]) == metrics(second["records"])
    assert any(key.startswith("layers/") for key in first["records"][0])
    assert not any(key.startswith("layers/") for key in second["records"][0])


@pytest.mark.slow
def test_three_processes_have_the_curve_and_the_weights_of_one(tmp_path: Path) -> None:
    for results, overrides in zip(together(tmp_path, 3, *CONFIGS.values()), CONFIGS.values(), strict=True):
        assert_equal_to_one_device(results, overrides)


def test_what_batch_norm_changes_is_said(pairs: dict[str, list[dict[str, Any]]]) -> None:
    (note,) = pairs["batch norm"][0]["notes"]
    assert re.match(r"devices: batch norm .*16 of the 32 samples .*model\.norm=none, layer or group", note)


def test_what_dropout_changes_is_said(pairs: dict[str, list[dict[str, Any]]]) -> None:
    (note,) = pairs["dropout"][0]["notes"]
    assert re.match(r"devices: .*each process .*one device$", note)
    assert pairs["plain"][0]["notes"] == []


def test_a_loss_that_is_not_finite_ends_all_at_the_step_at_which_it_ends_one(
    pairs: dict[str, list[dict[str, Any]]],
) -> None:
    expected = alone(OTHERS["diverges"])
    assert expected["status"] == "diverged"
    for result in pairs["diverges"]:
        assert (result["status"], result["diverged_at"]) == ("diverged", expected["diverged_at"])


class Pretended(ProcessGroup):
    """A process of several that are not there."""

    def __init__(self, rank: int, size: int, answer: tuple[float, ...] = ()) -> None:
        self.rank, self.size, self.answer, self.asked = rank, size, answer, 0

    def maxima(self, *values: float) -> tuple[float, ...]:
        self.asked += 1
        return tuple(max(pair) for pair in zip(values, self.answer, strict=True))


@pytest.mark.parametrize("count", [1, 2, 3, 7, 16, 33])
@pytest.mark.parametrize("size", [2, 3, 5])
@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("least", [1, 2])
def test_the_processes_pieces_are_the_batch_and_their_gradients_add_up_to_its(
    count: int, size: int, accumulate: int, least: int
) -> None:
    generator = torch.Generator().manual_seed(count)
    inputs = torch.randn(count, 5, generator=generator, dtype=torch.float64)
    targets = torch.randint(3, (count,), generator=generator)

    def gradient(pieces: list[tuple[Tensor, Tensor, float]]) -> Tensor:
        torch.manual_seed(0)
        net = FlatModel(nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double())
        for part, labels, weight in pieces:
            (functional.cross_entropy(net.module(part), labels) * weight).backward()
        return net.gradients

    whole = gradient([(inputs, targets, 1.0)])
    for reduction, factor in (("mean", 1), ("sum", count)):
        by_rank = [
            list(shares_of(Pretended(rank, size), accumulate, reduction, least=least)(inputs, targets))
            for rank in range(size)
        ]
        pieces = [piece for own in by_rank for piece in own]
        assert torch.equal(torch.cat([part for part, _, _ in pieces]), inputs)
        torch.testing.assert_close(gradient(pieces), factor * whole)
        assert all(len(labels) >= min(least, count) for _, labels, _ in pieces)
        assert len({len(own) for own in by_rank if own}) == 1, "as many pieces everywhere"


def test_all_look_at_the_same_steps_and_seldom() -> None:
    """The next look follows from the slowest process's time per step, which all hear of."""
    training, meter = build_run(validate(compose(PLAIN)[0])).training, Meter()
    for slowest, between in ((0.05, 4), (1.0, 1), (1e-9, AGREEMENT_STEPS)):
        group = Pretended(0, 2, (0, 0, slowest))
        look = Agreement(group)
        look.at = float("inf")  # this process took no time
        for training.progress.step in range(1, 1 + 3 * between):
            look.at = float("inf")
            look(training, meter)
        assert group.asked == 3


@pytest.mark.parametrize(("answer", "error"), [((1, 0, 1.0), Interrupted), ((0, 1, 1.0), NotFinite)])
def test_what_one_process_met_ends_all(answer: tuple[float, ...], error: type[Exception]) -> None:
    training = build_run(validate(compose(PLAIN)[0])).training
    with pytest.raises(error):
        Agreement(Pretended(0, 2, answer))(training, Meter())


def test_what_another_process_heard_is_not_the_first_of_two_signals() -> None:
    training = build_run(validate(compose(PLAIN)[0])).training
    with stop_on_signals(training, group := Pretended(0, 2, (1, 0, 1.0))):
        with pytest.raises(Interrupted):
            Agreement(group)(training, Meter())
        signal.raise_signal(signal.SIGTERM)  # its own, which comes later
    assert training.progress.stop_requested


@pytest.mark.parametrize("place", [None, "somewhere"])
def test_a_signal_that_comes_twice_by_two_ways_does_not_end_a_process_at_once(
    place: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that dltips has started leave that to it; another one hears a second signal when some time has passed."""
    now = 100.0
    monkeypatch.setattr("dltips.train.run.time.monotonic", lambda: now)
    if place is None:
        monkeypatch.delenv(MESSAGES_VARIABLE, raising=False)
    else:
        monkeypatch.setenv(MESSAGES_VARIABLE, place)
    training = build_run(validate(compose(PLAIN)[0])).training
    with stop_on_signals(training, Pretended(0, 2)):
        signal.raise_signal(signal.SIGUSR1)
        signal.raise_signal(signal.SIGTERM)
        assert training.progress.stop_requested
        now += SAME_SIGNAL_SECONDS
        if place is None:
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGTERM)
        else:
            signal.raise_signal(signal.SIGTERM)


def test_a_process_alone_is_ended_at_once_by_its_second_signal() -> None:
    training = build_run(validate(compose(PLAIN)[0])).training
    with stop_on_signals(training, ProcessGroup()):
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize(("patience", "batches"), [(-1.0, 1), (30.0, 2)])
def test_a_validation_is_broken_off_by_all_when_one_was_asked_to_stop_long_ago(
    patience: float, batches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was asked this moment; a batch takes a second."""
    monkeypatch.setattr(sharing, "VALIDATION_GRACE", patience)
    training = build_run(validate(compose(PLAIN)[0])).training
    group, seen = Answering(0, 2, (0.0, 1.0)), []
    feed = InterruptibleFeed(training.inputs.val, training.progress, group)
    with pytest.raises(Interrupted) if patience < 0 else contextlib.nullcontext():
        for batch in feed(torch.arange(64), 32):
            seen.append(batch)
    assert (len(seen), group.asked) == (batches, batches)


class Answering(Pretended):
    """The answer is always the same."""

    def maxima(self, *values: float) -> tuple[float, ...]:
        self.asked += 1
        return self.answer


def test_a_run_whose_validation_is_broken_off_keeps_the_epoch_before(monkeypatch: pytest.MonkeyPatch) -> None:
    run, passes = build_run(validate(compose(PLAIN)[0])), []

    def broken_off(training: Training) -> dict[str, float]:
        passes.append(training.progress.step)
        if len(passes) == 2:
            raise Interrupted
        return validation(training)

    monkeypatch.setattr("dltips.train.fit.validate", broken_off)
    result = fit(run)
    assert (result.status, len(result.records), result.snapshot.epoch) == ("interrupted", 1, 1)


def test_the_search_for_the_layer_that_broke_ends_when_another_process_was_asked_to_stop() -> None:
    run = build_run(validate(compose(PLAIN)[0]))
    run.training.group = Answering(1, 2, (1.0,))
    snapshot = Snapshot.take(run.training, run.regularizations, 0, 0.0, None)
    assert locate(run, snapshot, 0) == (1, 0, "a step from here on (stopped while looking)")


def test_a_run_that_goes_on_has_as_many_devices_as_were_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchrun says the number, and no word on the command line; the threads were those of another number."""
    assert main(["train", *PLAIN, "epochs=1"]) == 0
    monkeypatch.setattr("dltips.train.resume.current_group", lambda: Pretended(0, 2))
    overrides = [f"resume={only_run()}", "epochs=2"]
    resumed = resumed_from(only_run(), compose(overrides)[0], overrides)
    assert resumed.config.settings.devices == resumed.config.plain["devices"] == 2
    assert resumed.threads is None


def only_run() -> Path:
    (run,) = Path("outputs").iterdir()
    return run


@pytest.fixture
def started() -> Iterator[list["subprocess.Popen[str]"]]:
    """Processes that are not to outlive a test that fails."""
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        if process.poll() is None:
            process.kill()
            process.communicate()
