"""`dltips train -m`: every trial once, nothing run twice, nothing lost, failures recorded."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy
import pytest

from dltips.main import main
from dltips.sweep import trial
from dltips.sweep.grid import run_grid as grids
from dltips.train import summary

QUICK = ["epochs=2", "data.subset=150", "log.tensorboard=false", "log.layers=false", "device=cpu"]
Output = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def grid(*arguments: str, code: int = 0) -> Path:
    """The sweep's folder."""
    assert main(["train", "-m", *QUICK, *arguments]) == code
    return max(file.parent for file in Path("outputs").glob("*/sweep.json"))


def trials(place: Path) -> dict[str, dict[str, object]]:
    return {file.parent.name: json.loads(file.read_text()) for file in sorted(place.glob("*/summary.json"))}


def times(place: Path) -> dict[str, int]:
    return {file.parent.name: file.stat().st_mtime_ns for file in place.glob("*/summary.json")}


def test_one_folder_with_short_unique_names_and_a_table(capsys: Output) -> None:
    place = grid("init=he,zeros", "seed=range(2)", "name=my grid")
    assert place.name.endswith("-my-grid") and list(Path("outputs").iterdir()) == [place]
    found = trials(place)
    assert [name[:4] for name in found] == ["000-", "001-", "002-", "003-"] and max(map(len, found)) == 12
    assert [(run["settings"]["init"], run["seed"]) for run in found.values()] == [  # type: ignore[index]
        ("he", 0),
        ("he", 1),
        ("zeros", 0),
        ("zeros", 1),
    ]
    described = json.loads((place / "sweep.json").read_text())
    assert described["kind"] == "grid" and described["varied"] == ["init", "seed"]
    assert [trial["folder"] for trial in described["trials"]] == list(found)
    out, err = capsys.readouterr()
    best = max(found, key=lambda name: found[name]["best"]["val/accuracy"])  # type: ignore[index]
    assert f"folder    {place / best}" in out and "4 finished" in out
    assert [line for line in err.splitlines() if line.startswith("trial ")][2].startswith("trial 2  init=zeros seed=0")


def test_the_same_command_runs_nothing_again() -> None:
    place = grid("seed=range(2)")
    before = times(place)
    assert grid("seed=range(2)") == place and times(place) == before


def test_a_larger_grid_takes_over_what_is_finished() -> None:
    first = grid("seed=range(2)")
    alone = main(["train", *QUICK, "seed=5"])
    assert alone == 0
    second = grid("seed=1,2,5")
    assert second != first and [name[:3] for name in trials(second)] == ["001"]
    places_of = [trial["folder"] for trial in json.loads((second / "sweep.json").read_text())["trials"]]
    taken = [json.loads((second / folder / "summary.json").read_text())["seed"] for folder in places_of]
    assert taken == [1, 2, 5]


def test_a_trial_that_was_cut_off_goes_on_to_the_same_bits(capsys: Output) -> None:
    place = grid("seed=range(2)", "checkpoint.interval=0")
    run = sorted(place.glob("001-*"))[0]
    whole = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    (run / "summary.json").unlink()
    shutil.move(run / "previous.pt", run / "last.pt")  # of epoch 1
    kept = times(place)
    assert grid("seed=range(2)", "checkpoint.interval=0") == place
    again = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    untimed = [
        {key: value for key, value in record.items() if "seconds" not in key and "second" not in key}
        for record in again
    ]
    assert untimed == [{key: record[key] for key in line} for record, line in zip(whole, untimed, strict=True)]
    assert "resuming" in (run / "run.log").read_text()
    assert {name: time for name, time in times(place).items() if name != run.name} == kept


def test_a_diverged_trial_is_recorded_and_the_others_go_on(capsys: Output) -> None:
    place = grid("optimizer.lr=0.1,1e30,0.01", "model.norm=none", code=5)
    assert [run["status"] for run in trials(place).values()] == ["finished", "diverged", "finished"]
    assert "2 finished, 1 diverged" in capsys.readouterr().out
    before = times(place)
    assert grid("optimizer.lr=0.1,1e30,0.01", "model.norm=none", code=5) == place and times(place) == before
    grid("optimizer.lr=0.1,1e30,0.01", "model.norm=none", "--retry", code=5)
    changed = [name for name, time in times(place).items() if time != before[name]]
    assert [name[:3] for name in changed] == ["001"]


