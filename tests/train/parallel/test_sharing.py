"""One run in several processes is the run of one: the same curve, exact metrics, one folder, an end with its reason."""

import contextlib
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed import HashStore  # type: ignore[attr-defined]
from torch.nn import functional

from dltips.config.composition import compose
from dltips.config.validation import validate
from dltips.errors import ConfigError
from dltips.main import main
from dltips.nets.flat import FlatModel
from dltips.train.build import build_run
from dltips.train.divergence import locate
from dltips.train.fit import fit
from dltips.train.loop import Interrupted, Meter, NotFinite, Training
from dltips.train.loop import validate as validation
from dltips.train.parallel import sharing
from dltips.train.parallel.group import ProcessGroup, ProcessLost, gpu_of, raising_process_lost, refuse_shared_gpu
from dltips.train.parallel.sharing import AGREEMENT_STEPS, Agreement, InterruptibleFeed, shares_of
from dltips.train.parallel.spawn import counting_signals, how_to_resume
from dltips.train.parallel.world import MESSAGES_VARIABLE, World, check_device, world_from
from dltips.train.resume import resumed_from
from dltips.train.run import SAME_SIGNAL_SECONDS, reason, stop_on_signals
from dltips.train.snapshot import Snapshot

# One process of several, which train one config after the other: importing torch once is what takes the time.
DRIVER = """
import json, sys
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
distributed.destroy_process_group()
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


# The parts


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


def test_who_starts_the_processes_counts_signals_and_gives_the_handlers_back(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("dltips.train.parallel.spawn.time.monotonic", lambda: now)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with counting_signals() as stop:
            for number, wait, count in ((1, 0.0, 0), (15, 0.0, 1), (15, 0.1, 1), (10, 1.0, 2)):
                now += wait
                signal.raise_signal(number)
                assert stop.count == count
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN, "nohup"
    finally:
        signal.signal(signal.SIGHUP, before)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


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


def test_a_lost_process_is_told_from_what_cannot_be_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """gloo's word has a path of another machine in it; what another process told of its end is said instead."""
    monkeypatch.setenv(MESSAGES_VARIABLE, str(tmp_path))
    with pytest.raises(RuntimeError, match=r"^Invalid scalar type$"), raising_process_lost():
        raise RuntimeError("Invalid scalar type")
    gone = RuntimeError("[/__w/pytorch/gloo/transport/tcp/pair.cc:561] Connection closed by peer")
    with pytest.raises(ProcessLost) as lost, raising_process_lost():
        raise gone
    assert "another process" in reason(lost.value) and "gloo" not in reason(lost.value)
    (tmp_path / "why-1").write_text("ValueError: no such luck")
    with pytest.raises(ProcessLost) as lost, raising_process_lost():
        raise gone
    assert reason(lost.value) == "process 2: ValueError: no such luck"


def test_a_checkpoint_is_promised_only_where_there_is_one(tmp_path: Path) -> None:
    assert "resume=" not in how_to_resume("")
    assert re.search(rf"no checkpoint .*{tmp_path}: start again$", how_to_resume(str(tmp_path)))
    (tmp_path / "previous.pt").touch()
    assert f"dltips train resume={tmp_path} " in how_to_resume(str(tmp_path))


@pytest.mark.parametrize(
    ("seen", "gpu"),
    [(1, 0), (4, 2), (0, None)],  # a scheduler shows each process its own one, or all
)
def test_each_process_has_a_gpu_of_its_own(seen: int, gpu: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: seen > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: seen)
    place = World(2, 4, 2, 4, "a", 7)
    assert gpu_of(place, "auto") == gpu
    assert gpu_of(place, "cpu") is None
    if seen == 4:
        with pytest.raises(ConfigError, match=r"^devices: 5 .*4 GPUs; lower it"):
            gpu_of(World(4, 5, 4, 5, "a", 7), "auto")


def test_two_processes_on_one_gpu_are_refused() -> None:
    store = HashStore()
    for rank, name in enumerate(("a 1", "b 1")):
        store.set(f"gpu-{rank}", name)
    place = World(2, 3, 2, 3, "a", 7)
    refuse_shared_gpu(place, store, "b 2")
    with pytest.raises(ConfigError, match=r"^devices: processes 2 and 3 of 3 .*same GPU; .*write device=cpu$"):
        refuse_shared_gpu(place, store, "b 1")


