"""Checks of a sweep's trials before the first one starts."""

import pytest

from dltips.config.composition import compose
from dltips.config.validation import Config, validate
from dltips.errors import ConfigError
from dltips.feed.dataset_cache import DatasetCache
from dltips.sweep.preflight import Checker
from dltips.train.build import build_run
from dltips.train.summary import content_hash


def config_of(*overrides: str) -> Config:
    return validate(compose(["+recipe=quickstart", "data.subset=100", "epochs=1", "device=cpu", *overrides])[0])


class CountingCache(DatasetCache):
    """Counts how often samples are asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def samples(self, *arguments, **options):
        self.calls += 1
        return super().samples(*arguments, **options)


def test_the_hash_is_that_of_the_run() -> None:
    config = config_of("seed=3", "init=xavier")
    run = build_run(config)
    expected = content_hash(config, run.training.device, run.splits.hash, run.weights_hash)
    assert Checker(DatasetCache()).content_hash(config) == expected


def test_trials_with_the_same_deciding_settings_are_checked_once() -> None:
    cache = CountingCache()
    checker = Checker(cache)
    hashes = [
        checker.content_hash(config_of(f"seed={seed}", f"init={init}")) for seed in (0, 1) for init in ("he", "xavier")
    ]
    assert cache.calls == 1
    assert len(set(hashes)) == 4
    checker.content_hash(config_of("model.widths=[8]"))
    assert cache.calls == 2


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("devices=2", "^devices: 2 .* one device: leave devices out"),
        ("data=synthetic augmentation=[flip]", "^augmentation: flip takes images"),
        ("regularization=[stochastic_depth]", "^regularization.stochastic_depth: .*model=resnet"),
        (
            "regularization=[swa] regularization.swa.start=5",
            r"^regularization.swa.start: .*write regularization.swa.start=",
        ),
        ("batch_size=101", "^batch_size: 101 is more than the 100 training samples; lower it"),
    ],
)
def test_a_trial_that_could_not_start_is_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Checker(DatasetCache()).content_hash(config_of(*override.split()))
