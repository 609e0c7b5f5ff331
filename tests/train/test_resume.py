"""Going on with a run: what is kept, what is refused, and what a damaged or missing checkpoint means."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dltips.main import main
from dltips.runs import checkpoint

SHORT = ["device=cpu", "log.tensorboard=false", "log.pictures=none", "data.subset=300"]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def train(*overrides: str) -> Path:
    before = set(Path("outputs").glob("*"))
    assert main(["train", *SHORT, *overrides]) == 0
    (folder,) = set(Path("outputs").glob("*")) - before
    return folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    model: dict[str, torch.Tensor] = torch.load(folder / "last.pt", weights_only=True)["model"]
    return model


def epochs(folder: Path) -> list[int]:
    return [json.loads(line)["epoch"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_longer_run_equals_a_run_that_was_long_from_the_start() -> None:
    options = ("augmentation=[crop,flip]", "regularization=[ema]", "optimizer=torch", "schedule=plateau")
    folder, whole = train(*options, "epochs=2"), train(*options, "epochs=4")
    assert main(["train", f"resume={folder}", "epochs=4"]) == 0
    assert epochs(folder) == [1, 2, 3, 4]
    assert all(torch.equal(weights(folder)[name], value) for name, value in weights(whole).items())


def test_metrics_after_the_checkpoint_are_cut() -> None:
    folder = train("epochs=3")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 4, "val/loss": 1.0}\n{"epoch": 5, "val/lo')
    assert main(["train", f"resume={folder}", "epochs=4"]) == 0
    assert epochs(folder) == [1, 2, 3, 4]


def test_a_damaged_checkpoint_gives_way_to_the_one_before_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    folder, whole = train("epochs=3", "checkpoint.interval=0"), train("epochs=4")
    content = bytearray((folder / "last.pt").read_bytes())
    content[len(content) // 2] ^= 1  # one bit, somewhere in the weights
    (folder / "last.pt").write_bytes(content)
    with pytest.raises(checkpoint.Damaged):
        checkpoint.read(folder / "last.pt")
    capsys.readouterr()
    assert main(["train", f"resume={folder}", "epochs=4"]) == 0
    assert re.search(r"resume: .*last\.pt.*; .*checkpoint before", capsys.readouterr().err)
    assert all(torch.equal(weights(folder)[name], value) for name, value in weights(whole).items())


def test_two_damaged_checkpoints_end_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    folder = train("epochs=2", "checkpoint.interval=0")
    for name in ("last.pt", "previous.pt"):
        (folder / name).write_bytes((folder / name).read_bytes()[:1000])
    before = (folder / "metrics.jsonl").read_text()
    capsys.readouterr()
    assert main(["train", f"resume={folder}", "epochs=3"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and re.search(r"resume: .*checkpoint.*start a new run", error)
    assert (folder / "metrics.jsonl").read_text() == before
    assert (folder / "summary.json").exists()


def test_a_checkpoint_with_code_in_it_is_refused_and_not_run(capsys: pytest.CaptureFixture[str]) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, ("executed",)

    folder = train("epochs=1")
    torch.save({"format": 1, "model": Payload()}, folder / "last.pt")
    capsys.readouterr()
    assert main(["train", f"resume={folder}", "epochs=2"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not Path("executed").exists()


def test_without_a_checkpoint_the_run_starts_again() -> None:
    folder, whole = train("epochs=2"), train("epochs=2")
    (folder / "last.pt").unlink()
    (folder / "summary.json").unlink()
    assert main(["train", "resume=last"]) == 0
    assert epochs(folder) == [1, 2]
    assert all(torch.equal(weights(folder)[name], value) for name, value in weights(whole).items())


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["optimizer.lr=0.5"], "optimizer.lr=0.1 (not 0.5)"),
        (["optimizer=adam"], "optimizer.name=sgd (not adam)"),
        (["seed=1"], "seed=0 (not 1)"),
        (["+recipe=quickstart"], "schedule.name=constant (not cosine)"),
        (["epochs=2"], "write epochs=N"),
        (["epochs=1"], "write epochs=N"),
    ],
)
def test_another_config_is_refused_and_the_difference_named(
    typed: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = train("epochs=2")
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    capsys.readouterr()
    assert main(["train", f"resume={folder}", *typed]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and said in error
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files


def test_what_was_typed_and_agrees_is_no_difference() -> None:
    folder = train("epochs=1", "optimizer.lr=0.05")
    agreeing = ["optimizer.lr=0.05", "optimizer=sgd", "epochs=2", "log.layers=false"]
    assert main(["train", f"resume={folder}", *agreeing]) == 0


def test_a_schedule_that_depends_on_the_length_is_not_extended(capsys: pytest.CaptureFixture[str]) -> None:
    folder = train("epochs=2", "schedule=cosine")
    capsys.readouterr()
    assert main(["train", f"resume={folder}", "epochs=3"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and re.search(r"epochs: .*schedule=cosine .*leave epochs out", error)


def test_reads_of_the_test_split_survive_a_resume() -> None:
    folder = train("epochs=1")
    assert main(["evaluate", str(folder)]) == 0
    assert main(["train", f"resume={folder}", "epochs=2"]) == 0
    assert json.loads((folder / "summary.json").read_text())["test_reads"] == 1


@pytest.mark.parametrize("signal_name", ["SIGINT", "SIGTERM"])
def test_a_signal_saves_a_checkpoint_and_the_run_goes_on_to_the_same_end(signal_name: str, tmp_path: Path) -> None:
    import signal

    command = [sys.executable, "-m", "dltips", "train", *SHORT, "epochs=200"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("epoch   3/"):
                process.send_signal(getattr(signal, signal_name))
        assert process.wait() == 130
    (folder,) = Path("outputs").iterdir()
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["status"] == "interrupted"
    done = epochs(folder)[-1]
    assert 3 <= done < 200
    assert main(["train", "resume=last", f"epochs={done + 1}"]) == 0
    assert all(
        torch.equal(weights(folder)[name], value) for name, value in weights(train(f"epochs={done + 1}")).items()
    )


@pytest.mark.skipif(os.name != "posix", reason="run folders are locked by flock")
def test_a_run_that_is_being_written_is_not_resumed(capsys: pytest.CaptureFixture[str]) -> None:
    command = [sys.executable, "-m", "dltips", "train", *SHORT, "epochs=100000"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        next(line for line in process.stderr if line.startswith("epoch "))
        (folder,) = Path("outputs").iterdir()
        for chosen in ("last", folder):
            assert main(["train", f"resume={chosen}"]) == 2
            _, err = capsys.readouterr()
            assert re.fullmatch(rf"dltips: resume: {folder} .*another process; wait for it, or stop it\n", err)
        process.terminate()
        process.stderr.read()
        assert process.wait() == 130
    done = epochs(folder)
    assert done == list(range(1, len(done) + 1))
    assert main(["train", f"resume={folder}", f"epochs={done[-1] + 1}"]) == 0


DISK_FULL = """
import resource, sys, threading
from pathlib import Path
from dltips.main import main