def test_a_mac_has_one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    check_device(2, "cpu")
    for device in ("auto", "mps"):
        with pytest.raises(ConfigError, match=r"^device: mps .*devices is 2; write device=cpu$"):
            check_device(2, device)


@pytest.mark.parametrize(("flag", "rest"), [("-m", ["seed=0,1"]), ("--compare", ["finetune=auto"])])
def test_many_runs_are_not_made_by_each_of_several_processes(
    flag: str, rest: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RANK", "0")
    assert main(["train", flag, *rest]) == 2
    assert re.fullmatch(rf"dltips: {flag}: 4 processes .*torchrun or srun.*; start one.*\n", capfd.readouterr().err)
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(SystemExit) as silent:
        main(["train", flag, *rest])
    assert (silent.value.code, capfd.readouterr().err) == (2, "")
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_goes_on_has_as_many_devices_as_were_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchrun says the number, and no word on the command line; the threads were those of another number."""
    assert main(["train", *PLAIN, "epochs=1"]) == 0
    monkeypatch.setattr("dltips.train.resume.current_group", lambda: Pretended(0, 2))
    overrides = [f"resume={only_run()}", "epochs=2"]
    resumed = resumed_from(only_run(), compose(overrides)[0], overrides)
    assert resumed.config.settings.devices == resumed.config.plain["devices"] == 2
    assert resumed.threads is None


TORCHRUN = {
    "RANK": "1",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "a",
    "MASTER_PORT": "7",
}
SRUN = {
    "SLURM_PROCID": "5",
    "SLURM_NTASKS": "8",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_TASKS_PER_NODE": "4(x2)",
    "SLURM_STEP_NODELIST": "gpu[007-008]",
    "SLURM_JOB_ID": "1234",
    "SLURM_STEP_ID": "1",
}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        (TORCHRUN, World(1, 4, 1, 2, "a", 7)),
        ({"RANK": "0", "WORLD_SIZE": "1"}, None),
        ({"WORLD_SIZE": "4"}, None),
        (SRUN, World(5, 8, 1, 4, "gpu007", 18639)),
        (SRUN | {"SLURM_STEP_NODELIST": "a1,b[2-3]"}, World(5, 8, 1, 4, "a1", 18639)),
        (SRUN | {"SLURM_STEP_NUM_NODES": "1"}, World(5, 8, 1, 4, "127.0.0.1", 18639)),
        (SRUN | {"MASTER_ADDR": "here", "MASTER_PORT": "9"}, World(5, 8, 1, 4, "here", 9)),
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "2"}, World(1, 2, 1, 2, "127.0.0.1", 10000)),
        # one task of a step; a batch script that calls dltips without srun
        (SRUN | {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}, None),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_LOCALID": "0", "ENVIRONMENT": "BATCH"}, None),
    ],
)
def test_where_a_launcher_has_put_the_process(environment: dict[str, str], expected: World | None) -> None:
    assert world_from(environment) == expected


def test_an_environment_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^devices: .*RANK is 'x'"):
        world_from(TORCHRUN | {"RANK": "x"})
    with pytest.raises(ConfigError, match=r"^devices: .*number 4 of 4; .*RANK, WORLD_SIZE$"):
        world_from(TORCHRUN | {"RANK": "4"})


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["devices=0"], "devices: 0 .*at least 1"),
        (["devices=two"], "devices: 'two' .*whole number"),
        (["devices=2", "batch_size=1"], "batch_size: 1 .*2 devices; write one for each at least"),
        (
            ["devices=2", "device=cuda:1"],
            "device: cuda:1 .*devices is 2; write device=auto or leave devices out .*CUDA_VISIBLE_DEVICES.*",
        ),
        (
            ["devices=4097", "device=cpu"],
            f"devices: 4097 .*{os.cpu_count()} cores; write devices={os.cpu_count()} at most",
        ),
        (["devices=2", "init=hee"], r"init: 'hee' .*did you mean he\?"),
    ],
)
def test_bad_input_is_refused_before_anything_is_started(
    overrides: list[str], message: str, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["train", *overrides]) == 2
    assert re.fullmatch(f"dltips: {message}\n", capfd.readouterr().err)
    assert list(tmp_path.iterdir()) == []


def test_a_comparison_has_one_device_for_each_run(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from dltips.train.parallel.group import SINGLE_PROCESS, refuse_devices

    with pytest.raises(ConfigError, match=r"^devices: 2 .*dltips train; .*leave devices out$"):
        refuse_devices(validate(compose(["devices=2"])[0]), SINGLE_PROCESS)


# The command

COMMAND = [sys.executable, "-m", "dltips", "train"]
LONG = [
    *PLAIN,
    "checkpoint.interval=0",
    "log.layers=false",
    "regularization=dropout",
    "regularization.dropout.min_units=8",
]


def begin(command: list[str], **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


def until_epoch(process: "subprocess.Popen[str]", number: int) -> None:
    """Read what the process says until an epoch's line."""
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if re.match(rf"epoch +{number}/", line):
            return
    raise AssertionError(seen)


def ranks_of(parent: int) -> list[int]:
    """The processes that it has started, by rank."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat, environ = (folder / "stat").read_text(), (folder / "environ").read_bytes()
        except OSError:
            continue
        if int(stat.rpartition(")")[2].split()[1]) == parent:
            variables = dict(pair.split("=", 1) for pair in environ.decode().split("\0") if "=" in pair)
            if "RANK" in variables:
                found[int(variables["RANK"])] = int(folder.name)
    return [found[rank] for rank in sorted(found)]


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def only_run() -> Path:
    (run,) = Path("outputs").iterdir()
    return run


def scalars(run: Path) -> list[dict[str, Any]]:
    return metrics([json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()])


@pytest.fixture
def started() -> Iterator[list["subprocess.Popen[str]"]]:
    """Processes that are not to outlive a test that fails."""
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        if process.poll() is None:
            process.kill()
            process.communicate()


linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for the processes in /proc")


@linux
@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_process_that_is_killed_ends_all_with_the_reason(rank: int, started: list["subprocess.Popen[str]"]) -> None:
    process = begin([*COMMAND, *LONG, "epochs=1000000", "devices=2"])
    started.append(process)
    until_epoch(process, 2)
    ranks = ranks_of(process.pid)
    assert len(ranks) == 2
    os.kill(ranks[rank], signal.SIGKILL)
    out, err = process.communicate()
    lines = [line for line in err.splitlines() if not line.startswith("epoch")]
    (line,) = lines
    assert re.match(rf"dltips: process {rank + 1} of 2 .*SIGKILL .*; dltips train resume={only_run()} ", line)
    assert (process.returncode, out) == (1, "")
    assert not any(map(is_there, ranks))


@linux
@pytest.mark.slow
def test_processes_whose_starter_is_killed_save_and_end(started: list["subprocess.Popen[str]"]) -> None:
    process = begin([*COMMAND, *LONG, "epochs=1000000", "devices=2"])
    started.append(process)
    until_epoch(process, 2)
    ranks = [os.pidfd_open(pid) for pid in ranks_of(process.pid)]
    process.kill()
    assert process.stderr is not None
    rest = process.stderr.read()  # until nobody holds the other end any more
    process.communicate()
    assert "dltips: interrupted; epoch" in rest
    for rank in ranks:
        assert select.select([rank], [], [], 30)[0], "it has ended"
        os.close(rank)
    assert json.loads((only_run() / "summary.json").read_text())["status"] == "interrupted"


BREAKING = """
import os
from dltips import family

activation = family("activation")

@activation
def breaking(*, value: int):
    \"\"\"Breaks in the second process.\"\"\"
    from torch import nn
    if os.environ.get("RANK") == "1":
        raise ValueError("no such luck" + chr(10) + "today")
    return nn.ReLU()
"""


@pytest.mark.slow
def test_what_breaks_in_another_process_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "tip.py").write_text(BREAKING.replace("\\", ""))
    (tmp_path / "configs" / "activation").mkdir(parents=True)
    (tmp_path / "configs" / "activation" / "breaking.yaml").write_text("name: breaking\nvalue: 1\n")
    done = subprocess.run(
        [*COMMAND, *PLAIN, "activation=breaking", "devices=2"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "DLTIPS_IMPORT": "tip.py"},
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "dltips: process 2 of 2: ValueError: no such luck today\n"


@linux
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_stopped_by_a_signal_and_resumed_equals_uninterrupted(
    number: int, started: list["subprocess.Popen[str]"], tmp_path: Path
) -> None:
    """Bit for bit with as many processes; with one, whose masks of dropout are others, it goes on all the same."""
    overrides = [*LONG, "epochs=60", "optimizer.lr=0.01", "devices=2"]
    (tmp_path / "whole").mkdir()
    whole = subprocess.run([*COMMAND, *overrides], cwd=tmp_path / "whole", capture_output=True, check=True, text=True)
    assert whole.stderr.count("\nepoch") == 60
    process = begin([*COMMAND, *overrides])
    started.append(process)
    until_epoch(process, 3)
    ranks = ranks_of(process.pid)
    # a scheduler may signal all of them: each then hears it twice
    for pid in [process.pid, *ranks] if number == signal.SIGUSR1 else [process.pid]:
        os.kill(pid, number)
    _, err = process.communicate()
    assert process.returncode == 130
    run = only_run()
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "interrupted" and 3 <= summary["last"]["epoch"] < 60
    assert re.search(rf"interrupted; .*epoch {summary['last']['epoch']} .*dltips train resume={run}", err)
    assert not any(map(is_there, ranks))
    subprocess.run([*COMMAND, "resume=last"], capture_output=True, check=True)
    (other,) = (tmp_path / "whole" / "outputs").iterdir()
    assert scalars(run) == scalars(other)
    ours, theirs = (torch.load(folder / "last.pt", weights_only=True)["model"] for folder in (run, other))
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_devices(tmp_path: Path) -> None:
    assert main(["train", *PLAIN, "epochs=4"]) == 0
    expected = scalars(only_run())
    for first, second in ((1, 2), (2, 1)):
        before = set(Path("outputs").iterdir())
        subprocess.run([*COMMAND, *PLAIN, "epochs=2", f"devices={first}"], capture_output=True, check=True)
        (run,) = set(Path("outputs").iterdir()) - before
        subprocess.run([*COMMAND, f"resume={run}", "epochs=4", f"devices={second}"], capture_output=True, check=True)
        for one, other in zip(scalars(run), expected, strict=True):
            assert one == pytest.approx(other, rel=1e-5)


@pytest.mark.slow
def test_torchrun_is_joined_and_leaves_one_folder_with_the_curve_of_one_device() -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run([*torchrun, "-m", "dltips", "train", *PLAIN], capture_output=True, text=True, check=True)
    run = only_run()
    assert done.stdout.count("folder ") == 1
    assert json.loads((run / "summary.json").read_text())["settings"]["devices"] == 2
    for one, other in zip(scalars(run), metrics(alone(PLAIN)["records"]), strict=True):
        assert one == pytest.approx(other, rel=1e-5)


def free_port() -> str:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return str(listening.getsockname()[1])


@pytest.mark.slow
def test_srun_is_joined_and_a_mistake_is_said_once(started: list["subprocess.Popen[str]"]) -> None:
    def both(*overrides: str) -> list[tuple[int, str, str]]:
        port = free_port()
        for rank in range(2):
            slurm = {"SLURM_PROCID": str(rank), "SLURM_NTASKS": "2", "SLURM_LOCALID": str(rank), "SLURM_JOB_ID": "12"}
            started.append(begin([*COMMAND, *PLAIN, *overrides], **slurm, MASTER_PORT=port))
        ended = [process.communicate() for process in started[-2:]]
        return [(process.returncode, *said) for process, said in zip(started[-2:], ended, strict=True)]

    first, second = both()
    assert first[0] == 0 and "folder " in first[1]
    assert second == (0, "", "")
    for one, other in zip(scalars(only_run()), metrics(alone(PLAIN)["records"]), strict=True):
        assert one == pytest.approx(other, rel=1e-5)
    first, second = both("batch_size=1000")
    assert first[:2] == (2, "") and second == (2, "", "")
    assert re.fullmatch(r"dltips: batch_size: 1000 .*154 training samples; lower it\n", first[2])
    assert len(list(Path("outputs").iterdir())) == 1
