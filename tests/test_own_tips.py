"""A tip outside the package: a module and its YAML, named by DLTIPS_IMPORT or by an entry point."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dltips import paths
from dltips.catalog import registry
from dltips.main import main

Output = pytest.CaptureFixture[str]
QUICK = ("epochs=2", "log.tensorboard=false", "log.pictures=none", "log.layers=false")

MODULE = '''\
import torch
from dltips.registry import ConfigError, NonNegative, family

init = family("init")


@init
def mine(model, generator_for, inputs, *, std: NonNegative, biases: bool) -> None:
    """Every parameter from one normal distribution, the biases only if asked."""
    if std == 13:
        raise ConfigError("init.std: 13 brings bad luck; take another")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if biases or not name.endswith("bias"):
                parameter.copy_(torch.empty(parameter.shape).normal_(0, std, generator=generator_for(name)))
'''


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """What a test registers is gone after it: the registries belong to the process."""
    before = {family: dict(known.tips) for family, known in registry.load().items()}
    yield
    for family, tips in before.items():
        registry.family(family).tips = tips


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """own.py with init=mine, its YAML beside it, in a folder where nobody stands."""
    folder = tmp_path / "tips"
    (folder / "configs" / "init").mkdir(parents=True)
    (folder / "own.py").write_text(MODULE)
    (folder / "configs" / "init" / "mine.yaml").write_text("name: mine\nstd: 0.1\nbiases: false\n")
    monkeypatch.setenv("DLTIPS_IMPORT", str(folder / "own.py"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return folder / "own.py"


def refused(capsys: Output, *arguments: str) -> str:
    capsys.readouterr()
    assert main(list(arguments)) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("dltips: ") and err.count("\n") == 1 and not Path("outputs").exists()
    return err.removeprefix("dltips: ").rstrip("\n")


def test_it_is_listed_with_its_line(own: Path, capsys: Output) -> None:
    assert main(["ls", "init"]) == 0
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert ["mine", "Every parameter from one normal distribution, the biases only if asked."] in lines
    assert "he" in [line[0] for line in lines]


def test_it_is_composed_with_its_knobs_and_trains(own: Path, capsys: Output) -> None:
    assert main(["train", "init=mine", "init.std=0.05", *QUICK]) == 0, capsys.readouterr().err
    (folder,) = Path("outputs").iterdir()
    text = (folder / "config.yaml").read_text()
    assert "init:\n  name: mine\n  std: 0.05\n  biases: false\n" in text
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert len(records) == 2 and records[1]["train/loss"] < records[0]["train/loss"]
    assert main(["evaluate", str(folder)]) == 0


def test_it_changes_the_weights(own: Path) -> None:
    import torch

    assert main(["train", "init=mine", "init.std=0", "epochs=0", *QUICK[1:]]) == 0
    (folder,) = Path("outputs").iterdir()
    weights = torch.load(folder / "last.pt", weights_only=True)["model"]
    assert all(not value.any() for name, value in weights.items() if name.endswith("layer.weight"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("init.stdd=1", "init.stdd: init=mine has no such knob; did you mean std?"),
        ("init.std=-1", "init.std: -1.0 is out of range; it must be at least 0"),
        ("init.std=wide", "init.std: 'wide' is not a number"),
        ("init.std=13", "init.std: 13 brings bad luck; take another"),
        ("init.mode=fan_in", "init.mode: init=mine has no such knob; it belongs to he: write init=he"),
    ],
)
def test_its_knobs_are_checked_like_ours(override: str, message: str, own: Path, capsys: Output) -> None:
    assert refused(capsys, "train", "init=mine", override) == message


def test_a_near_miss_names_it(own: Path, capsys: Output) -> None:
    assert refused(capsys, "train", "init=mien") == "init: 'mien' is not an option; did you mean mine?"


def test_a_recipe_may_choose_it(own: Path, capsys: Output) -> None:
    Path("recipes").mkdir()
    Path("recipes/x.yaml").write_text("defaults:\n  - init: mine\ninit:\n  std: 0.25\n")
    assert main(["train", "+recipe=x", "--cfg", "job"]) == 0
    assert "init:\n  name: mine\n  std: 0.25\n" in capsys.readouterr().out


def test_two_files_of_one_name(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    other = tmp_path / "other"
    (other / "configs" / "activation").mkdir(parents=True)
    (other / "configs" / "activation" / "square.yaml").write_text("name: square\n")
    (other / "own.py").write_text(
        "import torch\nfrom dltips.catalog.registry import family\nactivation = family('activation')\n"
        "class Square(torch.nn.Module):\n    def forward(self, inputs):\n        return inputs.square()\n"
        "@activation\ndef square():\n    '''x squared.'''\n    return Square()\n"
    )
    monkeypatch.setenv("DLTIPS_IMPORT", f"{own}, {other / 'own.py'}")
    code = main(["train", "init=mine", "activation=square", "optimizer.lr=0.01", *QUICK])
    assert code == 0, capsys.readouterr().err


@pytest.mark.parametrize("name", ["nosuch_module", "nosuch.package.module", "/nowhere/own.py", "own.py"])
@pytest.mark.parametrize("arguments", ["train epochs=1", "train --cfg job", "ls", "ls init"])
def test_a_name_that_leads_nowhere(
    name: str, arguments: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DLTIPS_IMPORT", name)
    assert (
        refused(capsys, *arguments.split()) == f"DLTIPS_IMPORT: {name!r} is neither an importable module nor a .py file"
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("def (:\n", "SyntaxError: "),
        ("import nosuch_thing\n", "ModuleNotFoundError: No module named 'nosuch_thing'"),
        ("1 / 0\n", "ZeroDivisionError: division by zero"),
    ],
)
def test_a_module_that_cannot_be_imported(own: Path, text: str, reason: str, capsys: Output) -> None:
    own.write_text(text)
    for _ in range(2):  # the second time nothing is left of the first attempt
        message = refused(capsys, "train", *QUICK)
        assert message.startswith(f"DLTIPS_IMPORT: {own} cannot be imported ({reason}")
        assert message.endswith(f"; try python {own}")
    assert main(["ls", "init"]) == 0 and main(["doctor"]) == 0
    assert "mine" in capsys.readouterr().out


def test_a_tip_of_our_name_is_refused(own: Path, capsys: Output) -> None:
    own.write_text(MODULE.replace("def mine", "def he"))
    message = refused(capsys, "train", *QUICK)
    assert message.startswith("init=he: dltips_user_own") and message.endswith("defines a tip that dltips has already")


def test_a_yaml_file_that_is_none(own: Path, capsys: Output) -> None:
    file = own.parent / "configs" / "init" / "mine.yaml"
    file.write_text("{")
    message = refused(capsys, "train", "init=mine")
    assert message.startswith("a YAML file cannot be read: ") and str(file) in message


def test_a_yaml_file_without_its_function(own: Path, capsys: Output) -> None:
    (own.parent / "configs" / "init" / "lonely.yaml").write_text("name: lonely\n")
    assert refused(capsys, "train", "init=lonely").startswith("init: 'lonely' is not an option")


def test_through_an_entry_point(tmp_path: Path) -> None:
    """As `pip install` of a package of tips leaves it: a module, its YAML, and a dist-info that names it."""
    site = tmp_path / "site"
    (site / "someones_tips" / "configs" / "init").mkdir(parents=True)
    (site / "someones_tips" / "__init__.py").write_text(MODULE)
    (site / "someones_tips" / "configs" / "init" / "mine.yaml").write_text("name: mine\nstd: 0.1\nbiases: false\n")
    info = site / "someones_tips-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: someones-tips\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[dltips.tips]\nsomeone = someones_tips\n")
    environment = os.environ | {"PYTHONPATH": str(site)}
    here = tmp_path / "here"
    here.mkdir()

    def dltips(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "dltips", *arguments], capture_output=True, text=True, cwd=here, env=environment
        )

    listed = dltips("ls", "init", "--json")
    assert json.loads(listed.stdout)["init"]["mine"].startswith("Every parameter")
    wrong = dltips("train", "init=mine", "init.stdd=1")
    assert (wrong.returncode, wrong.stderr) == (2, "dltips: init.stdd: init=mine has no such knob; did you mean std?\n")
    done = dltips("train", "init=mine", *QUICK)
    assert done.returncode == 0, done.stderr
    (folder,) = (here / "outputs").iterdir()
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 2


def test_nothing_of_the_user_s_is_there_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert paths.user_configs() == []
    monkeypatch.setenv("DLTIPS_IMPORT", " , ")
    assert paths.user_configs() == []
