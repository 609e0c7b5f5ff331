"""Every mistake in a search is one line on stderr and exit code 2, and leaves the folder as it was."""

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from dltips.main import main
from dltips.registry import ConfigError
from dltips.sweep import settings as settings_module
from dltips.sweep.settings import objectives, read, seconds, split

Refused = Callable[..., str]
QUICK = ("+recipe=quickstart", "epochs=1", "log.tensorboard=false", "log.pictures=none", "log.layers=false")
LR = "optimizer.lr=tag(log,interval(1e-3,1))"


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refused:
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> str:
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        capsys.readouterr()
        code = main(["sweep", *arguments])
        out, err = capsys.readouterr()
        assert (code, out) == (2, ""), err
        assert err.startswith("dltips: ") and err.count("\n") == 1 and "Traceback" not in err, err
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
        return err.removeprefix("dltips: ").rstrip("\n")

    return call


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (("trials=0", LR), "trials: 0 is no search; write trials=20"),
        (("trials=-1", LR), "trials: -1 is out of range; it must be at least 0"),
        (("trials=many", LR), "trials: 'many' is not a whole number"),
        (("tirals=5", LR), "tirals: there is no such key; did you mean trials?"),
        (("sampler=tpee", LR), "sampler: 'tpee' is none of random, tpe, qmc, cmaes; did you mean tpe?"),
        (("sampler=random,tpe", LR), "sampler: takes one value, not random,tpe; write sampler=VALUE"),
        (("pruner=ahsa", LR), "pruner: 'ahsa' is none of none, median, asha, hyperband; did you mean asha?"),
        (("objective=val/acuracy", LR), "objective: 'val/acuracy' is no score of a run; did you mean val/accuracy?"),
        (
            ("objective=val/accuracy,parameters", LR),
            "objective: takes one value, not val/accuracy,parameters; write 'objective=[val/accuracy,parameters]'",
        ),
        (
            ("objective=[val/accuracy,parameters]", "pruner=asha", LR),
            "pruner: asha judges by one objective, and here are 2; write pruner=none",
        ),
        (
            ("objective=parameters", "pruner=asha", LR),
            "pruner: asha judges by a score of each epoch, which parameters is not",
        ),
        (
            ("objective=val/loss", "metric=val/accuracy", LR),
            "metric: val/accuracy is not among the objectives (val/loss); leave it out",
        ),
        (("timeout=soon", LR), "timeout: 'soon' is no time; write 2h, 30m or a number of seconds"),
        (("timeout=0", LR), "timeout: 0.0 is no time; write 2h, 30m or a number of seconds"),
        (("seeds=0", LR), "seeds: 0 is out of range; it must be at least 1"),
        (("reduction=1", LR), "reduction: 1 would let every trial go on; write reduction=3"),
        (("study/name=x", LR), "study/name: there is no such key; a study's name is name=NAME"),
        (("storage=nowhere", LR), "storage: is no address of a database; it takes postgresql://USER@HOST/DATABASE, or"
         " nothing: a file in the sweep's folder"),
        (("storage=mysql://me@host/db", LR), "storage: mysql is no database for a search; it takes"
         " postgresql://USER@HOST/DATABASE, or nothing: a file in the sweep's folder"),
        (("storage=postgresql://me:secret@host", LR), "storage: postgresql://me:***@host names no database; it takes"
         " postgresql://USER@HOST/DATABASE, or nothing: a file in the sweep's folder"),
        (("-m", LR), "-m: is no option of dltips sweep; a search is many runs anyway"),
        (("--workers", LR, "--workers"), "workers: 'tag(log' is not a whole number"),
        (("--workres=2", LR), "--workres=2: is no option of dltips sweep; --help says more"),
        (("resume=nowhere",), "resume: nowhere does not exist; give one that dltips sweep has made, or last"),
        (("resume=last", "sampler=qmc"), "resume: sampler is as the search has it; what may differ: trials, timeout,"
         " workers, storage, patience, grace"),
        (("resume=last", LR), "resume: optimizer.lr is as the search has it; what may differ: trials, timeout,"
         " workers, storage, patience, grace"),
        (("sampler=cmaes", "optimizer.lr=interval(0.1,1)"), "sampler: cmaes searches over two intervals or more, and"
         " here are fewer; write sampler=tpe"),
        (("seed=range(3)",), "seed: seeds are not searched over, or the luckiest wins; write seeds=3 to average over"
         " as many"),
        (("regularization.dropout.p=interval(0,0.5)",), "regularization.dropout.p: dropout is not switched on; write"
         " 'regularization=[dropout]'"),
        (("optimizer.lr=interval(1,0.1)",), "optimizer.lr: interval(1,0.1) begins above its end; write"
         " 'optimizer.lr=interval(0.1,1)'"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(refused: Refused, typed: tuple[str, ...], message: str) -> None:
    if typed[0] == "--workers":
        typed = ("--workers", "two", LR)
        message = "workers: 'two' is not a whole number"
    assert refused(*QUICK, *typed) == message if "resume" not in typed[0] else refused(*typed) == message


def test_what_only_data_can_say_is_said_before_the_first_trial(refused: Refused) -> None:
    assert refused(*QUICK, "batch_size=64,100000").startswith("batch_size: ")


def begun(*more: str) -> Path:
    assert main(["sweep", *QUICK, "init=he,xavier", "trials=1", *more]) == 0
    (file,) = Path("outputs").glob("*/sweep.json")
    return file.parent


def test_a_damaged_database(refused: Refused) -> None:
    place = begun()
    (place / "study.db").write_bytes(b"this is not a database, " * 100)
    message = refused(f"resume={place}", "patience=0.1")
    assert message == (
        f"storage: {(place / 'study.db').absolute()} cannot be used (file is not a database); move it away, or name"
        " another sweep with name=NAME"
    )


def test_a_locked_database(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dltips.sweep.storage.SQLITE_WAIT", 0.05)
    place = begun()
    other = sqlite3.connect(place / "study.db")
    other.execute("BEGIN EXCLUSIVE")
    message = refused(f"resume={place}", "patience=0.1")
    other.close()
    assert message == (
        f"storage: {(place / 'study.db').absolute()} cannot be used (database is locked); another program holds it:"
        " end that, and run the same command again"
    )


def test_a_database_that_was_deleted_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    place = begun()
    (place / "study.db").unlink()
    assert main(["sweep", f"resume={place}"]) == 0


def test_half_a_sweep_json(refused: Refused) -> None:
    place = begun()
    text = (place / "sweep.json").read_text()
    (place / "sweep.json").write_text(text[: len(text) // 2])
    assert refused(f"resume={place}") == (
        f"resume: {place} is not the folder of a search; give one that dltips sweep has made, or last"
    )
    content = json.loads(text)
    del content["search"]["space"]
    (place / "sweep.json").write_text(json.dumps(content))
    assert refused(f"resume={place}") == f"resume: the search of {place} cannot be read ('space'); start another"


def test_another_search_of_the_same_name(refused: Refused) -> None:
    begun("name=mine")
    assert refused(*QUICK, "init=he,zeros", "name=mine", "sampler=qmc") == (
        "name: the study mine has init=he,xavier (not he,zeros), sampler=tpe (not qmc); give the same command, or"
        " name=ANOTHER"
    )


@pytest.mark.parametrize(
    ("typed", "found"),
    [("2h", 7200.0), ("30m", 1800.0), ("1h30m", 5400.0), (90, 90.0), ("1.5h", 5400.0), ("2d", 172800.0)],
)
def test_times(typed: str | float, found: float) -> None:
    assert seconds(typed) == found


def test_settings_of_a_search_and_of_its_runs_are_told_apart() -> None:
    own, rest = split(["trials=3", LR, "--workers", "4", "+recipe=quickstart", "objective=[val/accuracy,seconds]"])
    assert (own, rest) == (
        ["trials=3", "workers=4", "objective=[val/accuracy,seconds]"],
        [LR, "+recipe=quickstart"],
    )
    found = read(own)
    assert (found.trials, found.workers, objectives(found)) == (3, 4, ["val/accuracy", "seconds"])


def test_the_environment_may_hold_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDY", "postgresql://me@host/db")
    assert read(["storage=${oc.env:STUDY}"]).storage == "postgresql://me@host/db"
    with pytest.raises(ConfigError, match=r"^storage: "):
        read(["storage=${oc.env:NO_SUCH_VARIABLE}"])


def test_defaults_are_what_help_says() -> None:
    from dltips.commands.sweep import HELP

    for name in ("trials", "sampler", "pruner", "seeds", "workers", "reduction"):
        field = settings_module.SearchSettings.__dataclass_fields__[name]
        assert f"  {name}={field.default}" in HELP
