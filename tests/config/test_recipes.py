"""Recipes: what they may say, how they fit what is chosen in the end, and what is refused before anything runs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from dltips import paths
from dltips.catalog.registry import FAMILIES
from dltips.config import recipes
from dltips.main import main

Output = pytest.CaptureFixture[str]
Write = Callable[..., None]
SHIPPED = [file.stem for file in paths.shipped("recipes").glob("*.yaml")]
QUICK = ("log.tensorboard=false", "log.pictures=none", "log.layers=false")


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes ./recipes/NAME.yaml in an empty folder, in which the test then stands."""
    monkeypatch.chdir(tmp_path)

    def write_recipe(name: str, text: str) -> None:
        file = tmp_path / "recipes" / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    return write_recipe


@pytest.fixture
def composed(capsys: Output) -> Callable[..., Any]:
    """What --cfg job prints for the given overrides."""

    def compose(*overrides: str) -> Any:
        capsys.readouterr()
        code = main(["train", *overrides, "--cfg", "job"])
        out, err = capsys.readouterr()
        assert code == 0, err
        return OmegaConf.to_container(OmegaConf.create(out))

    return compose


@pytest.fixture
def refused(capsys: Output) -> Callable[..., str]:
    """The one line with which arguments are refused; the folder stays as it was."""

    def call(*arguments: str) -> str:
        before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
        capsys.readouterr()
        code = main(["train", *arguments])
        out, err = capsys.readouterr()
        assert (code, out) == (2, "") and err.startswith("dltips: ") and err.count("\n") == 1, err
        assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before
        assert not Path("outputs").exists()
        return err.removeprefix("dltips: ").rstrip("\n")

    return call


# What a recipe does


@pytest.mark.parametrize("typed", ["+recipe=x", "recipe=x", "++recipe=x", "+recipe=[x]"])
def test_with_a_plus_and_without(typed: str, write: Write, composed: Callable[..., Any]) -> None:
    write("x", "defaults:\n  - init: xavier\nepochs: 7\ninit:\n  scale: 3.0\n")
    config = composed(typed)
    assert config["epochs"] == 7
    assert config["init"] == {"name": "xavier", "distribution": "uniform", "scale": 3.0}


def test_what_is_typed_wins_over_the_recipe(write: Write, composed: Callable[..., Any]) -> None:
    write("x", "defaults:\n  - init: xavier\nepochs: 7\n")
    config = composed("+recipe=x", "epochs=3", "init=zeros")
    assert config["epochs"] == 3 and config["init"] == {"name": "zeros", "scale": 1.0}
    assert composed("epochs=3", "+recipe=x")["epochs"] == 3


@pytest.mark.parametrize(("names", "epochs", "init"), [("a,b", 2, "zeros"), ("b,a", 1, "xavier")])
def test_of_two_recipes_the_later_wins(
    names: str, epochs: int, init: str, write: Write, composed: Callable[..., Any]
) -> None:
    write("a", "defaults:\n  - init: xavier\nepochs: 1\nseed: 5\n")
    write("b", "defaults:\n  - init: zeros\nepochs: 2\nbatch_size: 9\n")
    for plus in ("+", ""):
        config = composed(f"{plus}recipe=[{names}]")
        assert (config["epochs"], config["init"]["name"]) == (epochs, init)
        assert (config["seed"], config["batch_size"]) == (5, 9)


def test_the_user_s_own_recipe_comes_before_the_shipped_one(write: Write, composed: Callable[..., Any]) -> None:
    shipped = composed("+recipe=quickstart")
    write("quickstart", "epochs: 77\n")
    assert shipped["epochs"] != 77 and composed("+recipe=quickstart")["epochs"] == 77
    assert recipes.find("quickstart") == Path("recipes/quickstart.yaml").resolve()


def test_a_recipe_in_a_folder(write: Write, composed: Callable[..., Any]) -> None:
    write("claims/warmup", "epochs: 4\n")
    assert "claims/warmup" in recipes.names()
    assert composed("+recipe=claims/warmup")["epochs"] == 4


