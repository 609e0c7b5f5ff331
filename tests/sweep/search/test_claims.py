"""Claims change by compare and set: one worker each, whoever asks at the same time."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from sqlalchemy import update
from sqlalchemy.exc import IntegrityError

from dltips.sweep.search.claims import CLAIMS, CLOSED, RUNNING, TOLD, WAITING, Claims
from dltips.sweep.search.storage import opened, url_of
from dltips.sweep.search.worker_id import this_worker

ELSEWHERE = replace(this_worker(), machine="another")


@pytest.fixture
def claims(tmp_path: Path) -> Iterator[Claims]:
    with opened(url_of(None, tmp_path), 30) as database:
        found = Claims(database.engine, "study")
        found.begin(["maximize"], {"kind": "test"}, 3)
        yield found


def test_a_claim_waits_runs_is_told_and_closed(claims: Claims) -> None:
    row = claims.take(this_worker(), "a")
    assert (row.number, claims.statuses()[0]) == (0, RUNNING)
    told = claims.tell(0, "a", "COMPLETE", [0.5], {})
    assert (told.status, told.outcome) == (TOLD, "COMPLETE")
    claims.close(0)
    assert claims.statuses() == {0: CLOSED, 1: WAITING, 2: WAITING}
    assert sorted(claims.counts(), key=str) == [("closed", "COMPLETE", 1), ("waiting", None, 2)]


def test_many_workers_at_once_take_each_claim_once(claims: Claims) -> None:
    claims.grow(40)

    def all_taken(worker: int) -> list[int]:
        rows = iter(lambda: claims.take(this_worker(), f"{worker} {len(taken)}"), None)
        taken: list[int] = []
        for row in rows:
            taken.append(row.number)
        return taken

    with ThreadPoolExecutor(4) as pool:
        found = [number for taken in pool.map(all_taken, range(4)) for number in taken]
    assert sorted(found) == list(range(40))


@pytest.mark.parametrize("token", ["b", ""])
def test_another_token_changes_nothing(claims: Claims, token: str) -> None:
    claims.take(this_worker(), "a")
    assert not claims.beat(0, token) and not claims.release(0, token)
    assert claims.tell(0, token, "COMPLETE", [1.0], {}) is None
    assert claims.statuses()[0] == RUNNING and claims.beat(0, "a")


def test_what_is_told_stays(claims: Claims) -> None:
    claims.take(this_worker(), "a")
    first = claims.tell(0, "a", "COMPLETE", [0.5], {"scores": [0.5]})
    assert claims.tell(0, "a", "COMPLETE", [0.7], {}) == first
    assert claims.tell(0, "a", "FAIL", [], {}) is None
    assert not claims.release(0, "a") and claims.take(this_worker(), "b").number == 1


def test_a_sign_of_life_that_comes_in_time_keeps_the_trial(claims: Claims) -> None:
    claims.take(ELSEWHERE, "a")
    with claims.engine.begin() as connection:
        connection.execute(update(CLAIMS).values(heartbeat=datetime(2020, 1, 1)))
    (row,) = claims.of_dead_workers(RUNNING, this_worker(), 60.0)
    assert claims.beat(0, "a")
    assert claims.requeue(row, 0) is None and claims.statuses()[0] == RUNNING
    assert claims.of_dead_workers(RUNNING, this_worker(), 60.0) == []


def test_one_of_several_that_see_a_death_takes_the_trial_back(claims: Claims) -> None:
    claims.take(ELSEWHERE, "a")
    (row,) = claims.of_dead_workers(RUNNING, this_worker(), -1.0)
    assert [claims.requeue(row, 0) for _ in range(3)] == [False, None, None]
    assert claims.take(this_worker(), "b").deaths == 1


def test_a_study_is_written_whole_or_not_at_all(claims: Claims) -> None:
    other = Claims(claims.engine, "other")
    with claims.engine.begin() as connection:  # in the way of its last claim
        row = {"study": "other", "number": 4, "status": WAITING, "deaths": 0, "deaths_in_vain": 0}
        connection.execute(CLAIMS.insert().values(row))
    with pytest.raises(IntegrityError):
        other.grow(9)
    assert list(other.statuses()) == [4] and other.row() is None
    other.begin(["maximize"], {}, 2)
    assert list(other.statuses()) == [0, 1] and list(claims.statuses()) == [0, 1, 2]
