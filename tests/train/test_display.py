"""What a person reads while a run trains."""

from pathlib import Path

import pytest
import torch

from dltips.formatting import clock
from dltips.train.display import Display, epoch_line, with_progress

RECORD = {
    "epoch": 3, "train/loss": 0.5, "train/accuracy": 0.75, "val/loss": 0.25, "val/accuracy": 1.0, "lr": 0.1,
    "samples_per_second": 12345.6,
}  # fmt: skip


@pytest.mark.parametrize(("seconds", "said"), [(0.4, "0:00"), (65, "1:05"), (3600, "1:00:00"), (7325.6, "2:02:06")])
def test_the_clock(seconds: float, said: str) -> None:
    assert clock(seconds) == said


def test_an_epoch_is_one_line() -> None:
    assert epoch_line(RECORD, 10, 65.0) == (
        "epoch  3/10  train loss 0.5000 accuracy 0.7500  val loss 0.2500 accuracy 1.0000  lr 0.1  12,346/s  1:05 left"
    )


def test_what_is_said_goes_to_stderr_and_to_the_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    display = Display(tmp_path / "run.log", 10)
    display.say("hello")
    display.epoch(RECORD)
    display.close()
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines()[0] == "hello" and said.err.splitlines()[1].startswith("epoch  3/10")
    logged = (tmp_path / "run.log").read_text().splitlines()
    assert [line[20:] for line in logged] == said.err.splitlines()


@pytest.mark.parametrize("terminal", [True, False])
def test_batches_are_counted_in_a_terminal_alone_and_the_line_goes(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    moments = iter(range(100))
    monkeypatch.setattr("dltips.train.display.time.perf_counter", lambda: float(next(moments)))
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal, raising=False)
    batches = [(torch.zeros(3, 1), torch.zeros(3)), (torch.zeros(2, 1), torch.zeros(2))]
    assert [len(targets) for _, targets in with_progress(batches, 5, "features")] == [3, 2]
    said = capsys.readouterr().err
    assert said == ("\rfeatures: 5 of 5 samples \r\x1b[K" if terminal else "")
