"""A snapshot holds all that the next epoch depends on."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dltips.config.composition import compose
from dltips.config.validation import validate
from dltips.train.build import Run, build_run
from dltips.train.fit import Result, fit
from dltips.train.snapshot import Snapshot

SHORT = ["device=cpu", "data.subset=100", "batch_size=20", "model.widths=[16]", "log.layers=false"]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def prepared(*overrides: str) -> Run:
    composed, _ = compose([*SHORT, *overrides])
    return build_run(validate(composed))


def trained(*overrides: str) -> tuple[Run, Result]:
    run = prepared(*overrides)
    return run, fit(run)


@pytest.mark.parametrize(
    "options",
    [
        ["regularization=[swa,gradient_noise]", "regularization.swa.start=2"],
        ["regularization=swa", "regularization.swa.start=4"],  # nothing averaged yet
        ["optimizer=muon"],
        ["optimizer=nadam", "optimizer.rates.head=3"],
        ["optimizer=lion", "regularization=[elastic,max_norm]", "optimizer.reduction=sum"],
    ],
    ids=lambda options: options[0],
)
def test_a_run_that_goes_on_from_its_checkpoint_ends_with_the_same_bits(options: list[str]) -> None:
    whole, expected = trained("epochs=4", *options)
    first, snapshot = _stopped(2, *options)
    torch.save(snapshot.payload(first.training), "checkpoint.pt")
    second = prepared("epochs=4", *options)
    restored = Snapshot.from_payload(torch.load("checkpoint.pt", weights_only=True), second.training)
    final = fit(second, resume=restored)
    assert final.snapshot.epoch == expected.snapshot.epoch == 4
    assert torch.equal(second.training.net.parameters, whole.training.net.parameters)
    for one, other in zip(final.snapshot.regularizations, expected.snapshot.regularizations, strict=True):
        assert one.keys() == other.keys()
        for name, value in one.items():
            same = torch.equal(value, other[name]) if isinstance(value, Tensor) else value == other[name]
            assert same, name


def _stopped(epochs: int, *options: str) -> tuple[Run, Snapshot]:
    """A run of four epochs that is left after fewer."""
    run, snapshots = prepared("epochs=4", *options), []

    class Recorder:
        def epoch(self, record: Any, snapshot: Snapshot) -> None:
            snapshots.append(snapshot)
            run.training.progress.stop_requested = len(snapshots) == epochs

    assert fit(run, Recorder()).status == "interrupted"
    return run, snapshots[-1]
