"""The linear probe: the head alone, on features that are computed once for each view."""

import pytest

from dltips.tips.finetune import Phase
from dltips.tips.finetune.probe import linear_probe


class Net:
    stages = ("stem", "stage1", "head")
    architecture, epochs, counts, seed = "resnet", 3, (5, 5), 0

    def features(self, stages: object) -> dict[str, object]:
        raise AssertionError("a probe asks for no features")


@pytest.mark.parametrize("views", [0, 1, 7])
def test_only_the_head_trains_on_so_many_views(views: int) -> None:
    plan = linear_probe(Net(), views=views)  # type: ignore[arg-type]
    assert (plan.strategy, plan.phases, plan.views) == ("linear_probe", (Phase(0, {"head": 1.0}),), views)
