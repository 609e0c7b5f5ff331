"""The run folder's files: what is written is what is read."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from dltips.config.composition import compose
from dltips.config.recipes import names
from dltips.config.redaction import redacted
from dltips.config.validation import validate
from dltips.runs import folder
from dltips.runs.layout import CONFIG

TEXTS = ["1e3", "1_000", "1_e3", ".5", "inf", ".inf", "nan", "0x1f", "1:30", "y", "No", "null", "~", "", " a", "a: b"]
TEXTS += ["# a", "${seed}", "[a]", "{a}", "*a", "&a", "!a", "it's", '"', "ä\u2028", "a\nb", "2026-11-21", "-"]
TEXTS += ["a" * 200, "a " * 100]


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_in_config_yaml_is_read_back_as_the_same_text(tmp_path: Path, text: str) -> None:
    written = folder.write_config(tmp_path, {"name": text, "list": [text], "mapping": {text or "empty": 1}})
    read = OmegaConf.to_container(OmegaConf.load(tmp_path / CONFIG))
    assert read == {"name": text, "list": [text], "mapping": {text or "empty": 1}}
    assert (tmp_path / CONFIG).read_text(encoding="utf-8") == written


@pytest.mark.parametrize("number", [0, -3, 1e-05, 0.1, 1e20, float("inf"), True, None])
def test_a_number_in_config_yaml_keeps_its_value_and_its_type(tmp_path: Path, number: float | None) -> None:
    folder.write_config(tmp_path, {"number": number})
    read = OmegaConf.load(tmp_path / CONFIG).number
    assert read == number and type(read) is type(number)


@pytest.mark.parametrize("name", names())
def test_config_yaml_of_a_shipped_recipe_is_what_omegaconf_writes(tmp_path: Path, name: str) -> None:
    plain = validate(compose([f"+recipe={name}"])[0]).plain
    assert folder.write_config(tmp_path, plain) == OmegaConf.to_yaml(OmegaConf.create(redacted(plain)))
