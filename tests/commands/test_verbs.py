"""How a verb ends: interrupted, with an error of the user's, or with one of ours."""

import pytest

from dltips.main import main

Output = pytest.CaptureFixture[str]


def test_what_fails_on_the_way_out_of_an_interruption_is_one(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    import dltips.commands.ls

    def interrupted(arguments: list[str]) -> int:
        try:
            raise KeyboardInterrupt
        finally:
            raise AttributeError("'NoneType' object has no attribute 'flags'")

    monkeypatch.setattr(dltips.commands.ls, "run", interrupted)
    assert main(["ls"]) == 130
    assert capsys.readouterr().err == "dltips: interrupted\n"


def test_an_interruption_is_one_line_and_130(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    import dltips.commands.ls

    def interrupted(arguments: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(dltips.commands.ls, "run", interrupted)
    assert main(["ls"]) == 130
    assert capsys.readouterr().err == "dltips: interrupted\n"


def test_our_own_mistake_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    import dltips.commands.ls

    def broken(arguments: list[str]) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(dltips.commands.ls, "run", broken)
    with pytest.raises(ZeroDivisionError):
        main(["ls"])
