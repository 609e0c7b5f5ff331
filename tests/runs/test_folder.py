"""The run folder's files: what is written is what is read."""

import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from dltips.config.composition import compose
from dltips.config.recipes import names
from dltips.config.redaction import redacted
from dltips.config.validation import validate
from dltips.errors import ConfigError
from dltips.files import write_json
from dltips.runs import folder
from dltips.runs.file_names import CONFIG, METRICS, SUMMARY

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


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def made(name: str, status: str | None = "finished") -> Path:
    place = Path("outputs", name)
    place.mkdir(parents=True)
    (place / CONFIG).write_text("seed: 0\n")
    if status is not None:
        write_json(place / SUMMARY, {"status": status})
    return place


# Making one


def test_a_run_folder_is_made_under_outputs_and_is_always_a_new_one(here: Path) -> None:
    folders = [folder.make("my run") for _ in range(20)]
    assert len(set(folders)) == 20 and all(each.is_dir() and each.parent == Path("outputs") for each in folders)
    assert all(re.fullmatch(r"\d{8}-\d{6}-\d{6}-[0-9a-f]{6}-my-run", each.name) for each in folders)
    assert sorted(folders, key=str)[-1].name >= folders[0].name


def test_a_chosen_folder_is_made_once(here: Path) -> None:
    assert folder.make("name", Path("mine")) == Path("mine") and Path("mine").is_dir()
    with pytest.raises(ConfigError, match=r"^outputs: .*mine .*\(File exists\)$"):
        folder.make(None, Path("mine"))


@pytest.mark.parametrize(
    ("name", "label"),
    [
        (None, ""),
        ("", ""),
        ("..", ""),
        ("a/b c\\d", "-a-b-c-d"),
        ("-a.b_c.", "-a.b_c"),
        ("ä1", "-ä1"),
        ("x" * 100, "-" + "x" * 60),
    ],
)
def test_a_name_becomes_part_of_the_folder_s(name: str | None, label: str) -> None:
    assert folder.unique_name(name, "abc").partition("-abc")[2] == label


def test_a_place_that_can_be_written_is_left_as_it_was(here: Path) -> None:
    folder.check_writable()
    assert list(here.iterdir()) == []
    (here / "outputs").mkdir()
    folder.check_writable()
    assert list((here / "outputs").iterdir()) == []


def test_a_place_that_cannot_be_written_is_said(here: Path) -> None:
    (here / "outputs").write_text("")
    with pytest.raises(ConfigError, match=r"^outputs: .*outputs cannot be written \(.*\); .*folder"):
        folder.check_writable()


# Its files


def test_metrics_are_cut_behind_an_epoch(tmp_path: Path) -> None:
    (tmp_path / METRICS).write_text('{"epoch": 1}\n{"epoch": 2}\n{"epoch": 3}\n{"ep')
    assert folder.cut_metrics(tmp_path, 2) == [{"epoch": 1}, {"epoch": 2}]
    assert (tmp_path / METRICS).read_text() == '{"epoch": 1}\n{"epoch": 2}\n'


@pytest.mark.parametrize(("reads", "count"), [({"test_reads": 3}, 3), ({"test_reads": True}, 0), ({}, 0)])
def test_how_often_the_test_split_was_read(reads: dict[str, object], count: int) -> None:
    assert folder.test_reads(reads) == count


def test_a_run_s_config_is_completed_and_what_is_none_is_refused(tmp_path: Path) -> None:
    plain = validate(compose(["seed=7"])[0]).plain
    folder.write_config(tmp_path, {key: value for key, value in plain.items() if key != "accumulate"})
    assert folder.read_config(tmp_path) == plain
    for text in ("[1]", "epochs: 3\n"):
        (tmp_path / CONFIG).write_text(text)
        with pytest.raises(ConfigError, match=r"config\.yaml: .*start a new run$"):
            folder.read_config(tmp_path)
    (tmp_path / CONFIG).write_text("{")
    with pytest.raises(ConfigError, match=r"config.yaml: cannot be read \("):
        folder.read_config(tmp_path)


# Finding one


def test_last_to_resume_is_the_newest_that_is_unfinished(here: Path) -> None:
    with pytest.raises(ConfigError, match=r"^resume: last .*unfinished run.* under .*outputs$"):
        folder.find_to_resume("last")
    made("1"), made("2", "interrupted"), made("3", "failed"), made("4", "diverged"), made("5")
    assert folder.find_to_resume("last") == Path("outputs/3")
    made("6", None)  # it was killed
    assert folder.find_to_resume("last") == Path("outputs/6")
    assert folder.find_to_resume("outputs/1") == Path("outputs/1")


def test_what_is_no_run_folder_is_refused(here: Path) -> None:
    (here / "empty").mkdir()
    for chosen, why in (("nowhere", "does not exist"), ("empty", r".*run folder: .*config\.yaml")):
        with pytest.raises(ConfigError, match=rf"^{chosen}: {why}; .*under outputs$"):
            folder.find_to_resume(chosen)
    for find, key in ((folder.find, "run"), (folder.find_to_resume, "resume")):
        with pytest.raises(ConfigError, match=rf"^{key}: '' .*run folder; .*under outputs, or"):
            find(" ")


def test_a_run_is_written_by_one_process_at_a_time(tmp_path: Path) -> None:
    said = r"^resume: .*another process; wait for it, or stop it$"
    with folder.writing(tmp_path), pytest.raises(ConfigError, match=said), folder.writing(tmp_path):
        pass
    with folder.writing(tmp_path):
        pass
