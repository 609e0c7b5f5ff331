"""Every mistake in a search is one line on stderr and exit code 2, and leaves the folder as it was."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from dltips.errors import ConfigError
from dltips.feed.dataset_cache import DatasetCache
from dltips.main import main
from dltips.sweep.search import run_search
from dltips.sweep.search.search_settings import SearchSettings
from dltips.sweep.search.space import Space, resolve
from dltips.sweep.search.storage import url_of

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
        (("trials=0", LR), "trials: 0 is too few; write trials=20"),
        (("trials=-1", LR), "trials: -1 is out of range; it must be at least 0"),
        (("trials=100001", LR), "trials: 100001 is too many; there are at most 100,000 in a study"),
        (("trials=many", LR), "trials: 'many' is not a whole number"),
        (("tirals=5", LR), "tirals: there is no such key; did you mean trials?"),
        (("sampler=tpee", LR), "sampler: 'tpee' is not one of random, tpe, qmc, cmaes; did you mean tpe?"),
        (("sampler=random,tpe", LR), "sampler: takes one value, not random,tpe; write sampler=VALUE"),
        (("pruner=ahsa", LR), "pruner: 'ahsa' is not one of none, median, asha, hyperband; did you mean asha?"),
        (("objective=val/acuracy", LR), "objective: 'val/acuracy' is not a score of a run; did you mean val/accuracy?"),
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
        (("timeout=soon", LR), "timeout: 'soon' is not a time; write 2h, 30m or a number of seconds"),
        (("timeout=0", LR), "timeout: 0.0 is not a time; write 2h, 30m or a number of seconds"),
        (("seeds=0", LR), "seeds: 0 is out of range; it must be at least 1"),
        (("reduction=1", LR), "reduction: 1 would let every trial go on; write reduction=3"),
        (("study/name=x", LR), "study/name: there is no such key; a study's name is name=NAME"),
        (("storage=nowhere", LR), "storage: is not an address of a database; it takes postgresql://USER@HOST/DATABASE,"
         " or nothing: a file in the sweep's folder"),
        (("storage=mysql://me@host/db", LR), "storage: mysql is not a database for a search; it takes"
         " postgresql://USER@HOST/DATABASE, or nothing: a file in the sweep's folder"),
        (("storage=postgresql://me:secret@host", LR), "storage: postgresql://me:***@host names no database; it takes"
         " postgresql://USER@HOST/DATABASE, or nothing: a file in the sweep's folder"),
        (("-m", LR), "-m: is not an option of dltips sweep; a search is many runs anyway"),
        (("--workers", LR, "--workers"), "workers: 'tag(log' is not a whole number"),
        (("--workres=2", LR), "--workres=2: is not an option of dltips sweep; --help says more"),
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
        (("hydra/launcher=ray", LR), "hydra/launcher=ray: is refused; the workers of a search are --workers N, or"
         " the same command elsewhere with storage=ADDRESS"),
        (("hydra.launcher.num_cpus=2", LR), "hydra.launcher.num_cpus=2: is refused; the workers of a search are"
         " --workers N, or the same command elsewhere with storage=ADDRESS"),
        (("hydra.sweeper.n_trials=5", LR), "hydra.sweeper.n_trials=5: is refused; a search has its own: sampler=tpe,"
         " trials=20"),
        (("hydra.sweep.dir=x", LR), "hydra.sweep.dir=x: is refused; runs lie under ./outputs, and name=NAME shows in"
         " their folder's name"),
        (("epochs=3", "min_epochs=10", "pruner=asha", LR), "min_epochs: 10 is not before a run's last epoch, 3"
         " at the most: asha would never end one; write min_epochs=1"),
        (("epochs=60", "min_epochs=60", "pruner=median", LR), "min_epochs: 60 is not before a run's last epoch, 60"
         " at the most: median would never end one; write min_epochs=2"),
        (("epochs=3,5", "min_epochs=5", "pruner=hyperband"), "min_epochs: 5 is not before a run's last epoch, 5"
         " at the most: hyperband would never end one; write min_epochs=1"),
        (("min_epochs=1", LR), "min_epochs: pruner=none looks at no trial; write pruner=asha, or leave it out"),
        (("reduction=2", "pruner=median", LR), "reduction: pruner=median has none; write pruner=asha, or leave it out"),
        (("min_epochs=1", "pruner=asha", LR), "min_epochs: 1 is not before a run's last epoch, 1"
         " at the most: asha would never end one; write pruner=none"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(refused: Refused, typed: tuple[str, ...], message: str) -> None:
    if typed[0] == "--workers":
        typed = ("--workers", "two", LR)
        message = "workers: 'two' is not a whole number"
    quick = [each for each in QUICK if not (each.startswith("epochs=") and typed[0].startswith("epochs="))]
    assert refused(*quick, *typed) == message if "resume" not in typed[0] else refused(*typed) == message


def test_what_only_data_can_say_is_said_before_the_first_trial(refused: Refused) -> None:
    assert refused(*QUICK, "batch_size=64,100000").startswith("batch_size: ")


def begun(*more: str) -> Path:
    assert main(["sweep", *QUICK, "init=he,xavier", "trials=1", *more]) == 0
    (file,) = Path("outputs").glob("*/sweep.json")
    return file.parent


@pytest.mark.parametrize("emptied", [False, True])
def test_a_database_that_is_lost_is_begun_again_with_what_was_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], emptied: bool
) -> None:
    """As many trials, the same parameters, and no run twice; a sampler may draw others, as TPE of two workers would."""
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", *QUICK, "init=he,xavier", LR, "trials=3", "--workers=2"]) == 0
    (file,) = Path("outputs").glob("*/sweep.json")
    place = file.parent
    before = {run: run.stat().st_mtime_ns for run in place.glob("*/metrics.jsonl")}
    (place / "study.db").write_bytes(b"") if emptied else (place / "study.db").unlink()
    capsys.readouterr()
    monkeypatch.setattr("dltips.sweep.search.samplers.seed_of", lambda seed, number: 1000 + number)
    assert main(["sweep", f"resume={place}"]) == 0
    out, err = capsys.readouterr()
    assert f"{place}: its study is gone, and begun again with 3 trials; what runs are there are taken over" in err
    assert "3 trials: 3 complete" in out and json.loads(file.read_text())["count"] == 3
    assert len(before) == 3 and {run: run.stat().st_mtime_ns for run in place.glob("*/metrics.jsonl")} == before


@pytest.mark.parametrize("resumed", [False, True])
def test_other_code_or_other_data_is_another_search(
    refused: Refused, monkeypatch: pytest.MonkeyPatch, resumed: bool
) -> None:
    place = begun("name=mine")
    again = (f"resume={place}",) if resumed else (*QUICK, "init=he,xavier", "trials=1", "name=mine")
    with monkeypatch.context() as patch:
        patch.setattr(run_search, "code_hash", lambda: "0123456789abcdef")
        assert refused(*again) == (
            "name: the study mine was made with other code than runs now (dltips, your tips, torch or numpy); go back"
            " to that, or search anew with name=ANOTHER"
        )
    monkeypatch.setattr(run_search.Origin, "hash", "0123456789abcdef")
    assert refused(*again) == (
        "name: the study mine has other data or weights than there are now; bring them back, or search anew with"
        " name=ANOTHER"
    )


def test_data_are_told_apart_by_what_is_in_them() -> None:
    hashes = []
    for more in ((), (), ("data.split_seed=7",)):
        origin = run_search.Origin(DatasetCache())
        resolve([*QUICK, *more, "init=he,xavier"]).check(origin.look)
        hashes.append(origin.hash)
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_search_is_gone_on_with_where_its_study_is(refused: Refused) -> None:
    place = begun()
    assert refused(f"resume={place}", "storage=postgresql://me:secret@host/db") == (
        f"storage: the study of {place} is its study.db, not in a server; leave storage out"
    )
    content = json.loads((place / "sweep.json").read_text())
    (place / "sweep.json").write_text(json.dumps({**content, "storage": "postgresql://me@host/db"}))
    assert refused(f"resume={place}") == (
        f"resume: the study of {place} lies in postgresql://me@host/db; give its storage=ADDRESS"
    )
    for other in ("elsewhere/db", "host/another"):
        assert refused(f"resume={place}", f"storage=postgresql://me:secret@{other}") == (
            f"storage: the study of {place} lies in postgresql://me@host/db, not in postgresql://me@{other}; give that"
            " address"
        )


@pytest.mark.parametrize("name", ["../../etc", "", "20260101-000000-000000-abcdef/../../x", None])
def test_a_folder_from_a_database_is_one_of_ours(name: str | None) -> None:
    plan = run_search.SearchPlan(Space({"metric": "val/accuracy"}, ()), SearchSettings(), ("val/accuracy",), (), "mine")
    content = {"search": plan.to_json(), "name": None, "folder": name}
    with pytest.raises(ConfigError, match=r"^name: the study mine of postgresql://host/db names no folder; write name"):
        run_search.agreed_plan(plan, content, url_of("postgresql://host/db", Path()), None)


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
