"""dltips train's flags: what each asks for, and what is refused in one line."""

from pathlib import Path

import pytest

from dltips.main import main

Output = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--cfg job -p seed seed=3", "3\n"),
        ("seed=3 -c job --package=seed", "3\n"),
        ("seed=3 --cfg job epochs=2 --package seed", "3\n"),  # flags may stand between overrides
        ("--run --cfg=job -p seed", "0\n"),
        ("-m --cfg job -p seed", "0\n"),
        ("hydra/launcher=ray --cfg hydra -p hydra.launcher.num_cpus", "1\n"),
        ("epochs=7 seed=${epochs} --cfg job -p seed --resolve", "7\n"),
    ],
)
def test_what_is_shown(line: str, expected: str, capsys: Output) -> None:
    assert main(["train", *line.split(" ")]) == 0
    assert capsys.readouterr() == (expected, "") and not any(Path().iterdir())


@pytest.mark.parametrize("line", ["--info", "-i", "--info all", "--info config", "--info=searchpath", "-h", "--help"])
def test_what_is_told_is_told_on_stdout(line: str, capsys: Output) -> None:
    assert main(["train", "epochs=7", *line.split(" ")]) == 0
    out, err = capsys.readouterr()
    assert err == "" and len(out.splitlines()) > 5 and not any(Path().iterdir())


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--resolve", "--resolve: goes with --cfg; write --cfg job as well"),
        ("-p optimizer", "--package: goes with --cfg; write --cfg job as well"),
        ("--info plugins", "dltips train: argument --info/-i: invalid choice: 'plugins' (choose from "),
        ("--cfg", "dltips train: argument --cfg/-c: expected one argument; see dltips train --help"),
        ("--multi seed=1,2", "dltips train: unrecognized arguments: --multi; see dltips train --help"),
        (
            "--config-dir x",
            "--config-dir: is not an option of dltips train; your own options are found by DLTIPS_IMPORT=",
        ),
        ("-cd x", "-cd: is not an option of dltips train; your own options are found by DLTIPS_IMPORT="),
        ("-sc install=bash", "-sc: is not an option of dltips train; see dltips completion --help"),
        ("--hydra-help", "--hydra-help: is not an option of dltips train; see dltips train --help"),
        ("--version", "--version: is not an option of dltips train; see dltips train --help"),
        ("--compare=5 -m seed=1,2", "--compare: is for one run, not for a grid; leave out -m"),
        ("--compare=soon", "--compare: 'soon' is not a number of seconds; write --compare=60"),
        ("--workers 2 seed=1", "--workers: is for a grid of runs; write dltips train -m ..."),
        ("hydra/launcher=ray", "hydra/launcher=ray: is for a grid of runs; write dltips train -m hydra/launcher=ray"),
        ("seed=1,2 --cfg job", "seed=1,2: several values need -m"),
        ("-m seed=1,2 --cfg job", "--cfg: is for one run, not for a grid; leave out -m"),
        ("-m seed=1,2 --info", "--info: is for one run, not for a grid; leave out -m"),
        ("hydra/launcher=joblib", "hydra/launcher=joblib: does not exist any more; write --workers N"),
        ("init=hee --help", "init: 'hee' is not an option; did you mean he?"),
        ("init=hee --info", "init: 'hee' is not an option; did you mean he?"),
        ("--cfg hydra hydra.verbose=true", "hydra.verbose=true: is refused; of Hydra's own keys"),
    ],
)
def test_what_is_refused_is_one_line(line: str, message: str, capsys: Output) -> None:
    assert main(["train", *line.split(" ")]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"dltips: {message}") and err.count("\n") == 1 and not any(Path().iterdir())
