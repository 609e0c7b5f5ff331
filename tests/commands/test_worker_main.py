"""One of several processes of a run: what it leaves for the one that started it."""

import os
from pathlib import Path

import pytest

from dltips.commands import verbs
from dltips.commands.worker_main import run
from dltips.exit_codes import EXIT_INTERNAL, EXIT_OK
from dltips.train.parallel.world import MESSAGES_VARIABLE


@pytest.fixture
def messages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(MESSAGES_VARIABLE, str(tmp_path))
    monkeypatch.setenv("RANK", "1")
    return tmp_path


def test_the_exit_code_is_a_message_and_the_status_is_0(messages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verbs, "run", lambda verb, arguments: {("train", "epochs=1"): 4}[verb, *arguments])
    assert run(["epochs=1"]) == EXIT_OK
    assert (messages / "code-1").read_text() == "4"
    assert (messages / "pid-1").read_text() == str(os.getpid())


def test_an_internal_error_is_a_message_and_raised(messages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(verb: str, arguments: list[str]) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(verbs, "run", fail)
    with pytest.raises(ZeroDivisionError):
        run([])
    assert (messages / "code-1").read_text() == str(EXIT_INTERNAL)
