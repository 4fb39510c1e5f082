"""How many threads examine at once."""

import pytest

from loradrop.watcher.monitor.concurrency_limit import ConcurrencyLimit


def test_waiting_for_the_disk_asks_for_more_threads_up_to_the_most() -> None:
    limit = ConcurrencyLimit(3)
    for _ in range(5):
        limit.record(wall_seconds=1.0, cpu_seconds=0.1, hashed_bytes=0, running=limit.current)
    assert limit.current == 3


def test_crowding_asks_for_fewer_down_to_one() -> None:
    limit = ConcurrencyLimit(3)
    for _ in range(2):
        limit.record(wall_seconds=1.0, cpu_seconds=0.1, hashed_bytes=0, running=1)
    assert limit.current == 3
    taken = []
    for _ in range(3):
        limit.record(wall_seconds=1.0, cpu_seconds=0.5, hashed_bytes=0, running=2)
        taken.append(limit.current)
    assert taken == [2, 1, 1]


def test_between_waiting_and_crowding_it_stays_as_it_is() -> None:
    limit = ConcurrencyLimit(3)
    limit.record(wall_seconds=1.0, cpu_seconds=0.1, hashed_bytes=0, running=1)
    for cpu_seconds in (0.5, 0.65, 0.8):
        limit.record(wall_seconds=1.0, cpu_seconds=cpu_seconds, hashed_bytes=0, running=1)
        assert limit.current == 2


@pytest.mark.parametrize("most", [0, 1])
def test_at_least_and_where_no_more_are_allowed_at_most_one_examines(most: int) -> None:
    limit = ConcurrencyLimit(most)
    limit.record(wall_seconds=1.0, cpu_seconds=0.1, hashed_bytes=0, running=1)
    assert limit.current == 1


def test_digesting_large_files_is_no_crowding() -> None:
    limit = ConcurrencyLimit(3)
    limit.record(wall_seconds=1.0, cpu_seconds=0.9, hashed_bytes=2 << 30, running=1)
    assert limit.current == 2


def test_an_empty_batch_teaches_nothing() -> None:
    limit = ConcurrencyLimit(3)
    limit.record(wall_seconds=0.0, cpu_seconds=0.0, hashed_bytes=0, running=1)
    assert limit.current == 1
