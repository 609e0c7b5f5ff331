"""The command itself: help, version, verbs, and what it does not import."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from dltips import __version__
from dltips.commands.verbs import VERBS
from dltips.config.validation import validate
from dltips.main import HELP, main

Output = pytest.CaptureFixture[str]

EXAMPLES = [line.strip() for line in HELP.splitlines() if line.startswith("  dltips train")]


def arguments_of(example: str) -> list[str]:
    """What a shell makes of it: the words behind two spaces are an explanation."""
    return shlex.split(example.split("  ")[0])[1:]


@pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"], ["help"]])
def test_bare_dltips_prints_help_with_three_examples_and_every_verb(arguments: list[str], capsys: Output) -> None:
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert len(EXAMPLES) == 3 and all(example in out for example in EXAMPLES)
    assert all(f"  {verb} " in out for verb in VERBS)


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_examples_of_the_help_are_valid(
    example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    monkeypatch.chdir(tmp_path)
    verb, *overrides = arguments_of(example)
    assert main([verb, *overrides, "--cfg", "job"]) == 0
    out, err = capsys.readouterr()
    composed = OmegaConf.create(out)
    assert isinstance(composed, DictConfig)
    validate(composed)
    assert err == "" and not any(tmp_path.iterdir())


def test_the_examples_of_the_trains_help_are_valid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--help"]) == 0
    text = capsys.readouterr().out
    examples = [line.strip() for line in text.splitlines() if line.startswith("  dltips train ")]
    assert len(examples) >= 3
    for example in examples:
        if "resume" in example:
            continue
        words = shlex.split(example)[2:]
        flags = ["-m"] if "-m" in words else []
        overrides = [word for word in words if word != "-m"]
        if flags:
            overrides = [word.split(",")[0].replace("range(5)", "0") for word in overrides]
        assert main(["train", *overrides, "--cfg", "job"]) == 0, example
        composed = OmegaConf.create(capsys.readouterr().out)
        assert isinstance(composed, DictConfig)
        validate(composed)


@pytest.mark.parametrize("argument", ["-V", "--version"])
def test_version(argument: str, capsys: Output) -> None:
    assert main([argument]) == 0
    assert capsys.readouterr().out == f"dltips {__version__}\n"


@pytest.mark.parametrize(
    ("verb", "hint"),
    [("trian", "did you mean train?"), ("list", "did you mean ls?"), ("xyz", f"there is: {', '.join(VERBS)}")],
)
def test_an_unknown_verb_names_the_nearest_or_all(verb: str, hint: str, capsys: Output) -> None:
    assert main([verb]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"dltips: {verb!r} is not a verb; {hint}") and err.count("\n") == 1


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb not in ("train", "sweep")])
def test_every_verb_has_help(verb: str, capsys: Output) -> None:
    with pytest.raises(SystemExit) as end:
        main([verb, "--help"])
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: dltips {verb} ")


def test_the_search_has_help_too(capsys: Output) -> None:
    assert main(["sweep", "--help"]) == 0
    assert capsys.readouterr().out.startswith("dltips sweep: ")


def run(code: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=cwd)


def test_python_dash_m(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dltips", "--version"], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert done.stdout == f"dltips {__version__}\n"
    failed = subprocess.run([sys.executable, "-m", "dltips", "tarin"], capture_output=True, text=True, cwd=tmp_path)
    assert (failed.returncode, failed.stderr) == (2, "dltips: 'tarin' is not a verb; did you mean train?\n")


SLOW = ("torch", "torchvision", "matplotlib", "tensorboard", "sklearn", "numpy", "rich")
WATCH = f"""
import contextlib, sys
from dltips.main import main
with contextlib.suppress(SystemExit):
    code = main(sys.argv[1:])
print("imported:", *(name for name in {SLOW} if name in sys.modules), file=sys.stderr)
"""


@pytest.mark.parametrize(
    "arguments",
    [
        "--help",
        "ls",
        "ls init",
        "ls recipes --json",
        "cat quickstart",
        "cp quickstart mine",
        "evaluate --help",
        "predict --help",
        "show --help",
        "show init=hee",
        "doctor --help",
        "completion bash",
        "train --cfg job +recipe=quickstart",
        "train init=hee",
    ],
)
def test_what_needs_no_torch_imports_none(arguments: str, tmp_path: Path) -> None:
    done = run(WATCH, *arguments.split(), cwd=tmp_path)
    assert done.stderr.splitlines()[-1] == "imported:", done.stderr


def test_help_imports_nothing_but_the_table_of_verbs(tmp_path: Path) -> None:
    code = (
        "import sys; from dltips.main import main; main([]);"
        "print(*sorted(name for name in sys.modules if name.startswith(('dltips', 'hydra', 'omegaconf'))),"
        " file=sys.stderr)"
    )
    assert (
        run(code, cwd=tmp_path).stderr == "dltips dltips.commands dltips.commands.verbs dltips.exit_codes dltips.main\n"
    )


@pytest.mark.parametrize("arguments", ["ls", "cat quickstart", "", "--version", "ls --help", "train --cfg job"])
def test_a_reader_that_closes_the_pipe_is_no_error(arguments: str, tmp_path: Path) -> None:
    """As in `dltips ls | head -1`: the pipe is closed before the first line is written."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "dltips", *arguments.split()],
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_repeated_calls_in_one_process_do_not_disturb_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    monkeypatch.chdir(tmp_path)
    before, arguments = dict(os.environ), list(sys.argv)
    printed = []
    for overrides in ([], ["init=xavier", "optimizer.lr=0.5"], ["init=hee"], []):
        main(["train", "--cfg", "job", *overrides])
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[3] != printed[1] and printed[2] == ""
    assert sys.argv == arguments
    assert dict(os.environ) == before


@pytest.mark.skipif(sys.platform == "win32", reason="closes file descriptors as a POSIX shell does")
@pytest.mark.parametrize("verb", ["ls", "train +recipe=quickstart epochs=1"])
def test_stdout_and_stderr_may_be_closed(verb: str, tmp_path: Path) -> None:
    done = subprocess.run(["sh", "-c", f"exec '{sys.executable}' -m dltips {verb} >&- 2>&-"], cwd=tmp_path)
    assert done.returncode == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_full_disk_behind_stdout_is_one_line(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-m", "dltips", "ls"], stdout=full, stderr=subprocess.PIPE, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, b"dltips: no space left on the device\n")
