"""A run's summary: a content hash of all that its result depends on, and one that failed before it could start."""

import itertools

import pytest
import torch

from dltips.config.composition import compose
from dltips.config.validation import validate
from dltips.train.summary import content_hash, failed_early, parameters, peak_memory


def test_the_content_hash_differs_with_config_data_weights_and_kind_of_device() -> None:
    configs = [validate(compose([f"seed={seed}"])[0]) for seed in (0, 1)]
    uses = itertools.product(configs, (torch.device("cpu"), torch.device("cuda", 0)), ("a", "b"), (None, "w"))
    hashes = [content_hash(config, device, data, weights) for config, device, data, weights in uses]
    assert len(set(hashes)) == len(hashes) == 16
    devices = torch.device("cuda", 0), torch.device("cuda", 1)
    assert len({content_hash(configs[0], device, "a", None) for device in devices}) == 1


def test_a_run_that_could_not_be_prepared_says_why_with_its_settings() -> None:
    config = validate(compose(["seed=5", "name=mine"])[0])
    summary = failed_early(config, "out of memory")
    assert (summary["status"], summary["error"], summary["name"]) == ("failed", "out of memory", "mine")
    assert summary["seed"] == summary["settings"]["seed"] == 5 and summary["config_hash"] == config.hash


@pytest.mark.parametrize(("count", "text"), [(1, "1 parameter"), (0, "0 parameters"), (12345, "12,345 parameters")])
def test_parameters_are_counted_in_words(count: int, text: str) -> None:
    assert parameters(count) == text


def test_the_peak_memory_of_a_process_with_torch_is_that_of_torch_at_least() -> None:
    assert 50e6 < peak_memory(torch.device("cpu")) < 1e12
