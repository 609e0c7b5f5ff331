"""A run's context: which pictures it draws, and how it ends by default."""

import pytest

from dltips.train.context import RunContext


@pytest.mark.parametrize(
    ("pictures", "quiet", "draws"),
    [
        ("all", False, True),
        ("all", True, True),
        ("best", False, True),
        ("best", True, False),  # one of many runs: its pictures wait until it is the best
        ("none", False, False),
        ("none", True, False),
    ],
)
def test_pictures_are_drawn_by_the_setting_and_for_a_run_of_its_own(pictures: str, quiet: bool, draws: bool) -> None:
    assert RunContext(quiet=quiet).draws(pictures) == draws


def test_two_contexts_share_nothing_unless_it_is_handed_over() -> None:
    one, other = RunContext(), RunContext()
    assert one.datasets is not other.datasets and one.stop is not other.stop and one.reported is not other.reported
    shared = RunContext(datasets=one.datasets, stop=one.stop)
    one.stop.requested = True
    assert shared.stop.requested and not other.stop.requested
    assert one.ended_as() == "finished"