def fill():
    # the disk is full from the moment that two checkpoints lie there: no file may grow beyond 20 kB
    while not list(Path("outputs").glob("*/previous.pt")):
        pass
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))

threading.Thread(target=fill, daemon=True).start()
sys.exit(main(["train", *sys.argv[1:]]))
"""


@pytest.mark.skipif(os.name != "posix", reason="limits the size of files by POSIX means")
def test_a_full_disk_leaves_the_last_good_checkpoint_whole() -> None:
    options = [*SHORT, "checkpoint.interval=0", "epochs=2000"]
    done = subprocess.run([sys.executable, "-c", DISK_FULL, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "cannot be written" in done.stderr.splitlines()[-1] and "resume=" in done.stderr.splitlines()[-1]
    (folder,) = Path("outputs").iterdir()
    reached = checkpoint.read(folder / "last.pt")["epoch"]
    assert main(["train", "resume=last", f"epochs={reached + 1}"]) == 0
    assert all(
        torch.equal(weights(folder)[name], value) for name, value in weights(train(f"epochs={reached + 1}")).items()
    )
    assert not list(folder.glob(".*.tmp"))


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["augmentation=flip"], "augmentation=none (not flip)"),
        (["augmentation=[crop,flip]"], "augmentation=none (not crop,flip)"),
        (["regularization=l2"], "regularization=none (not l2)"),
        (["epochs=0"], "its 2 epochs"),
    ],
)
def test_another_stack_of_tips_or_no_epochs_is_refused(
    typed: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = train("epochs=2")
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    capsys.readouterr()
    assert main(["train", f"resume={folder}", *(["epochs=3"] if "epochs=0" not in typed else []), *typed]) == 2
    assert said in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("environment.json", b'{"versions": 3, "threads": -3}'),
        ("environment.json", b"[1]"),
        ("summary.json", b'{"test_reads": "x"}'),
        ("metrics.jsonl", b'{"epoch": "x"}\n'),
        ("metrics.jsonl", b"[1]\n"),
        ("metrics.jsonl", b"\xff\xfe\n"),
    ],
)
def test_a_damaged_file_beside_the_checkpoint_does_no_harm(name: str, content: bytes) -> None:
    folder = train("epochs=2")
    (folder / name).write_bytes(content)
    assert main(["train", f"resume={folder}", "epochs=3"]) == 0
    assert epochs(folder)[-1] == 3


@pytest.mark.parametrize(
    "stopping", [[], ["regularization=early_stopping", "regularization.early_stopping.patience=1"]]
)
def test_a_run_that_was_killed_before_its_summary_only_catches_up_on_its_end(stopping: list[str]) -> None:
    folder = train("epochs=9", *stopping)
    before, lines = weights(folder), (folder / "metrics.jsonl").read_text()
    summary = json.loads((folder / "summary.json").read_text())
    for name in ("summary.json", "best.pt"):
        (folder / name).unlink()
    assert main(["train", "resume=last"]) == 0
    assert all(torch.equal(value, before[name]) for name, value in weights(folder).items())
    assert (folder / "metrics.jsonl").read_text() == lines
    again = json.loads((folder / "summary.json").read_text())
    assert again["best"] == summary["best"] and again["stopped_early"] == summary["stopped_early"]
    assert (folder / "best.pt").exists()


def test_the_preprocessing_is_kept_not_fitted_again() -> None:
    """With other threads a covariance has other last bits, and the net would see other inputs."""
    folder = train("epochs=1", "preprocessing=pca_whiten")
    payload = torch.load(folder / "last.pt", weights_only=True)
    kind, buffers = payload["preprocessing"][0]
    buffers = {name: value + 0.01 for name, value in buffers.items()}
    checkpoint.write(folder, {**payload, "preprocessing": [(kind, buffers)]})
    assert main(["train", f"resume={folder}", "epochs=2"]) == 0
    (after,) = torch.load(folder / "last.pt", weights_only=True)["preprocessing"]
    assert all(torch.equal(after[1][name], value) for name, value in buffers.items())


def test_a_run_of_an_older_version_is_completed_by_what_came_since() -> None:
    """Its config lacks the keys of today: they are at their defaults, and what it has is kept."""
    folder, whole = train("epochs=2", "optimizer.lr=0.03"), train("epochs=3", "optimizer.lr=0.03")
    text = (folder / "config.yaml").read_text()
    begin = text.index("finetune:\n")
    end = text.index("seed:", begin)
    older = f"{text[:begin]}finetune:\n  name: none\n{text[end:]}".replace("  per_class: null\n", "")
    older = older.replace("  momentum: 0.9\n", "").replace("  picture: false\n", "").replace("compile: false\n", "")
    assert len(older) < len(text) - 100
    (folder / "config.yaml").write_text(older)
    payload = torch.load(folder / "last.pt", weights_only=True)
    del payload["plan"]
    torch.save(payload, folder / "last.pt")
    assert main(["evaluate", str(folder)]) == 0
    assert main(["train", f"resume={folder}", "epochs=3"]) == 0
    assert all(torch.equal(weights(folder)[name], value) for name, value in weights(whole).items())
