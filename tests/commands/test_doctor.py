import json
from pathlib import Path

import pytest

from dltips import __version__
from dltips.catalog import source_reader
from dltips.catalog.registry import FAMILIES
from dltips.commands import doctor
from dltips.main import main

Output = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_it_reports_and_leaves_nothing(tmp_path: Path, capsys: Output) -> None:
    assert main(["doctor"]) == 0
    out, err = capsys.readouterr()
    assert err == "" and not any(tmp_path.iterdir())
    assert [line for line in out.splitlines() if line and not line.startswith(" ")] == [
        "installation",
        "devices",
        "folders",
        "tips",
    ]


def test_json_holds_what_the_machine_has(tmp_path: Path, capsys: Output) -> None:
    import torch

    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["installation"]["dltips"].startswith(f"{__version__} in ")
    assert found["installation"]["torch"] == torch.__version__.split("+")[0]
    assert set(doctor.PACKAGES) <= set(found["installation"])
    assert found["devices"]["device=auto"].startswith("cuda" if torch.cuda.is_available() else ("cpu", "mps"))
    assert found["folders"]["outputs"].startswith(f"{tmp_path / 'outputs'} (not made yet, writable, ")
    assert {family: found["tips"][family] for family in FAMILIES} == {
        family: len(source_reader.options(family)) for family in FAMILIES
    }


def test_a_missing_package_comes_with_its_remedy(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    monkeypatch.setattr(doctor, "PACKAGES", ("torch", "nosuch-package"))
    monkeypatch.setattr(doctor, "OPTIONAL", {"nosuch_optional": "bench"})
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["installation"]
    assert found["nosuch-package"] == "MISSING: pip install nosuch-package"
    assert found["nosuch_optional"] == "not installed (pip install 'dltips[bench]')"


def test_it_shows_the_user_s_modules_found_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    (tmp_path / "own.py").write_text("")
    monkeypatch.setenv("DLTIPS_IMPORT", "own.py,nosuch_module")
    assert main(["doctor", "--json"]) == 0
    tips = json.loads(capsys.readouterr().out)["tips"]
    assert tips["your tips: own.py"] == str(tmp_path / "own.py")
    assert tips["your tips: nosuch_module"] == "NOT FOUND: neither a module nor a .py file"


def test_an_unknown_argument_is_one_line(capsys: Output) -> None:
    assert main(["doctor", "x"]) == 2
    assert capsys.readouterr() == ("", "dltips: dltips doctor: unrecognized arguments: x; see dltips doctor --help\n")
