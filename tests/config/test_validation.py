"""One run's config: checked over all families, hashed by what decides, written without secrets."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from dltips import paths
from dltips.catalog.registry import FAMILIES, STACKABLE
from dltips.config import validation as configs
from dltips.config.plain import leaves
from dltips.config.validation import Config, validate
from dltips.errors import ConfigError
from dltips.main import main

Output = pytest.CaptureFixture[str]
QUICK = ("epochs=0", "log.tensorboard=false", "log.pictures=none", "log.layers=false")


@pytest.fixture(scope="module")
def composed() -> DictConfig:
    """What `dltips train` composes without any override: config.yaml and the option of each family that it names."""
    folder = paths.shipped("configs")
    primary = OmegaConf.load(folder / "config.yaml")
    assert isinstance(primary, DictConfig)
    tree: dict[str, Any] = {}
    for default in primary.pop("defaults"):
        if isinstance(default, str) and default.endswith("/_common"):
            family = default.split("/")[0]
            tree.setdefault(family, {}).update(OmegaConf.load(folder / f"{default}.yaml"))
        elif default != "_self_":
            ((family, option),) = default.items()
            if family in FAMILIES:
                tree.setdefault(family, {}).update(OmegaConf.load(folder / family / f"{option}.yaml"))
    primary.pop("hydra")
    whole = OmegaConf.merge(OmegaConf.create(tree), primary)
    assert isinstance(whole, DictConfig)
    return whole


def changed(composed: DictConfig, key: str, value: Any) -> DictConfig:
    copy = composed.copy()
    OmegaConf.update(copy, key, value, force_add=True, merge=False)
    return copy


def without(composed: DictConfig, key: str) -> DictConfig:
    copy = composed.copy()
    head, _, last = key.rpartition(".")
    parent = OmegaConf.select(copy, head) if head else copy
    del parent[last]
    return copy


def message(composed: DictConfig) -> str:
    with pytest.raises(ConfigError) as problem:
        validate(composed)
    assert "\n" not in str(problem.value)
    return str(problem.value)


# Validation


def test_the_primary_config_is_valid(composed: DictConfig) -> None:
    config = validate(composed)
    assert set(config.tips) == set(FAMILIES)
    assert config.tip("optimizer").name == "sgd" and config.settings.epochs > 0


def test_cfg_job_prints_exactly_that_config(
    composed: DictConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--cfg", "job"]) == 0
    out, err = capsys.readouterr()
    assert (OmegaConf.create(out), err) == (composed, "")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_that_is_missing_or_no_section(family: str, composed: DictConfig) -> None:
    for broken in (without(composed, family), changed(composed, family, None), changed(composed, family, "x")):
        assert message(broken).startswith(f"{family}: ")


@pytest.mark.parametrize("family", FAMILIES)
def test_an_option_that_is_unknown_or_missing(family: str, composed: DictConfig) -> None:
    if family in STACKABLE:
        assert (message(changed(composed, f"{family}.nosuch", {"name": "nosuch"}))).startswith(
            f"{family}: 'nosuch' is not an option; "
        )
        assert message(changed(composed, f"{family}.nosuch", {"p": 1})).startswith(f"{family}.nosuch: nosuch is not ")
    else:
        assert message(changed(composed, f"{family}.name", "nosuch")).startswith(
            f"{family}: 'nosuch' is not an option; "
        )
        assert message(without(composed, f"{family}.name")).startswith(f"{family}.name: is missing; ")
        assert message(changed(composed, f"{family}.name", 3)).startswith(f"{family}.name: is missing; ")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_knob_that_no_option_has(family: str, composed: DictConfig) -> None:
    key = f"{family}.none.nosuch" if family in STACKABLE else f"{family}.nosuch"
    assert message(changed(composed, key, 1)).startswith(f"{key}: ")


def test_every_value_of_the_config_is_checked(composed: DictConfig) -> None:
    """Missing or of a type that no key takes: each of them is named by its full key."""
    plain = configs.to_plain(composed)
    keys = [key for key, _ in leaves(plain) if not key.endswith("name") or key == "name"]
    assert len(keys) > 25
    for key in keys:
        assert message(without(composed, key)) == f"{key}: is missing; give it a value"
        if key != "optimizer.rates":  # a mapping, whose names only the net can judge
            assert message(changed(composed, key, {"a": {"b": 1}})).startswith(f"{key}: ")
        assert message(changed(composed, f"{key}x", 1)).startswith(f"{key}x: ")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("init._target_", "os.getcwd"),
        ("_target_", "os.getcwd"),
        ("optimizer.options", {"_target_": "os.getcwd"}),
        ("model.widths", [{"_target_": "os.getcwd"}]),
        ("model.widths", [[{"_target_": "os.getcwd"}]]),
        ("name", "${oc.decode:3}"),
        ("name", "${hydra:runtime.cwd}"),
        ("name", "${oc.env:${seed}}"),
        ("name", "${own:1}"),
        ("model.widths", ["${oc.decode:3}"]),
        ("optimizer.options", {"a": ["${oc.decode:3}"]}),
    ],
)
def test_code_and_resolvers_are_refused_by_their_key(key: str, value: Any, composed: DictConfig) -> None:
    text = message(changed(composed, key, value))
    assert text.startswith(key.split(".")[0]) and "is refused" in text


def test_the_environment_and_other_keys_may_be_named(composed: DictConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLTIPS_TEST_NAME", "mine")
    config = validate(changed(changed(composed, "name", "${oc.env:DLTIPS_TEST_NAME}"), "epochs", "${batch_size}"))
    assert config.settings.name == "mine" and config.settings.epochs == config.settings.batch_size
    assert config.plain["name"] == "${oc.env:DLTIPS_TEST_NAME}" and config.plain["epochs"] == "${batch_size}"


def test_an_environment_variable_that_is_not_set_names_the_key(
    composed: DictConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DLTIPS_TEST_NAME", raising=False)
    text = message(changed(composed, "name", "${oc.env:DLTIPS_TEST_NAME}"))
    assert "name" in text and "DLTIPS_TEST_NAME" in text
    assert validate(changed(composed, "name", "${oc.env:DLTIPS_TEST_NAME,x}")).settings.name == "x"


# The hash


@pytest.mark.parametrize(
    ("key", "value"),
    [("name", "x"), ("device", "cpu"), ("log.layers", False), ("checkpoint.interval", 0), ("resume", "last")],
)
def test_what_changes_no_result_changes_no_hash(key: str, value: Any, composed: DictConfig) -> None:
    assert validate(changed(composed, key, value)).hash == validate(composed).hash


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("optimizer.lr", 0.3),
        ("epochs", 31),
        ("seed", 1),
        ("batch_size", 32),
        ("model.widths", [128, 64]),
        ("data.split_seed", 1),
        ("schedule.warmup", 1.0),
        ("regularization", {"l2": {"name": "l2", "strength": 1e-4}}),
        ("precision", "bfloat16"),
    ],
)
def test_what_decides_changes_the_hash(key: str, value: Any, composed: DictConfig) -> None:
    assert validate(changed(composed, key, value)).hash != validate(composed).hash


def test_the_hash_is_of_values_not_of_how_they_are_written(
    composed: DictConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DLTIPS_TEST_CLASS", "NAdam")
    rule = {"name": "torch", "cls": "NAdam", "lr": 0.1, "options": {}, "reduction": "mean", "rates": {}}
    written = changed(composed, "optimizer", rule)
    named = changed(written, "optimizer.cls", "${oc.env:DLTIPS_TEST_CLASS}")
    assert validate(named).hash == validate(written).hash
    reordered = OmegaConf.create({key: composed[key] for key in reversed(list(composed))})
    assert validate(reordered).hash == validate(composed).hash


# Flat keys


# Secrets

SECRETS = [
    "sk-" + "a1B2" * 6,
    "sk-proj-" + "a1B2" * 6,
    "ghp_" + "a1B2" * 9,
    "github_pat_" + "a1B2" * 9,
    "hf_" + "a1B2" * 8,
    "AKIA" + "ABCD1234" * 2,
    "xoxb-" + "1234-" * 4 + "abcd",
]


def test_the_environment_s_value_stays_out_of_config_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DLTIPS_TEST_NAME", "from-outside")
    assert main(["train", *QUICK, "name=${oc.env:DLTIPS_TEST_NAME}"]) == 0
    (folder,) = Path("outputs").iterdir()
    assert folder.name.endswith("-from-outside")
    text = (folder / "config.yaml").read_text()
    assert "name: ${oc.env:DLTIPS_TEST_NAME}\n" in text and "from-outside" not in text


# What Hydra prints


def test_info_defaults_lists_the_options_and_runs_nothing(tmp_path: Path) -> None:
    # a process of its own: with --info Hydra sets up logging, for as long as the process lives
    command = [sys.executable, "-m", "dltips", "train", "--info", "defaults", "+recipe=quickstart", "init=xavier"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "") and not any(tmp_path.iterdir())
    rows = [line.split("|")[1].strip() for line in done.stdout.splitlines() if line.startswith("| ")]
    assert "init/xavier" in rows and "recipe/quickstart" in rows and "init/he" not in rows
    assert {row.split("/")[0] for row in rows if "/" in row} >= set(FAMILIES)


@pytest.mark.parametrize(
    "typed", ["optimizer.options={eps:1e-7}", "optimizer.options.eps=1e-7", "++optimizer.options.eps=1e-7"]
)
def test_a_knob_that_takes_a_mapping(typed: str, capsys: Output) -> None:
    assert main(["train", "optimizer=torch", typed, "log={layers:false,images:false}", "--cfg", "job"]) == 0
    shown = OmegaConf.create(capsys.readouterr().out)
    assert shown.optimizer.options == {"eps": 1e-7} and shown.optimizer.cls == "NAdam"
    assert (shown.log.layers, shown.log.images, shown.log.pictures) == (False, False, "best")


def test_what_cfg_job_prints_is_what_the_run_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    monkeypatch.chdir(tmp_path)
    overrides = [
        "+recipe=quickstart",
        "regularization=[l2,ema]",
        "optimizer=torch",
        "optimizer.options.eps=1e-7",
        *QUICK,
    ]
    assert main(["train", *overrides, "--cfg", "job"]) == 0
    shown = OmegaConf.create(capsys.readouterr().out)
    assert main(["train", *overrides]) == 0
    (file,) = Path("outputs").glob("*/config.yaml")
    assert OmegaConf.load(file) == shown
    assert isinstance(shown, DictConfig)
    config: Config = validate(shown)
    assert [tip.name for tip in config.tips["regularization"]] == ["l2", "ema"]
    assert config.tip("optimizer").knobs["options"] == {"eps": 1e-7}