def test_another_version_of_the_code_runs_them_again(monkeypatch: pytest.MonkeyPatch) -> None:
    first = grid("seed=1,2")
    for module in (summary, grids, trial):
        monkeypatch.setattr(module, "code_hash", lambda: "another")
    assert grid("seed=1,2") != first
    assert [len(trials(place)) for place in sorted(Path("outputs").iterdir())] == [2, 2]


def test_other_data_run_them_again(here: Path) -> None:
    def save(shift: float) -> None:
        generator = numpy.random.default_rng(0)
        labels = numpy.arange(200) % 2
        numpy.savez(here / "mine.npz", x=generator.normal(size=(200, 4)).astype("f4") + shift, y=labels)

    data = ["data=npz", "data.file=mine.npz", "data.subset=null"]
    save(0.0)
    first = grid(*data, "seed=1,2")
    assert grid(*data, "seed=1,2") == first
    save(1.0)
    assert grid(*data, "seed=1,2") != first


def test_the_same_trial_twice_runs_once(capsys: Output) -> None:
    place = grid("optimizer.lr=0.1,0.10")
    assert len(trials(place)) == 1 and "the same as trial 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["seed=1,2", "regularization=swa", "regularization.swa.start=1,9"], "regularization.swa.start: epoch 9 comes"),
        (["data.expand=0,2", "augmentation=[mixup]", "data=synthetic"], "data.expand: mixup mixes the samples"),
        (["batch_size=10,151"], "batch_size: 151 is more than the 150 training samples"),
        (["seed=1,2", "metric=val/loss,val/accuracy"], "metric: decides which trial is the best"),
        (["init=he,xavier", "finetune=none,full"], "finetune.source: is missing"),
        (["seed=1,2", "hydra/launcher=basik"], "hydra/launcher: 'basik' is not a launcher; did you mean basic?"),
        (["seed=1,2", "--workers=two"], "--workers: 'two' is not a number of processes; write --workers=2"),
        (["seed=1,2", "--zip=seed"], "--zip: 'seed' names fewer than two keys; write --zip=init,activation"),
        (["seed=1,2", "--retry=yes"], "--retry=yes: takes no value; write --retry"),
        (["seed=1,2", "--workers=²"], "--workers: '²' is not a number of processes; write --workers=2"),
        (["seed=range(0,10,0)"], "seed=range(0,10,0): range() arg 3 must not be zero"),
        (["seed=1,2", "batch_size=10,151"], "lower it (trial seed=1 batch_size=151)"),
        (["seed=1,2", "--workers"], "--workers: wants a value; write --workers=2"),
    ],
)
def test_a_bad_trial_is_refused_before_the_first_and_leaves_nothing(
    arguments: list[str], message: str, capsys: Output
) -> None:
    assert main(["train", "-m", *QUICK, *arguments]) == 2
    assert message in capsys.readouterr().err and not Path("outputs").exists()


def test_the_flags_of_a_grid_want_a_grid(capsys: Output) -> None:
    assert main(["train", *QUICK, "--dry-run"]) == 2
    assert capsys.readouterr().err == "dltips: --dry-run: is for a grid of runs; write dltips train -m ...\n"


def test_curves_are_drawn_of_the_best_run_alone_unless_all_are_asked_for() -> None:
    place = grid("seed=range(3)")
    scores = {name: run["best"]["val/accuracy"] for name, run in trials(place).items()}  # type: ignore[index]
    assert [file.parent.name for file in place.glob("*/curves.png")] == [max(scores, key=lambda name: scores[name])]
    assert len(list(grid("seed=3,4", "log.pictures=all").glob("*/curves.png"))) == 2
    assert list(grid("seed=5,6", "log.pictures=none").glob("*/curves.png")) == []


def test_data_are_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from dltips.feed import dataset_cache

    calls: list[str] = []
    load = dataset_cache.load

    def counted(tip, *arguments):  # type: ignore[no-untyped-def]
        calls.append(tip.name)
        return load(tip, *arguments)

    monkeypatch.setattr(dataset_cache, "load", counted)
    grid("seed=range(3)", "init=he,xavier")
    assert calls == ["digits"]


