"""When the prefix is scanned, and when every byte is read again."""

import pytest

from loradrop.catalog.adapter import Reason
from loradrop.watcher.monitor.rehash_schedule import RehashSchedule
from loradrop.watcher.monitor.scan_schedule import ScanFailure, ScanSchedule

BROKEN = Reason("prefix_missing", "It is not there.")


def test_the_first_scan_is_due_at_once_and_one_runs_at_a_time() -> None:
    schedule = ScanSchedule(30.0, now=5.0)
    assert schedule.next_due() == 5.0
    assert schedule.begin() == 1
    schedule.want(now=6.0)
    assert schedule.next_due() is None
    schedule.succeed(1, now=7.0)
    assert schedule.next_due() == 6.0


def test_who_wants_a_scan_gets_the_number_of_one_that_begins_afterwards() -> None:
    schedule = ScanSchedule(30.0, now=0.0)
    assert schedule.want(now=0.0) == 1
    schedule.begin()
    assert schedule.want(now=0.0) == schedule.want(now=0.0) == 2
    schedule.succeed(1, now=1.0)
    assert (schedule.done, schedule.begin()) == (1, 2)


def test_rescans_are_an_interval_apart_plus_or_minus_a_quarter() -> None:
    dues = set()
    for _ in range(50):
        schedule = ScanSchedule(20.0, now=0.0)
        schedule.succeed(schedule.begin(), now=100.0)
        due = schedule.next_due()
        assert due is not None
        assert 115.0 <= due <= 125.0
        dues.add(due)
    assert len(dues) > 1


def test_an_interval_may_be_shorter_than_a_second() -> None:
    schedule = ScanSchedule(0.2, now=0.0)
    schedule.succeed(schedule.begin(), now=1.0)
    due = schedule.next_due()
    assert due is not None
    assert 1.15 <= due <= 1.25


def test_without_an_interval_only_what_is_wanted_is_scanned() -> None:
    schedule = ScanSchedule(0.0, now=0.0)
    schedule.succeed(schedule.begin(), now=1.0)
    assert schedule.next_due() is None
    schedule.want(now=2.0)
    assert schedule.next_due() == 2.0


def test_a_failed_scan_is_tried_again_soon_and_its_reason_is_kept_until_one_succeeds() -> None:
    schedule = ScanSchedule(0.0, now=0.0, retry_seconds=1.0)
    schedule.fail(schedule.begin(), BROKEN, now=10.0)
    assert (schedule.failure, schedule.done, schedule.next_due()) == (ScanFailure(1, BROKEN), 0, 11.0)
    schedule.succeed(schedule.begin(), now=11.0)
    assert (schedule.failure, schedule.done) == (None, 2)


def test_an_examination_that_cannot_open_the_prefix_does_not_end_the_scan_that_runs() -> None:
    schedule = ScanSchedule(30.0, now=0.0)
    schedule.begin()
    schedule.fail(0, BROKEN, now=1.0)
    assert schedule.next_due() is None
    schedule.succeed(1, now=1.5)
    assert schedule.next_due() == 2.0


def test_bytes_are_read_again_every_interval_once_for_each_name() -> None:
    schedule = RehashSchedule(60.0, now=100.0)
    assert (schedule.next_due(), schedule.wants("sql")) == (160.0, False)
    schedule.begin(["sql", "math"], now=161.0)
    assert schedule.next_due() == 221.0
    schedule.done("sql")
    assert (schedule.wants("sql"), schedule.wants("math")) == (False, True)


@pytest.mark.parametrize("interval_seconds", [0.5, 60.0])
def test_reading_again_is_due_one_interval_after_it_began_last(interval_seconds: float) -> None:
    schedule = RehashSchedule(interval_seconds, now=100.0)
    due = 100.0 + interval_seconds
    assert (schedule.is_due(due - 0.1), schedule.is_due(due)) == (False, True)
    schedule.begin(["sql"], now=due)
    assert (schedule.is_due(due), schedule.is_due(due + interval_seconds)) == (False, True)


def test_nothing_is_read_again_unless_that_is_asked_for() -> None:
    never = RehashSchedule(0.0, now=100.0)
    assert (never.next_due(), never.is_due(1e9)) == (None, False)
