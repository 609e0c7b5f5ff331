import itertools

import torch

from dltips.train import seeds


def test_every_use_has_a_seed_of_its_own() -> None:
    names = ["", "flip", "crop", "hidden1.layer.weight", "hidden11.layer.weight", "1", "11"]
    uses = itertools.product(range(12), ["order", "init", "augmentation", "global", "model"], names, range(25))
    found = [seeds.derive(seed, stream, name, epoch) for seed, stream, name, epoch in uses]
    assert len(set(found)) == len(found) == 12 * 5 * 7 * 25


def test_a_seed_fits_what_torch_takes_and_uses_all_of_it() -> None:
    found = [seeds.derive(seed, "order") for seed in range(2000)]
    assert 0 <= min(found) < 2**55
    assert 2**62 < max(found) < 2**63
    torch.Generator().manual_seed(max(found))


def test_seeds_stay_what_they_are_from_version_to_version() -> None:
    # a changed derivation would change every run: only with a new major version
    assert seeds.derive(0, "order") == 6284080537446501798
    assert seeds.derive(7, "init", "head.weight", 3) == 7321752856456775830


def test_streams_are_independent() -> None:
    draws = {
        use: torch.rand(4000, generator=seeds.generator(*use), dtype=torch.float64)
        for use in [(0, "init", "a"), (0, "init", "b"), (1, "init", "a"), (0, "order", "a"), (0, "init", "a", 1)]
    }
    for one, two in itertools.combinations(draws.values(), 2):
        # four standard deviations of the correlation of 4,000 independent pairs
        assert abs(float(torch.corrcoef(torch.stack([one, two]))[0, 1])) < 4 / 4000**0.5
    again = torch.rand(4000, generator=seeds.generator(0, "init", "a"), dtype=torch.float64)
    assert torch.equal(again, draws[0, "init", "a"])


def test_a_stream_leaves_torchs_global_one_alone() -> None:
    before = torch.get_rng_state()
    seeds.shuffled(0, 0, 100)
    torch.rand(3, generator=seeds.generator(0, "init"))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_order_is_new_in_every_epoch_and_for_every_seed() -> None:
    orders = {(seed, epoch): seeds.shuffled(seed, epoch, 500) for seed in range(3) for epoch in range(5)}
    for one, two in itertools.combinations(orders.values(), 2):
        assert not torch.equal(one, two)
    for order in orders.values():
        assert order.sort().values.tolist() == list(range(500))
    assert torch.equal(seeds.shuffled(2, 3, 500), orders[2, 3])