@pytest.mark.parametrize("default", ["recipe: base", "/recipe: base", "base", "/recipe/base"])
def test_a_recipe_builds_on_another(default: str, write: Write, composed: Callable[..., Any]) -> None:
    write("base", "defaults:\n  - init: xavier\n  - model: cnn\nepochs: 7\nseed: 3\n")
    write("x", f"defaults:\n  - {default}\n  - init: zeros\nepochs: 8\n")
    config = composed("+recipe=x")
    assert (config["epochs"], config["seed"]) == (8, 3)
    assert (config["init"]["name"], config["model"]["name"]) == ("zeros", "cnn")


def test_a_recipe_that_builds_on_itself(write: Write, refused: Callable[..., str]) -> None:
    write("a", "defaults:\n  - recipe: b\n")
    write("b", "defaults:\n  - recipe: c\n")
    write("c", "defaults:\n  - recipe: a\n")
    assert refused("+recipe=a") == "recipe a: builds on itself (a -> b -> c -> a)"
    write("d", "defaults:\n  - recipe: d\n")
    assert refused("recipe=d") == "recipe d: builds on itself (d -> d)"


def test_two_recipes_may_build_on_the_same_one(write: Write, composed: Callable[..., Any]) -> None:
    write("base", "seed: 3\n")
    write("a", "defaults:\n  - recipe: base\nepochs: 1\n")
    write("b", "defaults:\n  - recipe: base\nbatch_size: 5\n")
    config = composed("+recipe=[a,b]")
    assert (config["seed"], config["epochs"], config["batch_size"]) == (3, 1, 5)


def test_plain_interpolation_is_allowed(write: Write, composed: Callable[..., Any]) -> None:
    write("x", "epochs: ${batch_size}\nbatch_size: 32\noptimizer:\n  lr: ${optimizer.momentum}\n")
    assert composed("+recipe=x")["epochs"] == "${batch_size}"
    assert composed("+recipe=x", "--resolve")["epochs"] == 32


def test_an_empty_recipe_changes_nothing(write: Write, composed: Callable[..., Any]) -> None:
    write("x", "# nothing yet\n")
    assert composed("+recipe=x") == composed()


def test_a_broken_recipe_disturbs_no_other(write: Write, composed: Callable[..., Any]) -> None:
    write("broken", "{")
    write("evil", "hydra: {}\n")
    write("x", "epochs: 7\n")
    assert composed("+recipe=x")["epochs"] == 7


# A recipe's knobs go with its choice

ADAMW = "defaults:\n  - optimizer: adamw\noptimizer:\n  lr: 0.0003\n  weight_decay: 0.3\n"


def said(capsys: Output) -> list[str]:
    return [line for line in capsys.readouterr().err.splitlines() if "ignored" in line]


def test_another_option_keeps_its_own_knobs(write: Write, composed: Callable[..., Any]) -> None:
    write("x", ADAMW)
    assert composed("+recipe=x")["optimizer"]["lr"] == 0.0003
    assert composed("+recipe=x", "optimizer=sgd")["optimizer"] == composed("optimizer=sgd")["optimizer"]
    # the same choice, typed once more, is no other choice
    assert composed("+recipe=x", "optimizer=adamw")["optimizer"]["lr"] == 0.0003
    typed = composed("+recipe=x", "optimizer=sgd", "optimizer.lr=0.7")["optimizer"]
    assert (typed["name"], typed["lr"]) == ("sgd", 0.7)


def test_what_is_left_out_is_said_and_the_run_has_what_cfg_job_shows(
    write: Write, composed: Callable[..., Any], capsys: Output
) -> None:
    write("x", ADAMW)
    overrides = ("+recipe=x", "optimizer=sgd", "epochs=0", *QUICK)
    shown = composed(*overrides)
    assert main(["train", *overrides]) == 0
    assert said(capsys) == [
        "recipe x: ignored optimizer.lr, weight_decay, meant for optimizer=adamw, because optimizer=sgd was chosen"
    ]
    (folder,) = Path("outputs").iterdir()
    assert OmegaConf.to_container(OmegaConf.load(folder / "config.yaml")) == shown
    assert "ignored optimizer.lr" in (folder / "run.log").read_text()


