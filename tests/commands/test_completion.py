"""Completion: the words that may come next, and the scripts in the shells that are here."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dltips.commands.completion import SCRIPTS, words
from dltips.commands.verbs import VERBS


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("dltips tr", ["train"]),
        ("dltips train init=xavier_", ["init=xavier_fc_gaussian_conv"]),
        ("dltips train augmentation=fli", ["augmentation=flip"]),
        ("dltips train optimizer.mom", ["optimizer.momentum="]),
        ("dltips train optimizer=adam optimizer.b", ["optimizer.betas="]),
        ("dltips train optimizer=sgd optimizer.b", []),
        ("dltips train +recipe=q", ["+recipe=quickstart"]),
        ("dltips train recipe=q", ["recipe=quickstart"]),
        ("dltips train +recipe=quickstart model.w", ["model.widths="]),
        ("dltips train epo", ["epochs="]),
        ("dltips train init=nonsense optimizer.", []),
        ("dltips show init=nonsens", []),
        ("dltips show +recipe=q", ["+recipe=quickstart"]),
        ("dltips cat q", ["quickstart"]),
        ("dltips ls opt", ["optimizer"]),
        ("dltips ls ti", ["tips"]),
        ("dltips explain init=x", ["init=xavier", "init=xavier_fc_gaussian_conv"]),
        ("dltips explain early_s", ["early_stopping"]),
        ("dltips explain optimizer=s", ["optimizer=sgd"]),
        ("dltips explain half_", ["half_positive"]),
        ("dltips explain he he", []),
        ("dltips completion z", ["zsh"]),
    ],
)
def test_the_words_that_may_come_next(line: str, expected: list[str]) -> None:
    assert words(line) == expected


def test_all_verbs_and_the_users_own_recipes_and_runs_are_offered() -> None:
    assert words("dltips ") == sorted(VERBS)
    Path("recipes").mkdir()
    Path("recipes/mine.yaml").write_text("epochs: 1\n")
    assert words("dltips train +recipe=m") == ["+recipe=mine"]
    Path("outputs/run").mkdir(parents=True)
    for name in ("config.yaml", "summary.json"):
        (Path("outputs/run") / name).touch()
    assert words("dltips train resume=") == ["resume=last", "resume=outputs/run"]
    assert words("dltips evaluate ") == words("dltips predict ") == ["outputs/run"]


def test_what_is_offered_for_train_is_every_family_and_setting_and_none_of_hydras() -> None:
    offered = words("dltips train ")
    assert {"init=", "optimizer.", "seed=", "+recipe=", "epochs="} <= set(offered)
    assert not [word for word in offered if word.startswith("hydra")]


ASK = {
    "bash": 'eval "$(dltips completion bash)"\nCOMP_LINE="dltips train init=ca" COMP_POINT=20\n_dltips\n'
    'echo "${COMPREPLY[@]}"',
    "fish": 'dltips completion fish | source\ncomplete -C "dltips train init=ca"',
}


@pytest.mark.parametrize(("shell", "said"), [("bash", "calibrated"), ("fish", "init=calibrated")])
def test_the_script_works_in_its_shell(shell: str, said: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run([shell, "-c", ASK[shell]], capture_output=True, text=True, env={**os.environ, "PATH": path})
    assert done.stdout.strip() == said, done.stderr


def test_the_script_for_zsh_is_valid() -> None:
    if shutil.which("zsh") is None:
        pytest.skip("no zsh here")
    done = subprocess.run(["zsh", "-n"], input=SCRIPTS["zsh"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
