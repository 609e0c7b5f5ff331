"""Files that are replaced whole or not at all, and locks that one process holds at a time."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dltips.files import Locked, locked, read_json, replacing, sync_folder, write_durably, write_json, write_text


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "a"
    write_text(file, "old")
    with pytest.raises(ValueError, match="broken"), replacing(file) as temporary:
        temporary.write_text("half")
        raise ValueError("broken")
    assert file.read_text() == "old" and list(tmp_path.iterdir()) == [file]
    with replacing(file) as temporary:
        temporary.write_text("new")
        assert file.read_text() == "old"
    assert file.read_text() == "new" and list(tmp_path.iterdir()) == [file]
    (tmp_path / "place" / "inside").mkdir(parents=True)
    with pytest.raises(OSError, match="directory"):
        write_text(tmp_path / "place", "text")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "place"]


def test_json_is_written_to_be_read(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": [1, None], "c": "ä"})
    assert read_json(tmp_path / "a.json") == {"b": [1, None], "c": "ä"}
    assert (tmp_path / "a.json").read_text().startswith('{\n  "b"')


@pytest.mark.parametrize("content", ["[1]", "{", "[" * 100_000, None])
def test_what_is_no_json_object_is_none(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "a.json").write_text(content)
    assert read_json(tmp_path / "a.json") is None


def test_what_is_written_durably_is_there(tmp_path: Path) -> None:
    write_durably(tmp_path / "a", memoryview(b"bytes"))
    sync_folder(tmp_path)
    assert (tmp_path / "a").read_bytes() == b"bytes"


HOLDER = """
import json, sys
from pathlib import Path
from dltips.files import Locked, locked
try:
    with locked(Path(sys.argv[1])):
        print(json.dumps("got it"), flush=True)
        sys.stdin.readline()
except Locked:
    print(json.dumps("locked"), flush=True)
"""


def holder(file: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLDER, str(file)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    text: str = json.loads(process.stdout.readline())
    return text


def test_one_process_holds_a_lock_and_its_death_frees_it(tmp_path: Path) -> None:
    file = tmp_path / ".lock"
    first = holder(file)
    assert said(first) == "got it"
    with pytest.raises(Locked), locked(file):
        pass
    first.kill()
    first.communicate()
    with locked(file, wait=10):
        second = holder(file)
        assert said(second) == "locked"
        second.communicate()
    with locked(file):
        pass