def test_nothing_is_said_where_nothing_is_left_out(write: Write, capsys: Output) -> None:
    write("x", ADAMW)
    assert main(["train", "+recipe=x", "epochs=0", *QUICK]) == 0
    assert said(capsys) == []


def test_knobs_for_the_primary_config_s_option_go_with_it_too(write: Write, composed: Callable[..., Any]) -> None:
    """The recipe names no optimizer: its rate was written for sgd, config.yaml's own choice."""
    write("x", "optimizer:\n  lr: 0.9\n")
    assert composed("+recipe=x")["optimizer"]["lr"] == 0.9
    assert composed("+recipe=x", "optimizer=adam")["optimizer"]["lr"] == composed("optimizer=adam")["optimizer"]["lr"]


def test_a_later_recipe_s_choice_counts_like_the_user_s(write: Write, composed: Callable[..., Any]) -> None:
    write("x", ADAMW)
    write("y", "defaults:\n  - optimizer: sgd\n")
    assert composed("+recipe=[x,y]")["optimizer"] == composed("optimizer=sgd")["optimizer"]
    assert composed("+recipe=[y,x]")["optimizer"]["lr"] == 0.0003


def test_knobs_that_all_options_share_stay(write: Write, composed: Callable[..., Any], capsys: Output) -> None:
    write(
        "x",
        "defaults:\n  - data: mnist\n  - schedule: cosine\n"
        "data:\n  split_seed: 7\n  subset: 100\n  download: false\nschedule:\n  warmup: 2.0\n  floor: 0.1\n",
    )
    config = composed("+recipe=x", "data=digits", "schedule=step")
    assert config["data"]["split_seed"] == 7 and config["data"]["subset"] == 100 and "download" not in config["data"]
    assert config["schedule"]["warmup"] == 2.0 and "floor" not in config["schedule"]
    assert main(["train", "+recipe=x", "data=digits", "schedule=step", "epochs=0", *QUICK]) == 0
    assert said(capsys) == [
        "recipe x: ignored data.download, meant for data=mnist, because data=digits was chosen",
        "recipe x: ignored schedule.floor, meant for schedule=cosine, because schedule=step was chosen",
    ]


def test_stackable_knobs_go_with_each_option(write: Write, composed: Callable[..., Any], capsys: Output) -> None:
    write(
        "x",
        "defaults:\n  - regularization: [l2, dropout]\n"
        "regularization:\n  l2:\n    strength: 0.25\n  dropout:\n    p: 0.125\n    min_units: 1\n",
    )
    both = composed("+recipe=x")["regularization"]
    assert both["l2"]["strength"] == 0.25 and both["dropout"]["p"] == 0.125
    one = composed("+recipe=x", "regularization=[dropout,ema]")["regularization"]
    assert list(one) == ["dropout", "ema"] and one["dropout"]["p"] == 0.125
    assert composed("+recipe=x", "regularization=none")["regularization"] == {"none": {"name": "none"}}
    assert main(["train", "+recipe=x", "regularization=[dropout,ema]", "epochs=0", *QUICK]) == 0
    assert said(capsys) == [
        "recipe x: ignored regularization.l2, meant for regularization=l2, dropout,"
        " because regularization=dropout,ema was chosen"
    ]


def test_each_run_of_a_grid_gets_its_own_fit(write: Write, capsys: Output) -> None:
    write("x", ADAMW)
    assert main(["train", "-m", "+recipe=x", "optimizer=adamw,sgd", "epochs=0", *QUICK]) == 0
    rates = {}
    for file in Path("outputs").glob("*/*/config.yaml"):
        section = OmegaConf.load(file).optimizer
        rates[section.name] = section.lr
    assert rates == {"adamw": 0.0003, "sgd": 0.1}


