"""Composition: what is set arrives exactly, in its order, by Hydra's public API, whatever surrounds it."""

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hydra
import pytest
import yaml
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from dltips import paths
from dltips.config.composition import compose, compose_with_hydras
from dltips.config.plain import to_plain
from dltips.errors import ConfigError


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def recipe(tmp_path: Path) -> Callable[..., None]:
    """Writes ./recipes/NAME.yaml."""

    def write(name: str, content: Any) -> None:
        (tmp_path / "recipes").mkdir(exist_ok=True)
        (tmp_path / "recipes" / f"{name}.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(content)))

    return write


def refusal(*overrides: str) -> str:
    with pytest.raises(ConfigError) as refused:
        compose(overrides)
    assert "\n" not in str(refused.value)
    return str(refused.value)


# Values

TEXTS = [
    "1e3", "1e-4", "0x10", "1_000", "007", "nan", "inf", "true", "null", "none", "~", "yes", "", " ", " a ", "a b",
    "a,b", "[a]", "{a: 1}", "{", "}", "]", "(", "a=b", "a:b", "a: b", "#a", "a #b", "'", '"', "it's", 'a "b"', "\\",
    "\\'", "a\\", "a\\\\'b", "\\n", "\n", "a\nb\n", "\t", "$", "$x", "$$", "a$b{", "%s", "@x", "+x", "~x", "-1",
    "--cfg", "glob(*)", "choice(1,2)", "range(3)", "interval(0,1)", "int(3)", "grüße", "日本語", "😀", "a/b", "../x",
    "*", "&x", "!x", "%", "`", "|", "a" * 3000, "${epochs}", "a ${epochs} b", "${optimizer.lr}", "\\${epochs}",
]  # fmt: skip
OTHERS = [
    1000, -1, 0, 2**70, 1e-4, 1e300, -0.5, 1.0, float("inf"), True, False, None, [], [1, "2", None, True, 0.5], [[]],
    [{"a": []}], {"a": "1e3"}, {"a": {"b": {"c": "null"}}}, {"a": [1, {"b": "x, y"}]},
]  # fmt: skip


@pytest.mark.parametrize("value", [*TEXTS, *OTHERS], ids=lambda value: repr(value)[:30])
def test_a_recipes_value_arrives_exactly(value: Any, recipe: Callable[..., None]) -> None:
    recipe("x", {"name": value, "optimizer": {"rates": {"head": value}}, "model": {"widths": [value, value]}})
    config = to_plain(compose(["+recipe=x"])[0])
    found = [config["name"], config["optimizer"]["rates"]["head"], *config["model"]["widths"]]
    assert found == [value] * 4 and {type(each) for each in found} == {type(value)}


@pytest.mark.parametrize("value", TEXTS, ids=lambda value: repr(value)[:30])
def test_a_typed_text_arrives_exactly_over_the_recipes(value: str, recipe: Callable[..., None]) -> None:
    from hydra.core.override_parser.types import Quote, QuotedString

    recipe("x", {"name": "another"})
    typed = QuotedString(value, Quote.double).with_quotes()
    assert to_plain(compose(["+recipe=x", f"name={typed}"])[0])["name"] == value


def test_an_interpolation_from_a_recipe_follows_what_is_typed(recipe: Callable[..., None]) -> None:
    recipe("x", {"batch_size": "${epochs}", "name": "after ${epochs} epochs"})
    config, _ = compose(["+recipe=x", "epochs=7"])
    assert (config.batch_size, config.name) == (7, "after 7 epochs")


# Order: config.yaml, the options' files, the recipes in their order, what was typed


def test_each_source_overrides_those_below_it(recipe: Callable[..., None]) -> None:
    recipe("base", {"defaults": [{"optimizer": "adam"}], "optimizer": {"lr": 0.2, "epsilon": 0.2, "rates": {"a": 1}}})
    recipe("x", {"defaults": [{"recipe": "base"}], "optimizer": {"epsilon": 0.3, "rates": {"b": 2}}})
    recipe("y", {"seed": 4})
    assert to_plain(compose(["optimizer=adam"])[0])["optimizer"]["betas"] == [0.9, 0.999]
    config = to_plain(compose(["optimizer.rates={c: 3}", "+recipe=[x,y]", "seed=5", "optimizer.rates.a=9"])[0])
    assert config["optimizer"] == {
        "reduction": "mean",
        "rates": {"a": 9, "b": 2, "c": 3},
        "name": "adam",
        "lr": 0.2,
        "betas": [0.9, 0.999],
        "epsilon": 0.3,
    }
    assert config["seed"] == 5 and to_plain(compose(["+recipe=[x,y]"])[0])["seed"] == 4


def test_given_twice_the_last_one_counts() -> None:
    config, _ = compose(["init=he", "epochs=3", "init=xavier", "epochs=4"])
    assert (config.init.name, config.epochs) == ("xavier", 4)


def test_the_users_options_lie_behind_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders of any name; an option of ours is not replaced."""
    for name in ("it's [b]", "second"):
        folder = tmp_path / name / "configs" / "init"
        folder.mkdir(parents=True)
        (tmp_path / name / "own.py").write_text("")
        (folder / "he.yaml").write_text("name: he\nscale: 77\n")
        (folder / "mine.yaml").write_text(f"name: mine\nfolder: {name[0]}\n")
    (tmp_path / "second" / "configs" / "init" / "odd name.yaml").write_text("name: odd\n")
    monkeypatch.setenv("DLTIPS_IMPORT", ",".join(str(tmp_path / name / "own.py") for name in ("it's [b]", "second")))
    assert compose(["init='odd name'"])[0].init == {"name": "odd"}
    assert compose(["init=mine"])[0].init == {"name": "mine", "folder": "i"}
    assert compose(["init=he"])[0].init.scale == 1.0


# What surrounds it


def test_a_program_that_uses_hydra_itself_is_left_as_it_was(tmp_path: Path) -> None:
    """Hydra can be initialized once in a process: that belongs to the program that calls us."""
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "app.yaml").write_text("a: 1\n")
    version = {"version_base": None} if hydra.__version__.startswith("1.3.") else {}
    with hydra.initialize_config_dir(str(tmp_path / "theirs"), **version):  # type: ignore[arg-type]
        mine = GlobalHydra.instance().hydra
        assert compose(["epochs=3"])[0].epochs == 3
        refusal("optimizer.lr=${")
        assert GlobalHydra.instance().hydra is mine and hydra.compose("app") == {"a": 1}
    assert not GlobalHydra.instance().is_initialized()


def test_every_run_is_composed_anew(recipe: Callable[..., None]) -> None:
    """Neither what was composed before nor an edited file of the same length and age changes a config."""
    recipe("x", {"epochs": 3})
    first, _ = compose(["+recipe=x"])
    first.optimizer.lr = 99
    recipe("x", {"epochs": 4})
    second, _ = compose(["+recipe=x"])
    assert (second.epochs, second.optimizer.lr) == (4, 0.1)


# Hydra's own keys


@pytest.mark.parametrize(
    "typed",
    [
        "+hydra.callbacks.x._target_=pathlib.Path.touch",
        "++hydra.callbacks={x:{_target_:os.getcwd}}",
        "+hydra/callbacks=x",
        "hydra/callbacks=[x]",
        "+hydra/callbacks@x=evil",
        "hydra.launcher._target_=os.getcwd",
        "hydra/job_logging=default",
        "+hydra.job.env_set.DLTIPS_IMPORT=evil",
        "hydra.searchpath=[file:///tmp]",
        "hydra.mode=MULTIRUN",
        "hydra.verbose=true",
        "hydra/sweeper=basic",
        "hydra.sweeper.x=1",
        "hydra/help=default",
        "hydra={}",
        "~hydra.launcher",
        "init@hydra.callbacks=he",
        "+init@hydra=he",
        "'+recipe@hydra.callbacks=quickstart'",
        "hydra/launcher@x=ray",
        "++_target_=os.getcwd",
        "++init._target_=os.getcwd",
        "++log={_target_:os.getcwd}",
    ],
)
def test_a_key_of_hydras_is_refused_wherever_it_is_given(typed: str) -> None:
    typed = typed.strip("'")
    key = typed.lstrip("+~").split("=")[0].split("@")[0]
    assert key in refusal(typed)
    with pytest.raises(ConfigError):
        compose_with_hydras([typed])
    with pytest.raises(ConfigError):
        compose(["+recipe=quickstart", "init=xavier", typed])


def test_hydras_section_shows_what_was_typed_and_the_launcher() -> None:
    shown = compose_with_hydras(["init=xavier", "hydra/launcher=ray", "hydra.launcher.num_cpus=3", "epochs=2"])
    assert shown.hydra.launcher == {"name": "ray", "address": None, "num_cpus": 3, "num_gpus": None, "max_retries": 0}
    assert shown.hydra.runtime.choices.init == "xavier" and shown.hydra.runtime.choices["hydra/launcher"] == "ray"
    assert shown.hydra.overrides.task == ["init=xavier", "epochs=2"]
    assert shown.hydra.overrides.hydra == ["hydra/launcher=ray", "hydra.launcher.num_cpus=3"]
    del shown["hydra"]
    assert shown == compose(["init=xavier", "epochs=2"])[0]


# The public API alone


PRIVATE = re.compile(r"\bhydra(\.\w+)*\._(?!_)")


def inner_names(source: str) -> Iterator[str]:
    """What of a source is private to Hydra: modules imported or named in a text, attributes of what is imported."""
    imported: dict[str, str] = {}
    nodes = list(ast.walk(ast.parse(source)))
    for node in nodes:
        if isinstance(node, ast.Import):
            imported |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    names = list(imported.values())
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            names.append(node.value)
        elif isinstance(node, ast.Attribute):
            head, dot, rest = ast.unparse(node).partition(".")
            names.append(imported.get(head, head) + dot + rest)
    yield from (name for name in names if PRIVATE.search(name))


@pytest.mark.parametrize(
    "planted",
    [
        "import hydra._internal.utils",
        "from hydra._internal.utils import get_args_parser",
        "from hydra import _internal",
        "import importlib\nimportlib.import_module('hydra._internal.hydra')",
        "import hydra\nhydra._internal.hydra.Hydra",
        "from hydra.core.override_parser.types import Override\nOverride._convert_value(1)",
    ],
)
def test_a_planted_import_is_found(planted: str) -> None:
    assert list(inner_names(planted))


def test_nothing_of_ours_uses_hydras_private_modules() -> None:
    sources = list(paths.PACKAGE.rglob("*.py"))
    assert len(sources) > 100
    assert {file: found for file in sources if (found := list(inner_names(file.read_text())))} == {}


def test_nothing_of_ours_is_put_into_hydra(tmp_path: Path) -> None:
    """After composing, showing and completing, Hydra's modules, plugins and singletons hold nothing of dltips."""
    code = """
import sys
from dltips.commands.completion import words
from dltips.config.composition import compose
from dltips.main import main
compose(["+recipe=quickstart", "init=xavier"])
for way in (["--cfg", "all"], ["--info"], ["--help"]):
    assert main(["train", "+recipe=quickstart", *way]) == 0
assert words("dltips train optimizer.l") and words("dltips train init=")
from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton
def ours(thing):
    return str(getattr(thing, "__module__", "") or "").startswith("dltips")
modules = {name: module for name, module in sys.modules.items() if name.split(".")[0] in ("hydra", "omegaconf")}
held = [f"{name}.{key}" for name, module in modules.items() for key, value in list(vars(module).items())
        if ours(value) or any(map(ours, vars(value).values() if isinstance(value, type) else ()))]
held += [str(plugin) for plugin in Plugins.instance().discover() if ours(plugin)]
held += [str(kind) for kind, one in Singleton.get_state().get("instances", {}).items() if ours(kind) or ours(type(one))]
assert len(modules) > 20
print(held, file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "[]\n")


def test_what_is_composed_is_plain_data() -> None:
    config, left_out = compose([])
    assert left_out == [] and "hydra" not in config
    assert yaml.safe_load(OmegaConf.to_yaml(config)).keys() == to_plain(config).keys()
