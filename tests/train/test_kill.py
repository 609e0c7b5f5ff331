"""A run killed with SIGKILL at any moment, and resumed, ends bitwise equal to the uninterrupted one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

KILLS = 12
TIMES = ("seconds", "samples_per_second")

# One process imports torch, then forks a child for each run: a dozen runs in seconds. It prints the folders.
DRIVER = """
import os, select, signal, sys, time
from pathlib import Path
from dltips.main import main
from dltips.catalog.registry import load
import dltips.commands.train, dltips.train.run
load()

ARGUMENTS = ["train", "+recipe=quickstart", "epochs=12", "checkpoint.interval=0", "device=cpu", "log.tensorboard=false",
             "log.pictures=none", "'augmentation=[crop]'", "'regularization=[ema,early_stopping,dropout]'",
             "regularization.dropout.min_units=64", "optimizer=adam", "optimizer.lr=0.003", "schedule=plateau"]
ARGUMENTS = [argument.strip("'") for argument in ARGUMENTS]

def child(arguments):
    pid = os.fork()
    if pid == 0:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
        os._exit(main(arguments))
    return pid

def folder(before):
    made = sorted(set(Path("outputs").glob("*/")) - before)
    return made[0] if made else None

def begun(before):
    while True:
        run = folder(before)
        if run is not None and (run / "config.yaml").exists():
            return time.perf_counter()
        select.select([], [], [], 0.001)

pid = child(ARGUMENTS)
start = begun(set())
assert os.waitpid(pid, 0)[1] == 0
whole = time.perf_counter() - start
print(folder(set()), 0, flush=True)
for number in range(int(sys.argv[1])):
    before = set(Path("outputs").glob("*/"))
    pid = child(ARGUMENTS)
    begun(before)
    select.select([], [], [], whole * number / int(sys.argv[1]))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    run = folder(before)
    epochs = (run / "metrics.jsonl").read_text().count("\\n") if (run / "metrics.jsonl").exists() else 0
    if not (run / "summary.json").exists():
        assert os.waitpid(child(["train", f"resume={run}"]), 0)[1] == 0, run
    print(run, epochs, flush=True)
"""


def equal(one: object, other: object) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(equal(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(equal, one, other))
    return one == other


def metrics(run: Path) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in TIMES} for line in lines]


def state(run: Path, name: str) -> dict[str, object]:
    payload = torch.load(run / name, weights_only=True)
    return {key: value for key, value in payload.items() if key not in TIMES}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.slow
def test_killed_and_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(KILLS)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    runs = [(tmp_path / line.split()[0], int(line.split()[1])) for line in done.stdout.splitlines()]
    whole, *killed = runs
    assert len(killed) == KILLS
    assert len({epochs for _, epochs in killed}) >= 3, "the kills fell into different epochs"
    for run, _ in killed:
        assert metrics(run) == metrics(whole[0])
        for name in ("last.pt", "best.pt"):
            assert equal(state(run, name), state(whole[0], name)), (run, name)
        assert json.loads((run / "summary.json").read_text())["status"] == "finished"