def test_a_grid_of_recipes(write: Write) -> None:
    write("x", "epochs: 0\nseed: 11\n")
    write("y", "epochs: 0\nseed: 12\n")
    assert main(["train", "-m", "recipe=x,y", *QUICK]) == 0
    assert sorted(OmegaConf.load(file).seed for file in Path("outputs").glob("*/*/config.yaml")) == [11, 12]


# What is refused

FAMILY_LIST = ", ".join(FAMILIES)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("foo: 1\n", "foo: there is no such key"),
        ("epochs: many\n", "epochs: 'many' is not a whole number"),
        ("optimizer:\n  lrr: 1\n", "optimizer.lrr: optimizer=sgd has no such key; did you mean lr?"),
        ("defaults:\n  - init: hee\n", "recipe x: init: 'hee' is not an option; did you mean he?"),
        (
            "defaults:\n  - recipe: nosuch\n",
            f"recipe: 'nosuch' is not a recipe; there is: {', '.join(sorted([*SHIPPED, 'x']))}",
        ),
        ("defaults: init\n", "recipe x: defaults is not a list"),
        (
            "optimizer: adam\n",
            "recipe x: optimizer: 'adam' is not a section of knobs; choose the option in the defaults",
        ),
        ("init:\n  name: xavier\n", "recipe x: init: name=xavier is refused; choose the option in the defaults"),
        (
            "regularization:\n  l2:\n    name: l2\n    strength: 1\n",
            "recipe x: regularization: name=l2 is refused; choose the option in the defaults",
        ),
        (
            "regularization:\n  dropout:\n    p: 0.3\n",
            "regularization.dropout: dropout is not switched on; write 'regularization=[dropout]'",
        ),
        ("epochs: ???\n", "recipe x: epochs: ??? is not a value; give it one, or leave the key out"),
    ],
)
def test_mistakes_in_a_recipe_are_one_line(text: str, message: str, write: Write, refused: Callable[..., str]) -> None:
    write("x", text)
    assert refused("+recipe=x").startswith(message)


@pytest.mark.parametrize(
    "text",
    ["- a\n", "text\n", "3\n", "{", "a: *b\n", "a: &a [*a]\n", "epochs: 1\nepochs: 2\n", "epochs: 1\n---\nseed: 1\n"],
)
def test_what_is_no_mapping_names_the_file(text: str, write: Write, refused: Callable[..., str]) -> None:
    write("x", text)
    assert refused("+recipe=x").startswith(f"recipe x: {Path('recipes/x.yaml').resolve()} ")


def test_a_file_that_is_no_text(write: Write, refused: Callable[..., str]) -> None:
    write("x", "")
    Path("recipes/x.yaml").write_bytes(b"\xff\xfe\x00epochs")
    assert "cannot be read" in refused("+recipe=x")


PAYLOAD = "_target_: pathlib.Path.touch\nself: pwned\n"


def indented(text: str, by: int) -> str:
    return "".join(" " * by + line + "\n" for line in text.splitlines())