def test_a_grid_s_run_is_the_run_by_itself() -> None:
    """Sharing data and a process changes no bit."""
    place = grid("seed=1,2", "regularization=[dropout]", "regularization.dropout.min_units=1", "init=he,lsuv")
    assert (
        main(["train", *QUICK, "seed=2", "regularization=[dropout]", "regularization.dropout.min_units=1", "init=lsuv"])
        == 0
    )
    (alone,) = (file.parent for file in Path("outputs").glob("*/summary.json"))
    last = sorted(place.glob("003-*"))[0]
    lines = [[json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in (alone, last)]
    for one, other in zip(*lines, strict=True):
        assert {key: value for key, value in one.items() if "second" not in key} == {
            key: value for key, value in other.items() if "second" not in key
        }


def test_what_is_edited_while_a_run_trains_is_not_what_it_was_made_by(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tips = here / "my_tips.py"
    tips.write_text(TIP.format(value="0.01"))
    (here / "configs" / "init").mkdir(parents=True)
    (here / "configs" / "init" / "same.yaml").write_text("name: same\n")
    environment = os.environ | {"DLTIPS_IMPORT": "my_tips.py"}
    command = [sys.executable, "-m", "dltips", "train", "-m", *QUICK, "epochs=30", "init=same", "seed=1,2"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stderr is not None
    next(line for line in process.stderr if "2 trials" in line)
    tips.write_text(TIP.format(value="0.02"))
    process.communicate()
    again = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert again.returncode == 0 and "done before" not in again.stderr


TIP = """\
from dltips.registry import family

init = family("init")


@init
def same(model, generator_for, inputs):
    \"\"\"Every parameter the same.\"\"\"
    for parameter in model.parameters():
        parameter.data.fill_({value})
"""


def test_options_by_glob_and_the_last_of_two_overrides() -> None:
    place = grid("preprocessing=glob(m*)", "seed=0", "seed=1,2", "epochs=1")
    found = [(run["settings"]["preprocessing"], run["seed"]) for run in trials(place).values()]  # type: ignore[index]
    assert found == [("min_max", 1), ("min_max", 2), ("minus_one_one", 1), ("minus_one_one", 2)]


def test_ctrl_c_between_two_trials_keeps_what_is_done(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    real = grids.GridProgress.ended

    def ended(self, outcome):  # type: ignore[no-untyped-def]
        real(self, outcome)
        if outcome.number == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(grids.GridProgress, "ended", ended)
    place = grid("seed=range(4)", code=130)
    assert len(trials(place)) == 2 and "2 finished, 2 not run" in capsys.readouterr().out
    monkeypatch.setattr(grids.GridProgress, "ended", real)
    assert grid("seed=range(4)") == place and len(trials(place)) == 4


COMMAND = [sys.executable, "-m", "dltips", "train", "-m", *QUICK, "epochs=40", "checkpoint.interval=0", "seed=range(6)"]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_grid_killed_again_and_again_ends_with_every_trial_once(here: Path, workers: int) -> None:
    command = [*COMMAND, f"--workers={workers}"]
    for number in range(3):
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        wanted = f"trial {2 * number}" if workers == 1 else "trial "
        for line in process.stderr:  # until a trial of this session is done
            if line.startswith(wanted):
                break
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    assert subprocess.run(command, capture_output=True).returncode == 0
    (place,) = Path("outputs").iterdir()
    found = trials(place)
    assert [run["seed"] for run in found.values()] == list(range(6))
    assert {run["status"] for run in found.values()} == {"finished"}
    for name in found:
        epochs = [json.loads(line)["epoch"] for line in (place / name / "metrics.jsonl").read_text().splitlines()]
        assert epochs == list(range(1, 41))


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        ([30, 30, 30, 30], ["1:30 left", "1:00 left", "0:30 left", ""]),  # each as long as those before
        ([10, 50, 30, 10], ["0:30 left", "1:00 left", "0:30 left", ""]),  # as long as those before on the average
        ([5, 5, 5, 5], ["0:15 left", "0:10 left", "", ""]),  # less than ten seconds are not worth a word
    ],
)
def test_the_time_left_is_that_of_the_trials_done_for_each_that_is_not(
    seconds: list[int], said: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    now = 0.0
    monkeypatch.setattr(grids.time, "perf_counter", lambda: now)
    varied = [{"seed": number} for number in range(4)]
    left = [trial.Trial(number, {"epochs": 1}, each, f"{number}", "") for number, each in enumerate(varied)]
    progress = grids.GridProgress(grids.Grid(left, [], "val/accuracy"), left, live=False)
    for number, took in enumerate(seconds):
        now += took
        progress.ended(trial.TrialOutcome(number, "finished", Path(), score=0.5, seconds=took))
    lines = capsys.readouterr().err.splitlines()
    assert [line.rpartition(" s")[2].strip() for line in lines] == said
