"""Jobs that end, die or are stopped: their outcomes at this end of a launcher."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dltips.errors import ConfigError
from dltips.sweep.grid.compose_trials import freeze
from dltips.sweep.grid.launch.executor import JobLost, collect
from dltips.sweep.grid.launch.remote_trial import JobResult
from dltips.sweep.trial import Trial, TrialOutcome, folder_name
from dltips.train.context import RunContext

QUICK = ["epochs=4", "data.subset=150", "log.tensorboard=false", "log.layers=false", "log.pictures=none", "device=cpu"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def trials(*overrides: str) -> list[Trial]:
    cells = freeze([*QUICK, *overrides]).cells
    made = [Trial(number, cell.plain, cell.varied, "", "") for number, cell in enumerate(cells)]
    return [Trial(one.number, one.plain, one.varied, folder_name(one.number, one.config.hash), "") for one in made]


def outcome(trial: Trial, status: str = "finished") -> TrialOutcome:
    return TrialOutcome(trial.number, status, Path("elsewhere"))


class ScriptedExecutor:
    """A crew of which each trial ends as its script says."""

    def __init__(self, script: list[tuple[Trial, JobResult | JobLost]], strike: int | None = None) -> None:
        self.script, self.strike, self.calls = script, strike, list[str]()

    @property
    def busy(self) -> bool:
        return bool(self.script)

    def wait(self, seconds: float) -> Iterator[Any]:
        if self.strike is not None and len(self.script) == self.strike:
            signal.raise_signal(signal.SIGINT)
        return iter([self.script.pop(0)])

    def stop(self) -> None:
        self.calls.append("stop")

    def close(self) -> None:
        self.calls.append("close")


def test_a_death_costs_one_trial_and_a_note_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    first, second, third = trials("seed=0,1,2")
    note = JobResult(outcome(first), ["mind the gap"])
    executor = ScriptedExecutor(
        [
            (first, note),
            (second, JobLost("lost with its machine")),
            (third, JobResult(outcome(third), ["mind the gap"])),
        ]
    )
    ended = list(collect(executor, Path("place"), RunContext()))  # type: ignore[arg-type]
    assert [one.status for one in ended] == ["finished", "interrupted", "finished"]
    assert ended[1].error == "its job was lost with its machine; the same command goes on with it"
    assert [one.path for one in ended] == [Path("place") / trial.folder for trial in (first, second, third)]
    assert capsys.readouterr().err == "mind the gap\n" and executor.calls == ["close"]


def test_a_machine_without_the_folder_ends_the_grid() -> None:
    (trial,) = trials("seed=0")
    executor = ScriptedExecutor([(trial, JobResult(None, refused="outputs: it is not there"))])
    with pytest.raises(ConfigError, match="outputs: it is not there"):
        list(collect(executor, Path("place"), RunContext()))  # type: ignore[arg-type]
    assert executor.calls == ["close"]


def test_the_first_ctrl_c_is_passed_on_once_and_the_second_ends_all() -> None:
    first, second, third, fourth = trials("seed=range(4)")
    (Path("place") / second.folder).mkdir(parents=True)
    lost = JobLost("stopped")
    executor = ScriptedExecutor(
        [(first, JobResult(outcome(first))), (second, lost), (third, lost), (fourth, lost)], strike=3
    )
    ended = list(collect(executor, Path("place"), RunContext()))  # type: ignore[arg-type]
    # who was stopped has no excuse, which tells a person's stop from a death; who never began is no outcome
    assert [(one.number, one.status, one.error) for one in ended] == [(0, "finished", None), (1, "interrupted", None)]
    assert executor.calls == ["stop", "close"]

    executor = ScriptedExecutor([(first, JobResult(outcome(first))), (second, lost)])
    with pytest.raises(KeyboardInterrupt):
        for _ in collect(executor, Path("place"), RunContext()):  # type: ignore[arg-type]
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