CODE = {
    "callbacks": "hydra:\n  callbacks:\n    x:\n" + indented(PAYLOAD, 6),
    "launcher": "hydra:\n  launcher:\n" + indented(PAYLOAD, 4),
    "sweeper": "hydra:\n  sweeper:\n" + indented(PAYLOAD, 4),
    "job_logging": "hydra:\n  job_logging:\n    version: 1\n    handlers:\n      file:\n"
    "        class: logging.FileHandler\n        filename: pwned\n    root:\n      handlers: [file]\n",
    "env_set": "hydra:\n  job:\n    env_set:\n      DLTIPS_IMPORT: evil\n",
    "run_dir": "hydra:\n  run:\n    dir: pwned\n",
    "empty hydra": "hydra: {}\n",
    "nested hydra": "log:\n  hydra:\n    callbacks: {}\n",
    "dotted": "hydra.callbacks.x:\n" + indented(PAYLOAD, 2),
    "dotted family": "'model.widths': [3]\n",
    "top": PAYLOAD,
    "section": "init:\n" + indented(PAYLOAD, 2),
    "mapping knob": "optimizer:\n  options:\n" + indented(PAYLOAD, 4),
    "list": "model:\n  widths:\n    - _target_: pathlib.Path.touch\n      self: pwned\n",
    "list of lists": "x:\n  - - a:\n        - _target_: pathlib.Path.touch\n          self: pwned\n",
    "flow": "{init: {_target_: pathlib.Path.touch, self: pwned}}\n",
    "anchor": "x: &x {_target_: pathlib.Path.touch, self: pwned}\ninit: *x\n",
    "merge key": "x: &x {_target_: pathlib.Path.touch, self: pwned}\ninit:\n  <<: *x\n",
    "python tag": "epochs: !!python/object/apply:os.mkdir [pwned]\n",
    "environment": "name: ${oc.env:HOME}\n",
    "nested environment": "name: ${oc.env:${name}}\n",
    "spaces": "name: '${ oc.env:HOME }'\n",
    "escaped": "name: '\\${oc.env:HOME}'\n",
    "in a text": "name: a ${oc.env:HOME} ${epochs}\n",
    "in a list": "model:\n  widths:\n    - ${oc.decode:3}\n",
    "custom resolver": "epochs: ${own:1}\n",
    "oc.create": "init: ${oc.create:${init}}\n",
    "hydra resolver": "name: ${hydra:runtime.cwd}\n",
    "hydra node": "name: ${hydra.runtime.cwd}\n",
    "in a key": "${oc.env:HOME}: 1\n",
}
DEFAULTS = [
    "/hydra/callbacks: evil",
    "hydra/callbacks: evil",
    "override /hydra/callbacks: evil",
    "override hydra/launcher: evil",
    "/hydra/launcher: evil",
    "override /hydra/sweeper: evil",
    "override /hydra/job_logging: evil",
    "/hydra/hydra_logging: evil",
    "/hydra/env_set: evil",
    "/hydra/callbacks@x: evil",
    "model@hydra.callbacks: mlp",
    "/model@hydra.callbacks.x: mlp",
    "override /model@hydra.callbacks.x: mlp",
    "model@_global_: mlp",
    "recipe@hydra.callbacks: evil",
    "optional model: mlp",
    "model: null",
    "model: [mlp]",
    "model: ../hydra/callbacks/evil",
    "model: ${oc.env:HOME}",
    "model: mlp@hydra",
    "regularization: [l2, ../hydra/evil]",
    "nosuch: mlp",
    "{model: mlp, init: he}",
    "[model, mlp]",
    "3",
]
INCLUDES = ["recipe: ../evil", "../evil", "/../evil", "recipe: ../../evil", "recipe: /etc/hosts", "recipe: evil.yaml"]
PACKAGES = [
    "# @package hydra\ncallbacks:\n  x:\n" + indented(PAYLOAD, 4),
    "# @package hydra.callbacks.x\n" + PAYLOAD,
    "#@package hydra\nepochs: 1\n",
    "#   @package: hydra\nepochs: 1\n",
    "epochs: 1\n# @package hydra\n",
    "# @package _group_\nepochs: 1\n",
    "# @package _global_.hydra\nepochs: 1\n",
]
EVIL = "hydra:\n  callbacks:\n    x:\n" + indented(PAYLOAD, 6)


@pytest.fixture
def nothing_runs(write: Write, tmp_path: Path) -> Callable[[str], None]:
    """Whatever way leads to the payload, it would leave a file `pwned`, which refused() would see."""
    for folder in ("hydra/callbacks", "hydra/launcher", "hydra/sweeper", "hydra/job_logging", "hydra/env_set"):
        place = tmp_path / "recipes" / folder
        place.mkdir(parents=True)
        (place / "evil.yaml").write_text(PAYLOAD)
    (tmp_path / "evil.yaml").write_text(EVIL)
    (tmp_path / "evil.py").write_text("open('pwned', 'w')\n")

    def check(message: str) -> None:
        assert message and not (tmp_path / "pwned").exists()

    return check


