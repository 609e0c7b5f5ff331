"""A search as plain data."""

import json

from dltips.sweep.search.plan import SearchPlan
from dltips.sweep.search.search_settings import MAY_DIFFER, SearchSettings
from dltips.sweep.search.space import from_json, resolve

TYPED = ["+recipe=quickstart", "epochs=3", "optimizer.lr=interval(0.01,0.1)"]


def plan() -> SearchPlan:
    fixed = ("+recipe=quickstart", "epochs=3")
    return SearchPlan(resolve(TYPED), SearchSettings(trials=7), ("val/accuracy", "seconds"), fixed, "study", "c", "d")


def test_it_is_plain_data_without_what_may_differ() -> None:
    written = json.loads(json.dumps(plan().to_json()))
    assert set(written["settings"]).isdisjoint(MAY_DIFFER)
    assert written["settings"]["sampler"] == SearchSettings().sampler
    assert from_json(written["space"]) == plan().space
    rest = {key: value for key, value in written.items() if key not in ("space", "settings")}
    assert rest == {
        "objectives": ["val/accuracy", "seconds"],
        "fixed": ["+recipe=quickstart", "epochs=3"],
        "study": "study",
        "code": "c",
        "data": "d",
    }


def test_directions_and_typed_keys() -> None:
    assert plan().directions == ["maximize", "minimize"]
    assert plan().metric == "val/accuracy"
    assert plan().typed == ["recipe", "epochs", "optimizer.lr"]
