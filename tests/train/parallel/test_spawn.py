"""One command starts several processes, joins those of a launcher, and ends with one reason."""

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

from dltips.config.composition import compose
from dltips.config.validation import validate
from dltips.main import main
from dltips.train.build import build_run
from dltips.train.fit import fit
from dltips.train.parallel.spawn import counting_signals, how_to_resume

SMALL = ["device=cpu", "data.subset=154", "batch_size=32", "model.widths=[24]", "epochs=3", "log.tensorboard=false"]


PLAIN = [*SMALL, "model.norm=none", "optimizer.lr=0.05"]


TIMES = ("seconds", "samples_per_second")


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


def test_a_checkpoint_is_promised_only_where_there_is_one(tmp_path: Path) -> None:
    assert "resume=" not in how_to_resume("")
    assert re.search(rf"no checkpoint .*{tmp_path}: start again$", how_to_resume(str(tmp_path)))
    (tmp_path / "previous.pt").touch()
    assert f"dltips train resume={tmp_path} " in how_to_resume(str(tmp_path))


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


TORCHRUN = {
    "RANK": "1",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "a",
    "MASTER_PORT": "7",
}


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
