"""The samples that runs of one process share: one object for equal settings, and a few sets at most."""

import pytest
import torch

from dltips.config.composition import compose
from dltips.config.validation import Config, validate
from dltips.feed import dataset_cache
from dltips.feed.dataset_cache import MAX_KEPT, DatasetCache
from dltips.feed.load import RequiredInputs
from dltips.tips.data import DataKnobs


def config_of(*overrides: str) -> Config:
    return validate(compose(["data=synthetic", "data.samples=40", *overrides])[0])


def samples(cache: DatasetCache, config: Config, wanted: RequiredInputs | None = None) -> dataset_cache.Samples:
    common: DataKnobs = config.common["data"]()
    return cache.samples(config, common, wanted)


def test_settings_of_the_data_decide_and_nothing_else() -> None:
    cache = DatasetCache()
    first = samples(cache, config_of("seed=1", "init=he", "epochs=3"))
    assert samples(cache, config_of("seed=2", "init=zeros", "epochs=5")) is first
    for other in ("data.seed=1", "data.split_seed=1", "data.val_fraction=0.2", "data.subset=20"):
        assert samples(cache, config_of(other)) is not first


def test_what_a_net_wants_is_another_set() -> None:
    cache = DatasetCache()
    config = config_of("data.kind=image", "data.size=8")
    first = samples(cache, config)
    wanted = RequiredInputs(channels=1, sides=None, shape=None)
    gray = samples(cache, config, wanted)
    assert gray is not first and samples(cache, config, wanted) is gray
    assert gray[2].inputs.shape[1:] == (1, 8, 8) and first[2].inputs.shape[1:] == (3, 8, 8)


def test_the_training_samples_are_those_of_the_split_copied_out() -> None:
    _, splits, taken = samples(DatasetCache(), config_of())
    assert splits.train.indices is not None
    assert torch.equal(taken.inputs, splits.train.inputs[splits.train.indices])
    assert taken.indices is None and len(taken) == len(splits.train)


def test_the_set_that_was_asked_for_longest_ago_is_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[int] = []
    load = dataset_cache.load

    def counted(tip: object, *arguments: object) -> object:
        loaded.append(tip.knobs["seed"])  # type: ignore[attr-defined]
        return load(tip, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(dataset_cache, "load", counted)
    cache = DatasetCache()
    for seed in range(MAX_KEPT):
        samples(cache, config_of(f"data.seed={seed}"))
    samples(cache, config_of("data.seed=0"))  # the oldest one is young again
    samples(cache, config_of(f"data.seed={MAX_KEPT}"))  # one too many: 1 goes
    assert loaded == list(range(MAX_KEPT + 1))
    samples(cache, config_of("data.seed=0"))
    assert loaded == list(range(MAX_KEPT + 1))
    samples(cache, config_of("data.seed=1"))
    assert loaded[-1] == 1 and len(loaded) == MAX_KEPT + 2
