import math
from typing import Any

import pytest

from dltips.tips.regularization import EarlyStopping


@pytest.mark.parametrize(
    ("monitor", "scores", "patience", "min_delta", "stops_after"),
    [
        ("val/loss", [3, 2, 1, 1, 1, 1], 2, 0.0, 5),
        ("val/loss", [3, 2, 1, 2, 0.5, 2, 2], 2, 0.0, 7),
        ("val/loss", [1, 2], 1, 0.0, 2),
        ("val/loss", [5, 4, 3, 2, 1, 0], 1, 0.0, None),
        ("val/accuracy", [0.1, 0.2, 0.3, 0.3, 0.2], 2, 0.0, 5),
        ("val/accuracy", [0.1, 0.2, 0.3, 0.4, 0.5], 1, 0.0, None),
        ("val/accuracy", [0.5, 0.4, 0.3], 2, 0.0, 3),
        ("val/accuracy", [0.50, 0.51, 0.52, 0.53], 2, 0.1, 3),
        ("val/accuracy", [0.5, 0.55, 0.65, 0.7], 2, 0.1, None),
        ("train/loss", [1, 1, 1, 1], 3, 0.0, 4),
        ("val/loss", [1, math.nan, math.nan], 2, 0.0, 3),
    ],
)
def test_early_stopping_stops_when_patience_is_over(
    monitor: Any, scores: list[float], patience: int, min_delta: float, stops_after: int | None
) -> None:
    rule = EarlyStopping(monitor=monitor, patience=patience, min_delta=min_delta)
    # the other scores say the opposite
    other = "val/accuracy" if monitor.endswith("loss") else "val/loss"
    stops = [rule.after_epoch({monitor: score, other: score}) for score in scores]
    assert (stops.index(True) + 1 if True in stops else None) == stops_after


def test_what_early_stopping_remembers_survives_a_checkpoint() -> None:
    first, second = (EarlyStopping(monitor="val/loss", patience=2, min_delta=0.0) for _ in range(2))
    assert [first.after_epoch({"val/loss": score}) for score in (1.0, 2.0)] == [False, False]
    saved = dict(first.state)
    second.state.clear()
    second.state.update(saved)
    assert second.after_epoch({"val/loss": 3.0})
