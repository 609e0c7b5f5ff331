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
        (["--by", "inti"], "by: 'inti' is no setting of these runs; did you mean init?"),
        (["--metric", "val/acuracy"], "metric: 'val/acuracy' is not in these runs; did you mean val/accuracy?"),
        (["--baseline", "init=hee"], "baseline: 'init=hee' matches no group; did you mean init=he?"),
        (["--csv", "-", "--json"], "csv: - and --json would both go to stdout; give --csv a file"),
        (["--csv", "gone/a.csv"], "csv: gone/a.csv cannot be written (No such file or directory); choose another file"),
        (["--plot", "a.bmp"], "plot: a.bmp is no picture that can be written; end it in .png, .svg, .pdf"),
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
