"""fit: what counts as training time."""

import time
from dataclasses import replace

import pytest

from dltips.config.composition import compose
from dltips.config.validation import validate
from dltips.train import fit
from dltips.train.build import build_run


def test_what_watchers_wait_for_is_no_training_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search tells its database of each epoch there, which may be away for minutes."""
    waited = 0.0
    clock = time.perf_counter
    monkeypatch.setattr(fit.time, "perf_counter", lambda: clock() + waited)

    def wait(record: object) -> bool:
        nonlocal waited
        waited += 10_000
        return False

    config = ["device=cpu", "data.subset=150", "epochs=3", "log.layers=false"]
    run = build_run(validate(compose(config)[0]))
    result = fit.fit(run, watchers=[wait])
    seconds = [record["seconds"] for record in result.records]
    assert waited == 30_000 and 0 < seconds[0] < seconds[1] < seconds[2] < 10_000
    assert result.snapshot.seconds < 10_000


def test_samples_per_second_are_the_epochs_training_samples_over_its_training_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By a clock that stands still but for two seconds in each epoch's training: validations do not count."""
    now = 0.0
    monkeypatch.setattr(fit.time, "perf_counter", lambda: now)

    def step(net: object) -> None:
        nonlocal now
        now += 2.0

    def wait(metrics: object) -> bool:
        nonlocal now
        now += 100.0
        return False

    run = build_run(validate(compose(["device=cpu", "data.subset=150", "epochs=3", "log.layers=false"])[0]))
    hooks = run.training.hooks
    hooks = replace(hooks, end_epoch=[*hooks.end_epoch, step], on_metrics=[*hooks.on_metrics, wait])
    records = fit.fit(replace(run, training=replace(run.training, hooks=hooks))).records
    assert [record["samples_per_second"] for record in records] == [75.0] * 3
