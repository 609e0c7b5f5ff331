"""Which code a run was made by: the commit of a checkout, and a hash that changes with what runs."""

import subprocess
import sys
from pathlib import Path

import pytest

from dltips import __version__, paths
from dltips.runs.code_version import code_hash, code_version, versions

COMMIT, OTHER = "0123456789abcdef0123456789abcdef01234567", "f" * 40


@pytest.fixture(autouse=True)
def _fresh() -> None:
    code_version.cache_clear()


@pytest.fixture
def git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(paths, "CHECKOUT", tmp_path)
    (tmp_path / ".git").mkdir()
    return tmp_path / ".git"


def test_without_a_checkout_it_is_the_package_s_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "CHECKOUT", tmp_path)
    assert code_version() == __version__


def test_a_commit_that_is_checked_out_by_itself(git: Path) -> None:
    (git / "HEAD").write_text(f"{COMMIT}\n")
    assert code_version() == f"{__version__}+{COMMIT[:12]}"


def test_a_branch_s_own_file_comes_before_the_packed_ones(git: Path) -> None:
    (git / "HEAD").write_text("ref: refs/heads/main\n")
    packed = f"# pack-refs\n{OTHER} refs/heads/other\n^{OTHER}\n{COMMIT} refs/heads/main\n"
    (git / "packed-refs").write_text(packed)
    assert code_version() == f"{__version__}+{COMMIT[:12]}"
    code_version.cache_clear()
    (git / "refs/heads").mkdir(parents=True)
    (git / "refs/heads/main").write_text(f"{OTHER}\n")
    assert code_version() == f"{__version__}+{OTHER[:12]}"


def test_a_branch_without_a_commit_has_none(git: Path) -> None:
    (git / "HEAD").write_text("ref: refs/heads/main\n")
    assert code_version() == __version__  # no file of any kind
    code_version.cache_clear()
    (git / "packed-refs").write_text(f"{OTHER} refs/heads/other\n")
    assert code_version() == __version__


def test_versions_are_those_that_bits_depend_on() -> None:
    assert set(versions()) == {"python", "torch", "numpy", "dltips"}
    assert versions()["dltips"] == __version__ and versions()["python"] == sys.version.split()[0]


def hashed(folder: Path, modules: str = "", *, is_imported: bool = True) -> str:
    """By a process of its own: the files are read once in each."""
    code = "import sys; from dltips.runs.code_version import code_hash; list(map(__import__, sys.argv[1:]));"
    code += "print(code_hash())"
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{paths.PACKAGE.parent}:{folder}", "DLTIPS_IMPORT": modules}
    result = subprocess.run(
        [sys.executable, "-c", code, *(["mine"] if modules and is_imported else [])],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_hash_is_of_the_user_s_tips_and_what_they_import_too(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import helper\n")
    (tmp_path / "helper.py").write_text("x = 1\n")
    (tmp_path / "stranger.py").write_text("x = 1\n")
    bare, own = hashed(tmp_path), hashed(tmp_path, "mine")
    assert bare != own
    (tmp_path / "stranger.py").write_text("x = 2\n")
    assert hashed(tmp_path, "mine") == own
    (tmp_path / "helper.py").write_text("x = 2\n")
    assert hashed(tmp_path, "mine") != own and hashed(tmp_path) == bare


def test_the_hash_is_of_the_user_s_tips_before_they_are_imported_too(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("x = 1\n")
    before = hashed(tmp_path, "mine", is_imported=False)
    (tmp_path / "mine.py").write_text("x = 2\n")
    assert hashed(tmp_path, "mine", is_imported=False) != before


def test_the_hash_is_sixteen_digits_and_the_same_all_along() -> None:
    assert len(code_hash()) == 16 and int(code_hash(), 16) >= 0 and code_hash() == code_hash()
