"""dltips compare as it is typed: real folders, what is printed where, and what it does not import."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dltips.main import main

CONFIG = "seed: {seed}\ndata: {{name: digits}}\ninit: {{name: {init}}}\nmetric: val/accuracy\n"
SCORES = {"he": (0.95, 0.93, 0.97), "xavier": (0.91, 0.92, 0.93)}


def write(folder: Path, init: str, seed: int, score: float | None, **more: Any) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(CONFIG.format(seed=seed, init=init))
    best = {"epoch": 2, "val/accuracy": score, "val/loss": 0.1}
    settings = {"seed": seed, "data": "digits", "init": init, "metric": "val/accuracy"}
    summary = {"status": "finished", "settings": settings, "best": best, "seconds": 12.0, "size_mb": 0.25} | more
    (folder / "summary.json").write_text(json.dumps(summary))
    records = [{"epoch": epoch, "val/accuracy": (score or 0) - 0.01 * epoch} for epoch in (1, 2)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for init, scores in SCORES.items():
        for seed, score in enumerate(scores):
            write(tmp_path / "outputs" / "sweep" / f"{init}-{seed}", init, seed, score)
    write(tmp_path / "outputs" / "zeros", "zeros", 0, None, status="diverged")
    (write(tmp_path / "outputs" / "cut", "he", 5, 0.1) / "summary.json").unlink()
    return tmp_path / "outputs"


def test_the_table(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    # he: t(2, 0.975) = 4.3027 times 0.02 / sqrt(3); differences 0.04, 0.01, 0.04: t = 3, p = 0.0955
    assert out == (
        "group          n  val/accuracy      sd     95 %  seconds    MB  difference       p\n"
        "init=he        3        0.9500  0.0200  ±0.0497     12.0  0.25        best       -\n"
        "init=xavier    3        0.9200  0.0100  ±0.0248     12.0  0.25     -0.0300  0.0955\n"
        "init=zeros   0/1      diverged       -        -        -     -           -       -\n"
        "\n"
        "2 runs left out: 1 unfinished (init=he), 1 diverged (init=zeros)\n"
        "p: paired t-test over seeds, to the best; the best was picked by looking, --baseline names one beforehand\n"
    )


def test_the_options_of_a_table(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "outputs/sweep", "--by", "data, init", "--baseline", "init=xavier"]) == 0
    out, _ = capsys.readouterr()
    assert "\ndata=digits init=he      3        0.9500  0.0200  ±0.0497     12.0  0.25     +0.0300  0.0955\n" in out
    assert out.endswith("p: paired t-test over seeds, to the baseline\n")
    assert main(["compare", "outputs/sweep/he-*", "--metric", "val/loss"]) == 0
    out, _ = capsys.readouterr()
    assert out.startswith("group  n  val/loss") and "\nall    3    0.1000  0.0000" in out


def test_csv_to_stdout_is_csv_alone(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--csv", "-"]) == 0
    out, err = capsys.readouterr()
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [(row["init"], row["n"]) for row in rows] == [("he", "3"), ("xavier", "3"), ("zeros", "0")]
    assert err.startswith("2 runs left out: ")


def test_csv_and_picture_go_to_files(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--csv", "a.csv", "--plot", "a.png"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("group ") and err == "picture   a.png\ntable     a.csv\n"
    assert Path("a.csv").read_text().startswith("group,init,n,")
    assert Path("a.png").read_bytes().startswith(b"\x89PNG")


def test_json_is_json(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--json"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert plain["groups"][0]["folders"] == ["outputs/cut", *(f"outputs/sweep/he-{seed}" for seed in range(3))]
    assert plain["left_out"] == ["1 unfinished (init=he)", "1 diverged (init=zeros)"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gone"], "gone: does not exist; give a run, a sweep, or a folder of them"),
        (["gone*"], "gone*: the pattern matches no folder; try ls -d gone*"),
        (["--by", ","], "by: ',' names no setting; write --by init,optimizer.lr"),
        (["--by", "inti"], "by: 'inti' is not a setting of these runs; did you mean init?"),
        (["--metric", "val/acuracy"], "metric: 'val/acuracy' is not in these runs; did you mean val/accuracy?"),
        (["--baseline", "init=hee"], "baseline: 'init=hee' matches no group; did you mean init=he?"),
        (["--csv", "-", "--json"], "csv: - and --json would both go to stdout; give --csv a file"),
        (["--csv", "gone/a.csv"], "csv: gone/a.csv cannot be written (No such file or directory); choose another file"),
        (["--plot", "a.bmp"], "plot: a.bmp is not a picture that can be written; end it in .png, .svg, .pdf"),
        (["--bye"], "dltips compare: unrecognized arguments: --bye; see dltips compare --help"),
    ],
)
def test_mistakes_are_one_line(
    outputs: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["compare", *arguments]) == 2
    assert capsys.readouterr() == ("", f"dltips: {message}\n")


def test_a_terminal_gets_no_control_characters_and_markup_is_shown(
    outputs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(outputs / "odd", "[bold]x\x1b[2J\x07", 0, 0.5)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(["compare"]) == 0
    out, _ = capsys.readouterr()
    assert "init=[bold]x[2J " in out
    assert "\x1b[2J" not in out and "\x07" not in out


def test_a_stdout_without_the_sign_gets_another_one(outputs: Path) -> None:
    command = [sys.executable, "-m", "dltips", "compare"]
    done = subprocess.run(command, capture_output=True, check=True, env=os.environ | {"PYTHONIOENCODING": "ascii"})
    lines = done.stdout.decode("ascii").splitlines()
    assert lines[1] == "init=he        3        0.9500  0.0200 +-0.0497     12.0  0.25        best       -"


@pytest.mark.parametrize("verb", [["compare"], ["compare", "--plot", "a.png"], ["diff", "last", "outputs/zeros"]])
def test_it_reads_runs_without_what_is_slow_to_import(outputs: Path, verb: list[str]) -> None:
    (outputs / "cut" / "config.yaml").unlink()  # the only run without settings
    script = (
        "import sys; from dltips.main import main; code = main(sys.argv[1:]);"
        "print(*sorted({'torch', 'pandas', 'tensorboard', 'scipy.stats', 'matplotlib.pyplot'} & set(sys.modules)));"
        "print(*sorted({'hydra', 'matplotlib'} & set(sys.modules))); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", script, *verb], capture_output=True, text=True, check=True)
    slow, late = done.stdout.splitlines()[-2:]
    assert slow == ""
    assert late == ("matplotlib" if "--plot" in verb else "")


LAYER = "layers/hidden1.layer/variance"


@pytest.fixture
def curves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three seeds of two inits, best at epoch 2 of 3; xavier is slower, and its third seed gets no further than 0.9."""
    monkeypatch.chdir(tmp_path)
    for init, first in (("he", 0.94), ("xavier", 0.86)):
        for seed in range(3):
            scores = [first, first + 0.04 - 0.03 * (init == "xavier" and seed == 2), first + 0.02]
            best = {"epoch": 2, "val/accuracy": scores[1], "train_val_gap": 0.5 - first + 0.01 * seed}
            folder = write(tmp_path / "outputs" / f"{init}-{seed}", init, seed, None, best=best)
            lines = [
                {"epoch": epoch, "seconds": 0.5 * epoch, "val/accuracy": score, LAYER: epoch * first + 0.01 * seed}
                | {"layers/hidden1.activation/dead": first}
                for epoch, score in enumerate(scores, 1)
            ]
            (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path / "outputs"


def compared(capsys: pytest.CaptureFixture[str], metric: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["compare", "--metric", metric, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_a_layer_s_statistic_is_that_of_the_best_epoch_and_claims_no_best(
    curves: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = compared(capsys, LAYER)
    assert [group["group"] for group in found["groups"]] == ["init=xavier", "init=he"], "the lowest comes first"
    assert [group["mean"] for group in found["groups"]] == pytest.approx([2 * 0.86 + 0.01, 2 * 0.94 + 0.01])
    assert found["better"] is None
    assert main(["compare", "--metric", LAYER]) == 0
    out = capsys.readouterr().out
    assert " lowest " in out and "best" not in out.replace("is better", "")
    assert f"note: neither way of {LAYER} is better: the groups are ordered by it, the lowest first" in out
    assert compared(capsys, "layers/hidden1.activation/dead")["better"] == "lower"


def test_the_gap_is_better_where_it_is_lower(curves: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = compared(capsys, "train_val_gap")
    assert (found["better"], found["groups"][0]["group"]) == ("lower", "init=he")


def test_a_goal_is_the_first_epoch_or_second_that_reaches_it(curves: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = compared(capsys, "epochs_to:val/accuracy:0.89")
    assert [(group["group"], group["mean"], group["n"]) for group in found["groups"]] == [
        ("init=he", 1, 3),
        ("init=xavier", 2, 2),
    ]
    assert [group["mean"] for group in compared(capsys, "seconds_to:val/accuracy:0.89")["groups"]] == [0.5, 1.0]


def test_runs_that_miss_a_goal_are_without_it_and_their_group_stands_below(
    curves: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # xavier's first two seeds are as fast as he's: their mean is one of survivors
    assert main(["compare", "--metric", "epochs_to:val/accuracy:0.86"]) == 0
    assert "without" not in capsys.readouterr().out
    for seed in range(3):
        (curves / f"he-{seed}" / "metrics.jsonl").write_text(
            "".join(json.dumps({"epoch": epoch, "val/accuracy": epoch / 10}) + "\n" for epoch in range(1, 11))
        )
    assert main(["compare", "--metric", "epochs_to:val/accuracy:0.9"]) == 0
    out = capsys.readouterr().out
    assert [line.split()[:2] for line in out.splitlines()[1:3]] == [["init=he", "3"], ["init=xavier", "2/3"]]
    assert "1 run left out: 1 without epochs_to:val/accuracy:0.9 (init=xavier)" in out
    assert "means of survivors: init=xavier 1 of 3 finished without reaching it" in out
    assert main(["compare", "--metric", "epochs_to:val/accuracy:0.99"]) == 0
    assert capsys.readouterr().out.splitlines()[2].split()[:4] == ["init=xavier", "0/3", "no", "value"]


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (
            "layers/hidden2.layer/variance",
            "metric: '{}' is not in these runs; did you mean layers/hidden1.layer/variance?",
        ),
        ("train_val_gp", "metric: '{}' is not in these runs; did you mean train_val_gap?"),
        ("epochs_to:val/acuracy:0.9", "metric: 'val/acuracy' is not in these runs; did you mean val/accuracy?"),
        ("epochs_to:val/accuracy", "metric: '{}' lacks a score or its value; write epochs_to:val/loss:0.1"),
        (f"seconds_to:{LAYER}:1", f"metric: {{}}: neither way of {LAYER} is better, so it cannot be reached"),
    ],
)
def test_a_metric_that_is_not_there_gets_the_nearest(
    curves: Path, capsys: pytest.CaptureFixture[str], metric: str, message: str
) -> None:
    assert main(["compare", "--metric", metric]) == 2
    assert capsys.readouterr() == ("", f"dltips: {message.format(metric)}\n")


def test_a_goal_has_no_curve_and_a_layer_s_statistic_has(curves: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--metric", "epochs_to:val/accuracy:0.9", "--plot", "a.png"]) == 2
    assert "is one figure per run" in capsys.readouterr().err
    assert main(["compare", "--metric", LAYER, "--plot", "a.png"]) == 0
    assert Path("a.png").stat().st_size > 1000