@pytest.mark.parametrize("name", CODE)
def test_code_in_a_recipe_is_refused_before_anything_runs(
    name: str, write: Write, refused: Callable[..., str], nothing_runs: Callable[[str], None]
) -> None:
    write("x", CODE[name])
    message = refused("+recipe=x")
    nothing_runs(message)
    assert message.startswith("recipe x: ")
    # neither through a recipe that builds on it, nor in a list, nor in a grid, nor where only the config is shown
    write("y", "defaults:\n  - recipe: x\n")
    for arguments in (["recipe=y"], ["+recipe=[quickstart,y]"], ["+recipe=x", "--cfg", "job"]):
        nothing_runs(refused(*arguments))


@pytest.mark.parametrize("default", DEFAULTS)
def test_a_default_beside_the_families_is_refused(
    default: str, write: Write, refused: Callable[..., str], nothing_runs: Callable[[str], None]
) -> None:
    write("x", f"defaults:\n  - {default}\n")
    message = refused("+recipe=x")
    nothing_runs(message)
    assert message.startswith("recipe x: the default ")
    assert message.endswith(f"a default is `FAMILY: OPTION` (families: {FAMILY_LIST}) or `recipe: NAME`")


@pytest.mark.parametrize("default", INCLUDES)
def test_no_path_leads_out_of_the_recipes(
    default: str, write: Write, refused: Callable[..., str], nothing_runs: Callable[[str], None]
) -> None:
    write("x", f"defaults:\n  - {default}\n")
    message = refused("+recipe=x")
    nothing_runs(message)
    assert "is not a recipe" in message


@pytest.mark.parametrize(
    "name", ["../evil", "../../x", "./x", "/etc/hosts", "x.yaml", "hydra/callbacks/../../../evil", "a//b", "x/"]
)
def test_a_recipe_s_name_is_no_path(
    name: str, write: Write, refused: Callable[..., str], nothing_runs: Callable[[str], None]
) -> None:
    write("x", "epochs: 1\n")
    for typed in (f"+recipe={name}", f"recipe=[{name}]"):
        message = refused(typed)
        nothing_runs(message)
        assert message.startswith(f"recipe: {name!r} is not a recipe; ")


@pytest.mark.parametrize("text", PACKAGES)
def test_another_package_is_refused(
    text: str, write: Write, refused: Callable[..., str], nothing_runs: Callable[[str], None]
) -> None:
    write("x", text)
    message = refused("+recipe=x")
    nothing_runs(message)
    assert message.endswith("is refused; a recipe's package is _global_")


@pytest.mark.parametrize(
    "typed", ["+recipe@hydra.callbacks=x", "recipe@hydra=x", "+recipe@_global_=x", "+recipe/hydra/callbacks=evil"]
)
def test_a_recipe_goes_nowhere_else_from_the_command_line(
    typed: str, write: Write, refused: Callable[..., str], nothing_runs: Callable[[str], None]
) -> None:
    write("x", "x:\n  a: 1\n")
    nothing_runs(refused(typed))


def test_a_grid_over_a_refused_recipe_runs_nothing(write: Write, refused: Callable[..., str]) -> None:
    write("good", "epochs: 0\n")
    write("x", EVIL)
    refused("-m", "recipe=good,x")
    refused("-m", "+recipe=x", "seed=1,2")
    assert not Path("pwned").exists()


@pytest.mark.parametrize("way", [[], ["--cfg", "all"], ["--info"], ["--help"], ["-m", "seed=1,2"]])
def test_nothing_runs_even_without_the_check(way: list[str], write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second wall: nothing that composes, shows or runs a config instantiates what it names."""
    write("x", "epochs: 0\n" + EVIL)
    monkeypatch.setattr(recipes, "refuse_code", lambda *arguments: None)
    main(["train", "+recipe=x", *QUICK, *way])
    assert not Path("pwned").exists()
