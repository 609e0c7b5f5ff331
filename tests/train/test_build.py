"""A run is built from its config: the net, its first weights, and what a batch may be."""

import pytest
import torch

from dltips.config.composition import compose
from dltips.config.validation import Config, validate
from dltips.errors import ConfigError
from dltips.train.build import build_run, check_batch_size


def config_of(*overrides: str) -> Config:
    return validate(compose(list(overrides))[0])


def test_a_model_that_keeps_its_weights_is_not_initialized() -> None:
    overrides = ("model=timm", "model.architecture=test_efficientnet", "data.subset=64", "device=cpu")
    kept, swapped = (build_run(config_of(*overrides, f"model.swap={swap}")) for swap in ("false", "true"))
    stem = "conv_stem.weight"
    ours, theirs = (run.training.net.module.get_parameter(stem) for run in (swapped, kept))
    # he: variance 2 / fan_in of 9; timm takes the fan out
    assert not torch.equal(ours, theirs)
    assert ours.var().item() == pytest.approx(2 / 9, rel=0.3) and len(kept.notes) == 1 and not swapped.notes


def test_a_batch_that_the_training_split_cannot_fill_is_refused() -> None:
    check_batch_size(config_of("batch_size=5", "accumulate=5"), 5)
    with pytest.raises(ConfigError, match=r"^batch_size: 6 .*5 training samples; lower it$"):
        check_batch_size(config_of("batch_size=6"), 5)
    with pytest.raises(ConfigError, match=r"^accumulate: 4 .*batch of 3$"):
        check_batch_size(config_of("batch_size=3", "accumulate=4"), 5)


def test_a_net_s_first_weights_follow_from_the_seed_and_disturb_no_other_stream() -> None:
    before = torch.get_rng_state()
    nets = [build_run(config_of("device=cpu", "data.subset=100", f"seed={seed}")).training.net for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(nets[0].parameters, nets[1].parameters)
    assert not torch.equal(nets[0].parameters, nets[2].parameters)
