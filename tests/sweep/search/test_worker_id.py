"""Which worker is dead, here and on another machine."""

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from dltips.sweep.search.storage import Database, opened, url_of
from dltips.sweep.search.study import Study, join, open_study
from dltips.sweep.search.worker_id import is_dead, this_worker


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with opened(url_of(None, tmp_path), 30) as found:
        yield found


def begun(database: Database, count: int) -> Study:
    assert join(database, "study", ["maximize"], count, {"kind": "test"})
    return open_study(database, "study")


def test_on_another_machine_a_worker_dies_of_silence(database: Database) -> None:
    study, me = begun(database, 1), this_worker()
    assert study.claim(replace(me, machine="another"), "a") is not None
    assert study.requeue_dead(me, 60.0) == [], "it has just given a sign of life"
    assert study.requeue_dead(me, None) == [], "nobody could give one"
    assert [each.number for each in study.requeue_dead(me, -1.0)] == [0]


def test_a_process_is_told_from_another_of_the_same_number() -> None:
    me = this_worker()
    assert not is_dead(asdict(me), me, 1e9, 1.0), "on this machine the table of processes decides"
    assert is_dead(asdict(replace(me, started="1")), me, 0.0, None)
    assert is_dead(asdict(replace(me, machine="")), replace(me, machine=""), 2.0, 1.0), "no table: silence decides"
