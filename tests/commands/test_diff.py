"""dltips diff: settings, results and circumstances of two runs."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from dltips.main import main

SETTINGS = {"seed": 0, "init": "he", "init.scale": 1.0, "optimizer.lr": 0.1, "model.widths": [128, 64], "name": None}


def write(folder: Path, settings: Any, best: Any, **more: Any) -> None:
    folder.mkdir(parents=True)
    summary = {"status": "finished", "settings": settings, "best": best, "parameters": 100, "data_hash": "d"}
    (folder / "summary.json").write_text(json.dumps(summary | more))
    (folder / "environment.json").write_text(json.dumps({"versions": {"torch": "2.15"}, "threads": 1}))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "outputs" / "a", SETTINGS, {"val/accuracy": 0.9, "val/loss": 0.5})
    # keys that only the second has stand with their family, not at the end
    other = {key: value for key, value in SETTINGS.items() if key != "init.scale"} | {
        "init": "zeros",
        "model.widths": [64],
        "init.gain": 2,
    }
    write(tmp_path / "outputs" / "b", other | {"devices": 2}, {"val/accuracy": 0.1, "val/loss": 0.5}, data_hash="e")
    return tmp_path


def test_a_line_per_key(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", "outputs/a", "last"]) == 0
    assert capsys.readouterr().out == (
        "- outputs/a\n"
        "+ outputs/b\n"
        "\n"
        "model.widths  [128,64]  ->  [64]\n"
        "init          he        ->  zeros\n"
        "init.scale    1         ->  (absent)\n"
        "init.gain     (absent)  ->  2\n"
        "devices       (absent)  ->  2\n"
        "\n"
        "val/accuracy  0.9       ->  0.1  (-0.8000)\n"
        "\n"
        "data_hash     d         ->  e\n"
    )


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", "outputs/a", "outputs/b", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "runs": ["outputs/a", "outputs/b"],
        "settings": {
            "init": {"first": "he", "second": "zeros"},
            "init.scale": {"first": 1.0},
            "init.gain": {"second": 2},
            "model.widths": {"first": [128, 64], "second": [64]},
            "devices": {"second": 2},
        },
        "results": {"val/accuracy": {"first": 0.9, "second": 0.1}},
        "circumstances": {"data_hash": {"first": "d", "second": "e"}},
    }


def test_nothing_differs(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    assert main(["diff", "outputs/a", "outputs/a"]) == 0
    assert capsys.readouterr().out.splitlines()[2:] == [
        "nothing differs: settings, results, versions and data are the same"
    ]
    write(folder / "c", SETTINGS, {"val/accuracy": 0.9, "val/loss": 0.4 + 1e-9})
    assert main(["diff", "outputs/a", "c"]) == 0
    assert capsys.readouterr().out.splitlines()[2:] == ["no setting differs", "", "val/loss  0.5  ->  0.4  (-0.1000)"]


def test_a_difference_in_the_last_digit_is_one(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    write(folder / "c", SETTINGS | {"optimizer.lr": 0.30000000000000004}, {})
    write(folder / "d", SETTINGS | {"optimizer.lr": 0.3}, {})
    assert main(["diff", "c", "d"]) == 0
    assert capsys.readouterr().out.splitlines()[2:] == ["", "optimizer.lr  0.30000000000000004  ->  0.3"]


def test_versions_machine_and_status_are_compared(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    write(folder / "c", SETTINGS, None, status="diverged", code_version="0.2")
    (folder / "c" / "environment.json").write_text(json.dumps({"versions": {"torch": "2.16"}, "threads": 4}))
    assert main(["diff", "outputs/a", "c"]) == 0
    assert capsys.readouterr().out.splitlines()[2:] == [
        "no setting differs",
        "",
        "val/accuracy   0.9       ->  (absent)",
        "val/loss       0.5       ->  (absent)",
        "",
        "status         finished  ->  diverged",
        "code_version   (absent)  ->  0.2",
        "threads        1         ->  4",
        "torch version  2.15      ->  2.16",
    ]


def test_in_a_terminal_old_is_red_and_new_is_green(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    write(folder / "c", SETTINGS | {"init": "[red]\x1b[2J", "name": "long" + 80 * " name"}, {})
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(["diff", "outputs/a", "c"]) == 0
    out = capsys.readouterr().out
    line = next(line for line in out.splitlines() if line.startswith("init "))
    assert line == "init          \x1b[31mhe  \x1b[0m  ->  \x1b[32m[red][2J\x1b[0m"
    assert "long" + 80 * " name" in out  # whole, not cut


def test_damaged_files_leave_the_rest(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    write(folder / "c", SETTINGS | {"odd": float("nan")}, ["no"], parameters="many")
    (folder / "c" / "environment.json").write_text("{")
    assert main(["diff", "outputs/a", "c"]) == 0
    assert "\nodd            (absent)  ->  nan\n" in capsys.readouterr().out
    assert main(["diff", "outputs/a", "c", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["settings"] == {"odd": {"second": "nan"}}


def test_mistakes_are_one_line(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    (folder / "torn").mkdir()
    (folder / "torn" / "config.yaml").write_text("[")
    for arguments, message in {
        ("gone", "last"): "gone: does not exist; give one of the folders under outputs",
        (
            "outputs",
            "last",
        ): "outputs: is not a run folder: it has no config.yaml; give one of the folders under outputs",
        ("torn", "last"): "torn: its settings cannot be read; config.yaml and summary.json are damaged",
        ("last",): "dltips diff: the following arguments are required: RUN; see dltips diff --help",
    }.items():
        assert main(["diff", *arguments]) == 2
        assert capsys.readouterr() == ("", f"dltips: {message}\n")
