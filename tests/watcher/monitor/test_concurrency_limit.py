"""How many threads look at once."""

from loradrop.watcher.monitor.concurrency_limit import Pace


def test_waiting_for_the_disk_asks_for_more_threads_up_to_the_most() -> None:
    pace = Pace(3)
    for _ in range(5):
        pace.learn(wall_seconds=1.0, cpu_seconds=0.1, hashed_bytes=0, running=pace.width)
    assert pace.width == 3


def test_crowding_asks_for_fewer_down_to_one() -> None:
    pace = Pace(3)
    pace.width = 3
    for _ in range(5):
        pace.learn(wall_seconds=1.0, cpu_seconds=0.5, hashed_bytes=0, running=2)
    assert pace.width == 1


def test_digesting_large_files_is_no_crowding() -> None:
    pace = Pace(3)
    pace.learn(wall_seconds=1.0, cpu_seconds=0.9, hashed_bytes=2 << 30, running=1)
    assert pace.width == 2


def test_an_empty_batch_teaches_nothing() -> None:
    pace = Pace(3)
    pace.learn(wall_seconds=0.0, cpu_seconds=0.0, hashed_bytes=0, running=1)
    assert pace.width == 1
