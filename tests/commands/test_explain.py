"""dltips explain: all of a tip's card is printed, at any width, without torch; a wrong name is one line."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dltips import paths
from dltips.catalog import article_tips, articles, registry, source_reader
from dltips.catalog.cards import card_of
from dltips.catalog.registry import FAMILIES
from dltips.config.composition import compose
from dltips.main import main

Output = pytest.CaptureFixture[str]
OPTIONS = [(family, name) for family in FAMILIES for name in source_reader.options(family)]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")


def explained(capsys: Output, *arguments: str) -> str:
    assert main(["explain", *arguments]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def as_json(capsys: Output, *arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(explained(capsys, *arguments, "--json"))
    return found


def words(text: str) -> str:
    """Without the layout."""
    return " ".join(text.split())


@pytest.mark.parametrize(("family", "name"), OPTIONS)
def test_what_is_shown_is_what_the_function_has(family: str, name: str, capsys: Output) -> None:
    function = registry.load()[family].tips[name]
    card, text = card_of(function), words(explained(capsys, f"{family}={name}"))
    assert words(function.__doc__ or "") in text
    assert card is not None
    for said in (card.when, card.formula, card.source, card.costs, card.recommends, *card.avoid.values()):
        assert words(said) in text
    for knob in source_reader.knobs(family, name):
        assert f"{knob.key}={knob.written.replace(', ', ',')}" in text and words(knob.comment) in text
    found = as_json(capsys, f"{family}={name}")
    assert (found["when"], found["formula"], found["costs"]) == (card.when, card.formula, card.costs)
    assert (found["source"], found["recommends"], found["avoid"]) == (card.source, card.recommends, dict(card.avoid))


@pytest.mark.parametrize("name", ["init=he", "init/he", "he"])
def test_a_tip_is_found_with_its_family_and_without(name: str, capsys: Output) -> None:
    assert as_json(capsys, name)["tip"] == "init=he"


@pytest.mark.parametrize("columns", [60, 80, 120])
@pytest.mark.parametrize("name", ["he", "dropout", "flip", "data", "adam", "pool"])
def test_no_line_is_wider_than_the_terminal_but_a_command(
    name: str, columns: int, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    for line in explained(capsys, name).splitlines():
        assert len(line) <= min(columns, 100) or "dltips train" in line, line
        assert line == line.rstrip() and "\x1b" not in line


def test_the_readme_shows_what_is_printed(capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "110")
    readme = (paths.CHECKOUT / "README.md").read_text(encoding="utf-8")
    ((name, shown),) = re.findall(r"^\$ dltips explain (\w+)\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
    assert explained(capsys, name) == shown


def test_a_terminal_gets_colours(capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = explained(capsys, "he")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    coloured = explained(capsys, "he")
    assert "\x1b[" in coloured and re.sub(r"\x1b\[[0-9;]*m", "", coloured) == plain


@pytest.mark.parametrize(("family", "name"), [option for option in OPTIONS if source_reader.entry(*option).at_home])
def test_the_command_to_try_is_one(family: str, name: str, capsys: Output) -> None:
    typed = shlex.split(as_json(capsys, f"{family}={name}")["try"])
    assert typed[:3] == ["dltips", "train", "+recipe=quickstart"]
    composed, _ = compose(typed[2:])
    assert name in (composed[family] if family in registry.STACKABLE else composed[family].name)


def test_a_warning_is_shown_on_both_sides(capsys: Output, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_tip(tmp_path, monkeypatch)
    assert as_json(capsys, "same")["avoid"] == {"activation=sigmoid": "it does not move"}
    assert as_json(capsys, "sigmoid")["avoided_by"]["init=same"] == "it does not move"
    assert "init=same: it does not move" in words(explained(capsys, "sigmoid"))


def test_the_articles_behind_the_letters_are_named_and_claims_can_be_settled(capsys: Output) -> None:
    text = words(explained(capsys, "flip"))
    assert f"S: {articles.SOURCES['S']}" in text and "K: " not in text
    claims = as_json(capsys, "lstm" if "lstm" in source_reader.options("model") else "cnn")["claims"]
    assert all(command.startswith("dltips train -m +recipe=quickstart ") for command in claims.values())
    row = article_tips.row("init_decides")
    assert row is not None
    assert as_json(capsys, "init=he")["claims"][row.says] == row.command
    assert row.says not in as_json(capsys, "activation=relu")["claims"]


def test_a_family_shows_its_options_and_what_they_share(capsys: Output) -> None:
    text = words(explained(capsys, "optimizer"))
    for name, line in source_reader.options("optimizer").items():
        assert f"{name} {words(line)}" in text
    assert "optimizer.reduction=mean" in text
    assert list(as_json(capsys, "init")["options"]) == list(source_reader.options("init"))


def test_what_the_articles_call_by_a_name_of_its_own_is_found(capsys: Output) -> None:
    found = as_json(capsys, "small_filters")
    assert (found["switch"], found["state"]) == ("model.kernel_size=3", "available")
    assert found["articles"] == {"K": articles.SOURCES["K"]}
    assert found["try"] == "dltips train +recipe=quickstart model=cnn model.kernel_size=3"
    assert "init_decides" in explained(capsys, "init_decides")
    assert "not yet" in explained(capsys, "ensemble_cv")


def test_a_knob_is_shown_in_each_option_that_has_it(capsys: Output) -> None:
    for typed in ("model.norm", "model.norm=lrn"):
        found = as_json(capsys, typed)
        assert found["options"]["mlp"]["default"] == "batch" and "svm" not in found["options"]
        row = article_tips.row("no_lrn")
        assert row is not None and found["tips"][row.says] == row.command
    assert "mlp model.norm=batch" in words(explained(capsys, "model.norm"))
    assert "every option data.subset=null" in words(explained(capsys, "data.subset"))
    assert list(as_json(capsys, "regularization.dropout.p")["options"]) == ["dropout"]


def own_tip(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "configs" / "init").mkdir(parents=True)
    for name in ("same", "bare"):
        (folder / "configs" / "init" / f"{name}.yaml").write_text(f"name: {name}\n")
    (folder / "own.py").write_text(
        "raise SystemExit('was imported')\n"
        "@init\n@card(when='never', formula='w = [c]', source='-', costs='all',"
        " avoid={'activation=sigmoid': 'it does not move'})\n"
        "def same(model, generator_for, inputs):\n    '''All [bold]weights[/] the same.'''\n"
        "@init\ndef bare(model, generator_for, inputs): ...\n"
    )
    monkeypatch.setenv("DLTIPS_IMPORT", str(folder / "own.py"))


def test_a_tip_of_the_user_s_own_is_explained_and_not_imported(
    capsys: Output, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_tip(tmp_path, monkeypatch)
    text = words(explained(capsys, "same"))
    assert "All [bold]weights[/] the same." in text and "formula w = [c]" in text
    assert "@card(" in explained(capsys, "bare")
    assert as_json(capsys, "bare")["tip"] == "init=bare"


def test_torch_is_not_imported() -> None:
    code = "import sys; from dltips.main import main; main(['explain', 'he']); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hee", "explain: 'hee' is not a tip; did you mean he?"),
        ("smal_filters", "explain: 'smal_filters' is not a tip; did you mean small_filters?"),
        ("qqqqq", "explain: 'qqqqq' is not a tip; `dltips ls tips` lists them"),
        ("init=flip", "explain: 'flip' is not an option of init; did you mean augmentation=flip?"),
        ("model.nrm", "explain: 'model.nrm' is not a knob of model; did you mean model.norm?"),
        ("init.qqqqqqqq", "explain: 'init.qqqqqqqq' is not a knob of init; `dltips explain init` lists its options"),
        ("init=hee", "explain: 'hee' is not an option of init; did you mean he?"),
        (
            "none",
            "explain: 'none' is an option of 4 families; say which: preprocessing=none, augmentation=none,"
            " regularization=none, finetune=none",
        ),
    ],
)
def test_mistakes_are_one_line(name: str, message: str, capsys: Output) -> None:
    assert main(["explain", name]) == 2
    assert capsys.readouterr() == ("", f"dltips: {message}\n")


def test_a_module_that_is_not_there_is_named(capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLTIPS_IMPORT", "nosuch.py")
    assert main(["explain", "he"]) == 2
    assert capsys.readouterr().err.startswith("dltips: DLTIPS_IMPORT: 'nosuch.py' is neither")
